"""Checks of settings and of array arguments, and the decorator that runs a check before a formula."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, TypeVar, cast, get_type_hints

from minitransformer.backend import (
    Array,
    Generator,
    array_module,
    castable,
    extremes,
    integer_of,
    is_array,
    is_float,
    is_plain,
    on_gpu,
    to_host,
)
from minitransformer.errors import ConfigError, InputError, MinitransformerError, describe

SIZES_BELOW = 2**20  # the product of three such sizes is still a possible array length
INT64 = 2**63 - 1  # no setting and no count is larger
FLOAT32 = (1.2e-38, 3.4e38)  # the positive numbers that float32 holds with all its digits

F = TypeVar("F", bound=Callable[..., Any])
Config = TypeVar("Config")


def from_settings(cls: type[Config], settings: Mapping[str, Any]) -> Config:
    """A config dataclass from names and values. Raises ConfigError for an unknown name, suggesting the nearest."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in settings:
        one_of("setting", name, known)
    try:
        return cls(**settings)
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from None


def check_types(config: Any) -> None:
    """Raise ConfigError if a field does not hold what its annotation says (an int passes for a float).

    An integer of more than 64 bits is refused: it could become neither a float nor an array's size.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        expected = hints[field.name]
        if isinstance(value, int) and not -INT64 <= value <= INT64:
            raise ConfigError(
                f"{field.name}: expected a number of at most 64 bits, got {value.bit_length()} bits"
            )
        kinds = getattr(expected, "__args__", (expected,)) if expected != tuple[str, ...] else (tuple,)
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            continue
        if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(k.__name__ for k in kinds)
            raise ConfigError(f"{field.name}: expected {names}, got {describe(value)}")
        if isinstance(value, tuple) and not all(isinstance(word, str) for word in value):
            raise ConfigError(f"{field.name}: expected a tuple of str, got {describe(value)}")


def require(condition: bool, name: str, expected: str, got: Any) -> None:
    """Raise ConfigError, saying what setting `name` should be, unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name}: expected {expected}, got {describe(got)}")


def check_size(name: str, size: int) -> None:
    """Raise ConfigError unless `size` can be the size of an array's axis."""
    require(size >= 1, name, "at least 1", size)
    require(size < SIZES_BELOW, name, f"less than {SIZES_BELOW:,}", size)


def as_integer(name: str, value: Any, low: int, high: int, expected: str) -> int:
    """`value` as an int. Raises InputError unless it is an integer of Python's or NumPy's, low <= value <= high."""
    integer = integer_of(value)
    if integer is None or not low <= integer <= high:
        raise InputError(f"{name}: expected {expected}, got {describe(value)}")
    return integer


def as_list(name: str, values: Any, expected: str) -> list[Any]:
    """`values` as a list. Raises InputError if they are not iterable."""
    try:
        return list(values)
    except TypeError:
        raise InputError(f"{name}: expected a list of {expected}, got {describe(values)}") from None


def between(value: Any, low: float, high: float) -> bool:
    """Whether `value` is a real number, Python's or NumPy's, and low <= value < high."""
    try:
        return isinstance(value, Real) and bool(low <= value < high)  # type: ignore[operator]
    except TypeError:  # NumPy counts a timedelta64 among the real numbers
        return False


def one_of(kind: str, name: Any, choices: Iterable[Any]) -> None:
    """Raise ConfigError, suggesting the nearest, unless `name` is one of `choices`."""
    choices = list(choices)
    if name in choices:
        return
    near = difflib.get_close_matches(str(name), [str(c) for c in choices], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"{kind}: unknown {name!r}{hint} Known: {', '.join(sorted(map(str, choices)))}")


def checked(check: Callable[..., tuple[Any, ...]]) -> Callable[[F], F]:
    """A decorator of a formula: `check` takes its arguments first, and returns them as the formula needs, or raises.

    Both have the same parameters, with the same default values.
    """

    def attach(formula: F) -> F:
        @wraps(formula)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            return formula(*check(*arguments, **named))

        return cast(F, wrapper)

    return attach


