"""Checks of what layers are given: arrays, ids, masks, generators."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

from minitransformer.backend import (
    Array,
    Generator,
    array_module,
    extremes,
    is_array,
    is_float,
    is_plain,
    on_gpu,
)
from minitransformer.errors import InputError, MinitransformerError, describe
from minitransformer.validation.settings import INT64, as_integer

F = TypeVar("F", bound=Callable[..., Any])


class _Door(threading.local):
    """Whether this thread is already inside a layer, whose inputs have been checked."""

    passed = False


_door = _Door()


def layer_inputs(forward: F) -> F:
    """A decorator for a layer's forward: arrays must hold floats, `ids` integers, and `rng` must be a generator.

    The names and annotations of forward's parameters say which is which. Raises InputError for anything else, for an
    empty array, and where shapes do not fit together. A layer that another layer calls is not checked again.
    """
    parameters = list(signature(forward).parameters.values())
    names = [p.name for p in parameters]
    checks = {p.name: _CHECKS.get(p.name) or _CHECKS.get(p.annotation) for p in parameters}

    @wraps(forward)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        if _door.passed:
            return forward(*arguments, **named)
        for name, x in (*zip(names, arguments, strict=False), *named.items()):
            if check := checks.get(name):
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


def doors_open(step: F) -> F:
    """A decorator of a model's step that checks its own input, so that the layers it calls do not check theirs.

    (The checks of the layers would take as long as the step of one token itself.)
    """

    @wraps(step)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        before, _door.passed = _door.passed, True
        try:
            return step(*arguments, **named)
        finally:
            _door.passed = before

    return cast(F, wrapper)


def check_floats(name: str, x: Any) -> None:
    """Raise InputError unless `x` is an array of floats (or, for gradient checks, complex numbers), and not empty."""
    if not (is_plain(x) and is_float(x)):
        hint = (
            f"; pass {name}.numpy()" if hasattr(x, "numpy") else f"; numpy.asarray({name}, 'float32') is one"
        )
        raise InputError(f"{name}: expected an array of floating-point numbers, got {what(x)}{hint}")
    if x.size == 0:
        raise InputError(f"{name}: expected at least one number, got an array of shape {tuple(x.shape)}")


def what(x: Any) -> str:
    """`x` in words, for a message: its class, if it is a matrix or a masked array; otherwise as `describe` has it."""
    return f"a {type(x).__name__}" if is_array(x) and not is_plain(x) else describe(x)


def as_array(ids: Array, name: str) -> Array:
    """`ids`, which may be lists, as an array of its own library. Raises InputError for ragged lists."""
    if is_array(ids) and not is_plain(ids):  # a masked array would lose its mask
        raise InputError(f"{name}: expected a plain array, got {what(ids)}")
    try:
        return array_module(ids).asarray(ids)
    except (ValueError, TypeError):
        raise InputError(f"{name}: expected rows of one length; pad the shorter ones") from None


def check_ids(name: str, ids: Any) -> None:
    """Raise InputError unless `ids` is an array of integers, and not empty."""
    if not is_plain(ids) or ids.dtype.kind not in "iu":
        raise InputError(f"{name}: expected an array of integers, got {what(ids)}")
    if ids.size == 0:
        raise InputError(f"{name}: expected at least one id, got an array of shape {tuple(ids.shape)}")


def check_range(name: str, ids: Array, n: int, what: str = "ids") -> None:
    """Raise InputError unless all `ids` are between 0 and n - 1."""
    low, high = extremes(ids)
    if low < 0 or high >= n:
        raise InputError(f"{name}: expected {what} 0 … {n - 1}, got {low if low < 0 else high}")


def check_rng(name: str, rng: Any) -> None:
    """Raise InputError unless `rng` is a random generator, or None."""
    if not isinstance(rng, Generator | None):
        raise InputError(
            f"{name}: expected a random generator, such as numpy.random.default_rng(0), or None for evaluation, got "
            f"{describe(rng)}"
        )


# by the name of a parameter of forward, or by its annotation
_CHECKS: dict[str, Callable[[str, Any], None]] = {"ids": check_ids, "rng": check_rng, "Array": check_floats}


def embedding_inputs(layer: Any, ids: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check Embedding.forward: ids must be integers of the vocabulary. Raises InputError otherwise."""
    ids = as_array(ids, "ids")
    check_ids("ids", ids)
    check_rng("rng", rng)
    if not on_gpu(ids):  # looking at them on a GPU would mean waiting, and the model has checked its own
        check_range("ids", ids, layer.E.shape[0])
    return layer, ids, rng