def sinusoid_sizes(max_len: int, d_model: int) -> tuple[int, int]:
    """Check the sizes of a table of sinusoids, and return them. Raises ConfigError for an odd d_model."""
    require(d_model % 2 == 0, "d_model", "an even number for sinusoidal positions", d_model)
    return max_len, d_model


def binary_sizes(max_len: int, d_model: int) -> tuple[int, int]:
    """Check the sizes of a table of binary positions, and return them. Raises ConfigError if d_model is too small."""
    n_bits = (max_len - 1).bit_length()
    require(
        d_model >= n_bits,
        "d_model",
        f"at least {n_bits}, a bit each, for max_len={max_len} binary positions",
        d_model,
    )
    return max_len, d_model


def head_widths(d_model: int, n_heads: int, d_k: int | None, d_v: int | None) -> tuple[int, int]:
    """d_k and d_v, by default d_model / n_heads. Raises ConfigError if that is not a whole number."""
    whole = d_model % n_heads == 0 or not (d_k is None or d_v is None)
    require(whole, "n_heads", f"a divisor of d_model={d_model}, or d_k and d_v", n_heads)
    return d_k or d_model // n_heads, d_v or d_model // n_heads


def model_inputs(
    model: Any, src_ids: Array, tgt_in: Array, rng: Generator | None = None, keep: str = "caches"
) -> tuple[Any, ...]:
    """Check the arguments of Transformer.forward; return them, the ids as arrays of its library. Raises InputError."""
    if not isinstance(rng, Generator | None):
        raise InputError(f"rng: expected a random generator, or None for evaluation, got {describe(rng)}")
    tgt_in = ids_for(model, tgt_in, "tgt_in", model.config.tgt_vocab_size)
    src_ids = ids_for(model, src_ids, "src_ids", model.config.src_vocab_size)
    if len(tgt_in) != len(src_ids):
        raise InputError(f"src_ids and tgt_in: expected one batch, got {len(src_ids)} and {len(tgt_in)} rows")
    return model, src_ids, tgt_in, rng, keep


def ids_for(model: Any, ids: Array, name: str, vocab_size: int) -> Array:
    """`ids` as an array of the model's library. Raises InputError unless the model can read them."""
    ids = as_array(ids, name)  # checked before it moves: on the CPU, no check waits for a GPU
    if ids.ndim != 2 or ids.size == 0:
        raise InputError(f"{name}: expected ids of shape (B, T), B and T at least 1, got {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise InputError(f"{name}: expected integer ids, got {ids.dtype}")
    if ids.shape[1] > model.config.max_len:
        raise InputError(
            f"{name}: expected at most max_len={model.config.max_len} tokens, got {ids.shape[1]}"
        )
    low, high = extremes(ids)
    if low < 0 or high >= vocab_size:
        raise InputError(f"{name}: expected ids 0 … {vocab_size - 1}, got {low if low < 0 else high}")
    return beside(ids, name, model.output.E.data)


def gradient_of_logits(model: Any, dlogits: Array, cache: Any) -> tuple[Any, ...]:
    """Check the arguments of Transformer.backward; return them, dlogits in the model's dtype. Raises InputError."""
    check_kept(cache.decoder.layers)
    E, shape = model.output.E, (*cache.output.x.shape[:-1], model.config.tgt_vocab_size)
    if getattr(dlogits, "shape", None) != shape or not castable(dlogits, E.data):
        raise InputError(
            f"dlogits: expected numbers of shape {shape}, like the logits, got {describe(dlogits)}"
        )
    return model, beside(dlogits, "dlogits", E.data).astype(E.data.dtype, copy=False), cache


class _Door(threading.local):
    """Whether this thread is inside a layer already, whose inputs were checked at its door."""

    passed = False


_door = _Door()


def layer_inputs(forward: F) -> F:
    """Above a layer's forward: what it takes for arrays are arrays of floats, `ids` integers, and `rng` a generator.

    Which is which is told by the names and annotations of forward's parameters. Raises InputError for anything else,
    for an empty array, and where shapes do not fit together. A layer that is called by another layer is not at a door.
    """
    parameters = signature(forward).parameters.values()
    checks = [(p.name, _CHECKS.get(p.name) or _CHECKS.get(p.annotation)) for p in parameters]

    @wraps(forward)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        if _door.passed:
            return forward(*arguments, **named)
        for (name, check), x in [*zip(checks, arguments, strict=False), *_named(checks, named)]:
            if check:
                check(name, x)
        _door.passed = True
        try:
            return forward(*arguments, **named)
        except (ValueError, IndexError) as error:
            if isinstance(error, MinitransformerError):
                raise
            shapes = ", ".join(describe(x) for x in (*arguments, *named.values()) if getattr(x, "shape", ()))
            raise InputError(f"{forward.__qualname__}: {shapes}: shapes do not fit ({error})") from error
        finally:
            _door.passed = False

    return cast(F, wrapper)


def _named(
    checks: Sequence[tuple[str, Any]], named: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, Any], Any]]:
    """The checks of what was given by name."""
    return (((name, check), named[name]) for name, check in checks if name in named)


def check_floats(name: str, x: Any) -> None:
    """Raise InputError unless `x` is an array of floats (or, for gradient checks, complex numbers) with some in it."""
    if not (is_plain(x) and is_float(x)):
        hint = (
            f"; pass {name}.numpy()" if hasattr(x, "numpy") else f"; numpy.asarray({name}, 'float32') is one"
        )
        raise InputError(f"{name}: expected an array of floating-point numbers, got {_what(x)}{hint}")
    if x.size == 0:
        raise InputError(f"{name}: expected at least one number, got an array of shape {tuple(x.shape)}")


def _what(x: Any) -> str:
    """`x` in words: its class, if it is an array of another kind than it seems to be."""
    return f"a {type(x).__name__}" if is_array(x) and not is_plain(x) else describe(x)


def as_array_of_numbers(name: str, x: Any) -> Any:
    """`x`, or, if it is another library's array, such as PyTorch's, a NumPy array of its numbers.

    Raises InputError for one that NumPy cannot read where it is.
    """
    if hasattr(x, "astype") or not hasattr(x, "__array__"):
        return x
    try:
        return x.__array__()
    except (RuntimeError, TypeError, ValueError) as error:  # on a GPU, or part of a graph
        raise InputError(
            f"{name}: expected a NumPy array, got {describe(x)}; pass {name}.detach().cpu().numpy() ({error})"
        ) from None


def check_ids(name: str, ids: Any) -> None:
    """Raise InputError unless `ids` is an array of integers with some in it."""
    if not is_plain(ids) or ids.dtype.kind not in "iu":
        raise InputError(f"{name}: expected an array of integers, got {_what(ids)}")
    if ids.size == 0:
        raise InputError(f"{name}: expected at least one id, got an array of shape {tuple(ids.shape)}")


def check_rng(name: str, rng: Any) -> None:
    """Raise InputError unless `rng` is a random generator, or None."""
    if not isinstance(rng, Generator | None):
        raise InputError(
            f"{name}: expected a generator, as numpy.random.default_rng(0) is, or None for evaluation, got "
            f"{describe(rng)}"
        )


# by the name of a parameter of forward, or by its annotation
_CHECKS: dict[str, Callable[[str, Any], None]] = {"ids": check_ids, "rng": check_rng, "Array": check_floats}