def norm_inputs(layer: Any, x: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check a norm's forward: `x` has as many features as gamma, and as many axes as the layer's `n_axes` allows.

    (A single feature would be broadcast to all of them, and its gradient would have another shape.) Raises InputError
    otherwise.
    """
    check_features("x", x, layer.gamma.shape[0])
    if x.ndim not in (allowed := getattr(layer, "n_axes", (x.ndim,))):
        expected = "(B, T, d_model)" + ", or (N, d_model)" * (2 in allowed)
        raise InputError(f"x: expected {expected}, got shape {tuple(x.shape)}")
    return layer, x, rng


def add_norm_inputs(layer: Any, x: Array, s: Array, rng: Generator | None = None) -> tuple[Any, ...]:
    """Check AddNorm.forward: the two arrays to add have one shape. Raises InputError otherwise."""
    if x.shape != s.shape:
        raise InputError(f"x, s: expected two arrays of one shape, got {tuple(x.shape)} and {tuple(s.shape)}")
    return layer, x, s, rng


def positions_inputs(
    layer: Any, x: Array, rng: Generator | None = None, at: int | Array = 0
) -> tuple[Any, ...]:
    """Check the forward of FixedPositions or LearnedPositions: x is (B, T, d_model), `at` a row of the table, or rows.

    Returns `at` as rows, (B or 1, T, n). Raises InputError otherwise.
    """
    if x.ndim != 3:
        raise InputError(f"x: expected an array of shape (B, T, d_model), got {tuple(x.shape)}")
    B, T, _ = x.shape
    n_rows, width = (getattr(layer, "PE", None) or layer.P).data.shape
    if isinstance(at, int):
        if not 0 <= at <= n_rows - T:
            expected = f"positions 0 … {n_rows - 1} (max_len={n_rows})"
            raise InputError(f"at: expected {expected}, got {T} from position {at} on")
        at = array_module(x).arange(at, at + T)[None, :, None]
    else:
        check_ids("at", at)
        if at.ndim != 3 or at.shape[0] not in (1, B) or at.shape[1] != T:
            raise InputError(f"at: expected positions of shape ({B} or 1, {T}, n), got {tuple(at.shape)}")
        if not on_gpu(at):  # looking at them on a GPU would mean waiting
            check_range("at", at, n_rows, "positions")
    check_features("x", x, width * at.shape[2])
    return layer, x, rng, at


def check_features(name: str, x: Array, d_model: int) -> None:
    """Raise InputError unless the last axis of `x` is `d_model` long."""
    if tuple(x.shape[-1:]) != (d_model,):
        raise InputError(f"{name}: expected {d_model} features on the last axis, got shape {tuple(x.shape)}")


def attention_inputs(
    layer: Any, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
) -> tuple[Any, ...]:
    """Check an attention's forward: arrays (..., T, d) that belong together, and a mask. Raises InputError."""
    if not _door.passed:
        for name, x in (("Q", Q), ("K", K), ("V", V)):
            check_floats(name, x)
        check_rng("rng", rng)
    if not Q.dtype.kind == K.dtype.kind == V.dtype.kind:
        kinds = ", ".join(str(x.dtype) for x in (Q, K, V))
        raise InputError(f"Q, K, V: expected all real, or all complex, got {kinds}")
    q, k, v = Q.shape, K.shape, V.shape
    if min(len(q), len(k), len(v)) < 2 or not (
        q[:-2] == k[:-2] == v[:-2] and k[-2] == v[-2] and q[-1] == k[-1]
    ):
        shapes = ", ".join(str(tuple(shape)) for shape in (q, k, v))
        raise InputError(
            f"Q, K, V: expected (B, h, T_q, d_k), (B, h, T_k, d_k), (B, h, T_k, d_v), got {shapes}"
        )
    check_mask(mask, (*Q.shape[:-1], K.shape[-2]))
    return layer, Q, K, V, mask, rng


def blocks_inputs(
    layer: Any, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
) -> tuple[Any, ...]:
    """Check an attention in blocks: `attention_inputs` with four axes each. Raises InputError otherwise."""
    if getattr(Q, "ndim", 4) != 4:
        raise InputError(f"Q: expected an array of shape (B, h, T_q, d_k), got {describe(Q)}")
    return attention_inputs(layer, Q, K, V, mask, rng)


def placed_inputs(
    layer: Any, Q: Array, K: Array, V: Array, mask: Any, rng: Generator | None = None
) -> tuple[Any, ...]:
    """Check RotaryAttention.forward: a mask with positions that fit Q and K. Raises InputError otherwise."""
    if not hasattr(mask, "query_at"):
        raise InputError(
            f"mask: expected a PlacedMask, which has the positions of queries and keys, got {what(mask)}"
        )
    for name, x, at in (("Q", Q, mask.query_at), ("K", K, mask.key_at)):
        check_floats(name, x)
        check_ids(f"positions of {name}", at)
        B, T, n = at.shape if at.ndim == 3 else (0, 0, 1)
        if x.ndim != 4 or B not in (1, len(x)) or x.shape[2] != T or x.shape[3] % (2 * n):
            expected = f"{T} positions, as the mask has them, and features in pairs for each of {n} ends"
            raise InputError(f"{name}: expected {expected}, got shape {tuple(x.shape)}")
    if Q.dtype.kind != K.dtype.kind:
        raise InputError(f"Q, K: expected both real, or both complex, got {Q.dtype} and {K.dtype}")
    return layer, Q, K, V, mask, rng


def softmax_inputs(scores: Array, mask: Array | None = None) -> tuple[Array, Array | None]:
    """Check softmax: scores must be floats, and a mask must fit. Raises InputError otherwise."""
    check_floats("scores", scores)
    if not scores.shape:
        raise InputError(f"scores: expected an array with at least one axis, got the number {scores}")
    check_mask(mask, scores.shape)
    return scores, mask


def softmax_backward_inputs(dweights: Array, weights: Array) -> tuple[Array, Array]:
    """Check softmax_backward: two arrays of floats, of one shape. Raises InputError otherwise."""
    check_floats("dweights", dweights)
    check_floats("weights", weights)
    if dweights.shape != weights.shape:
        expected = f"the shape of weights, {tuple(weights.shape)}"
        raise InputError(f"dweights: expected {expected}, got {tuple(dweights.shape)}")
    return dweights, weights


def causal_mask_inputs(ids: Array) -> tuple[Array]:
    """Check causal_mask: ids are rows, (B, T). Raises InputError otherwise."""
    if not is_plain(ids) or ids.ndim != 2:
        raise InputError(f"ids: expected an array of ids, (B, T), got {what(ids)}")
    return (ids,)


def padding_mask_inputs(ids: Array, pad_id: int) -> tuple[Array, int]:
    """Check padding_mask: ids are rows, (B, T), and pad_id is an integer. Raises InputError otherwise."""
    return *causal_mask_inputs(ids), as_integer("pad_id", pad_id, -INT64, INT64, "a whole number")


def check_mask(mask: Array | None, scores_shape: tuple[int, ...]) -> None:
    """Raise InputError unless `mask` is None, or boolean and of a shape that leaves no doubt about its axes.

    It must have as many axes as the scores, (B, h, T_q, T_k), each 1 or full, or exactly their last two, (T_q, T_k), if
    these cannot be mistaken for (B, T_k), a row for each sentence.
    """
    if mask is None:
        return
    axes = "(B, h, T_q, T_k) = " if len(scores_shape) == 4 else ""
    expected = (
        f"expected booleans (True = may be attended to), each axis 1 or as in {axes}{tuple(scores_shape)}"
    )
    if not is_plain(mask) or mask.dtype.kind != "b":
        raise InputError(f"mask: {expected}, got {what(mask)}")
    shape = tuple(mask.shape)
    if len(shape) == len(scores_shape) and all(m in (1, s) for m, s in zip(shape, scores_shape, strict=True)):
        return
    hint = "write mask[None, None] for (T_q, T_k), mask[:, None, None] for a row of keys for each sentence"
    if shape != tuple(scores_shape[-2:]):
        raise InputError(f"mask: {expected}, got bool of shape {shape}; {hint}")
    if len(scores_shape) > 2 and shape[0] == scores_shape[0] > 1:
        raise InputError(
            f"mask: {expected}, got bool of shape {shape}, which could mean two things here; {hint}"
        )