def embedding_inputs(layer: Any, ids: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check Embedding.forward: ids must be integers of the vocabulary. Raises InputError otherwise."""
    check_ids("ids", ids)
    check_rng("rng", rng)
    if not on_gpu(ids):  # to look at them there would mean waiting; the model has looked at its own already
        low, high, last = *extremes(ids), layer.E.shape[0] - 1
        if low < 0 or high > last:
            raise InputError(f"ids: expected ids 0 … {last}, got {low if low < 0 else high}")
    return layer, ids, rng


def norm_inputs(layer: Any, x: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check a norm's forward: `x` has as many features as gamma. Raises InputError otherwise.

    (A single one would be broadcast to all of them, and its gradient would have another shape.)
    """
    check_features("x", x, layer.gamma.shape[0])
    return layer, x, rng


def add_norm_inputs(layer: Any, x: Array, s: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check AddNorm.forward: what is added has one shape. Raises InputError otherwise."""
    if x.shape != s.shape:
        raise InputError(f"x, s: expected two arrays of one shape, got {tuple(x.shape)} and {tuple(s.shape)}")
    return layer, x, s, rng


def positions_inputs(layer: Any, x: Array, rng: Generator | None = None, start: int = 0) -> tuple[Any, ...]:
    """Check the forward of FixedPositions or LearnedPositions: x is (B, T, d_model). Raises InputError otherwise."""
    if x.ndim != 3:
        raise InputError(f"x: expected an array of shape (B, T, d_model), got {tuple(x.shape)}")
    check_features("x", x, (getattr(layer, "PE", None) or layer.P).data.shape[1])
    return layer, x, rng, start


def check_features(name: str, x: Array, d_model: int) -> None:
    """Raise InputError unless the last axis of `x` is `d_model` long."""
    if tuple(x.shape[-1:]) != (d_model,):
        raise InputError(f"{name}: expected {d_model} features on the last axis, got shape {tuple(x.shape)}")


def attention_inputs(
    layer: Any, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
) -> tuple[Any, ...]:
    """Check an attention's forward: arrays (B, h, T, d), and a mask that fits. Raises InputError otherwise."""
    for name, x in (("Q", Q), ("K", K), ("V", V)):
        check_floats(name, x)
        if x.ndim != 4:
            raise InputError(f"{name}: expected an array of shape (B, h, T, d), got {tuple(x.shape)}")
    check_rng("rng", rng)
    fits = Q.shape[:2] == K.shape[:2] == V.shape[:2] and K.shape[2] == V.shape[2] and Q.shape[3] == K.shape[3]
    if not fits:
        shapes = ", ".join(str(tuple(x.shape)) for x in (Q, K, V))
        raise InputError(
            f"Q, K, V: expected (B, h, T_q, d_k), (B, h, T_k, d_k), (B, h, T_k, d_v), got {shapes}"
        )
    if len({x.dtype.kind for x in (Q, K, V)}) > 1:
        kinds = ", ".join(str(x.dtype) for x in (Q, K, V))
        raise InputError(f"Q, K, V: expected all real, or all complex, got {kinds}")
    check_mask(mask, (*Q.shape[:3], K.shape[2]))
    return layer, Q, K, V, mask, rng


def softmax_inputs(scores: Array, mask: Array | None = None) -> tuple[Array, Array | None]:
    """Check softmax: scores must be floats, and a mask must fit. Raises InputError otherwise."""
    check_floats("scores", scores)
    if mask is not None:
        check_mask(mask, scores.shape)
    return scores, mask


def check_mask(mask: Array | None, scores_shape: tuple[int, ...]) -> None:
    """Raise InputError unless `mask` is None, or boolean, and says by itself which axes of the scores it has.

    It has as many axes as the scores, (B, h, T_q, T_k), each 1 or full; or exactly their last two, (T_q, T_k), where
    these cannot be taken for (B, T_k), a row for each sentence.
    """
    if mask is None:
        return
    axes = "(B, h, T_q, T_k) = " if len(scores_shape) == 4 else ""
    expected = (
        f"expected booleans (True = may be attended to), each axis 1 or as in {axes}{tuple(scores_shape)}"
    )
    if not is_plain(mask) or mask.dtype.kind != "b":
        raise InputError(f"mask: {expected}, got {_what(mask)}")
    shape = tuple(mask.shape)
    if len(shape) == len(scores_shape) and all(m in (1, s) for m, s in zip(shape, scores_shape, strict=True)):
        return
    hint = "write mask[None, None] for (T_q, T_k), mask[:, None, None] for a row of keys for each sentence"
    if shape != tuple(scores_shape[-2:]):
        raise InputError(f"mask: {expected}, got bool of shape {shape}; {hint}")
    if len(scores_shape) == 4 and shape[0] == scores_shape[0] > 1:
        raise InputError(
            f"mask: {expected}, got bool of shape {shape}, which could mean two things here; {hint}"
        )


def loss_inputs(loss_fn: Any, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Any, ...]:
    """Check the arguments of LabelSmoothedCrossEntropy.forward; return them, the tokens counted. Raises InputError."""
    if not (is_plain(logits) and is_float(logits) and logits.shape):
        raise InputError(f"logits: expected floating-point numbers (B, T_tgt, V), got {_what(logits)}")
    tgt_out, (*positions, V) = as_array(tgt_out, "tgt_out"), logits.shape
    if list(tgt_out.shape) != positions or tgt_out.dtype.kind not in "iu" or tgt_out.size == 0:
        raise InputError(
            f"tgt_out: expected integers of shape {tuple(positions)}, at least one, "
            f"got {tgt_out.dtype} of shape {tuple(tgt_out.shape)}"
        )
    low, high = extremes(tgt_out)
    if low < 0 or high >= V:
        raise InputError(f"tgt_out: expected ids 0 … {V - 1}, got {low if low < 0 else high}")
    if n_tokens is None:
        n_tokens = int(to_host((tgt_out != loss_fn.pad_id).sum()))
        if n_tokens == 0:
            raise InputError("tgt_out: expected at least one token that is not padding")
    return (
        loss_fn,
        logits,
        beside(tgt_out, "tgt_out", logits),
        as_integer("n_tokens", n_tokens, 1, INT64, "1 or more"),
    )


def learning_rate_of(optimizer: Any, lr: float) -> tuple[Any, ...]:
    """Check the arguments of Adam.step, and return them. Raises InputError unless `lr` is a number, 0 or more."""
    if not between(lr, 0, FLOAT32[1]):
        raise InputError(f"lr: expected a number, 0 or more, got {describe(lr)}")
    return optimizer, float(lr)


def largest_norm(model: Any, max_norm: float | None) -> tuple[Any, ...]:
    """Check the arguments of clip_grad_norm. Raises InputError unless `max_norm` is None or a number above 0."""
    if max_norm is not None and not between(max_norm, *FLOAT32):
        raise InputError(f"max_norm: expected a number above 0, or None, got {describe(max_norm)}")
    return model, max_norm


def check_kept(kept_of_layers: list[Any]) -> None:
    """Raise InputError if forward kept nothing for backward: a None among `kept_of_layers`."""
    if None in kept_of_layers:
        raise InputError("backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'")


def as_array(ids: Array, name: str) -> Array:
    """`ids`, which may be lists, as an array of its own library. Raises InputError for ragged lists."""
    if is_array(ids) and not is_plain(ids):  # a masked array would lose its mask
        raise InputError(f"{name}: expected a plain array, got {_what(ids)}")
    try:
        return array_module(ids).asarray(ids)
    except (ValueError, TypeError):
        raise InputError(f"{name}: expected rows of one length; pad the shorter ones") from None


def beside(x: Array, name: str, like: Array) -> Array:
    """`x` on the device of `like`; an array on the CPU is sent to the GPU, but not the other way round.

    Raises InputError for an array on a GPU and a model on the CPU, which is likely a mistake.
    """
    if on_gpu(x) and not on_gpu(like):
        raise InputError(
            f"{name}: expected an array on the device 'cpu', where the model is, got one on 'cuda'; "
            f"move one of them: model.to('cuda'), or cupy.asnumpy({name})"
        )
    return array_module(like).asarray(x)
