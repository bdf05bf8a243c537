"""The checks of what layers, the loss and the optimizer are given, and the line that puts a check above a formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from minitransformer.backend import Array, Generator, array_module, castable, extremes, on_gpu, to_host
from minitransformer.config import FLOAT32, INT64, as_integer, between
from minitransformer.errors import InputError, describe

F = TypeVar("F", bound=Callable[..., Any])


def checked(check: Callable[..., tuple[Any, ...]]) -> Callable[[F], F]:
    """Above a formula: `check` takes its arguments first and returns them as the formula wants them, or raises.

    Both have the same arguments, with the same default values.
    """

    def attach(formula: F) -> F:
        @wraps(formula)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            return formula(*check(*arguments, **named))

        return cast(F, wrapper)

    return attach


def model_inputs(
    model: Any, src_ids: Array, tgt_in: Array, rng: Generator | None = None, keep: str = "caches"
) -> tuple[Any, ...]:
    """What Transformer.forward accepts, the ids as arrays of its library. Raises InputError for anything else."""
    if not isinstance(rng, Generator | None):
        raise InputError(f"rng: expected a random generator, or None for evaluation, got {describe(rng)}")
    tgt_in = ids_for(model, tgt_in, "tgt_in", model.config.tgt_vocab_size)
    src_ids = ids_for(model, src_ids, "src_ids", model.config.src_vocab_size)
    if len(tgt_in) != len(src_ids):
        raise InputError(f"src_ids and tgt_in: expected one batch, got {len(src_ids)} and {len(tgt_in)} rows")
    return model, src_ids, tgt_in, rng, keep


def ids_for(model: Any, ids: Array, name: str, vocab_size: int) -> Array:
    """`ids` as an array of the model's library. Raises InputError unless the model can read them."""
    ids = as_array(ids, name)  # checked where it is: on the CPU, that does not wait for a GPU
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
    """What Transformer.backward accepts, in the model's dtype. Raises InputError for anything else."""
    check_kept(cache.decoder.layers)
    E, shape = model.output.E, (*cache.output.x.shape[:-1], model.config.tgt_vocab_size)
    if getattr(dlogits, "shape", None) != shape or not castable(dlogits, E.data):
        raise InputError(
            f"dlogits: expected numbers of shape {shape}, like the logits, got {describe(dlogits)}"
        )
    return model, beside(dlogits, "dlogits", E.data).astype(E.data.dtype, copy=False), cache


def attention_inputs(
    layer: Any, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
) -> tuple[Any, ...]:
    """Looks at the mask of an attention. Raises InputError if it is not boolean or does not fit."""
    if mask is not None:
        check_mask(mask, (*Q.shape[:-1], K.shape[-2]))
    return layer, Q, K, V, mask, rng


def check_mask(mask: Array, scores_shape: tuple[int, ...]) -> None:
    """Raise InputError unless `mask` is boolean and broadcasts to `scores_shape` = (B, h, T_q, T_k)."""
    if not hasattr(mask, "shape"):
        raise InputError(f"mask: expected an array of booleans, got {type(mask).__name__}")
    shape = tuple(mask.shape)
    fits = len(shape) <= 4 and all(m in (1, s) for m, s in zip(shape[::-1], scores_shape[::-1], strict=False))
    if mask.dtype != bool or not fits:
        raise InputError(
            f"mask: expected booleans (True = may be attended to) that broadcast to (B, h, T_q, T_k) = "
            f"{scores_shape}, got {mask.dtype} of shape {shape}"
        )


def loss_inputs(loss_fn: Any, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Any, ...]:
    """What LabelSmoothedCrossEntropy.forward accepts, with the tokens counted. Raises InputError for anything else."""
    if not getattr(logits, "shape", ()) or logits.dtype.kind not in "fc":
        raise InputError(f"logits: expected floating-point numbers (B, T_tgt, V), got {describe(logits)}")
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
    """What Adam.step accepts. Raises InputError unless `lr` is a number, 0 or more."""
    if not between(lr, 0, FLOAT32[1]):
        raise InputError(f"lr: expected a number, 0 or more, got {describe(lr)}")
    return optimizer, float(lr)


def largest_norm(model: Any, max_norm: float | None) -> tuple[Any, ...]:
    """What clip_grad_norm accepts. Raises InputError unless `max_norm` is None or a number above 0."""
    if max_norm is not None and not between(max_norm, *FLOAT32):
        raise InputError(f"max_norm: expected a number above 0, or None, got {describe(max_norm)}")
    return model, max_norm


def check_kept(kept_of_layers: list[Any]) -> None:
    """Raise InputError if there is nothing to go backward from."""
    if None in kept_of_layers:
        raise InputError("backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'")


def as_array(ids: Array, name: str) -> Array:
    """`ids`, which may be lists, as an array of its own library. Raises InputError for ragged lists."""
    try:
        return array_module(ids).asarray(ids)
    except (ValueError, TypeError):
        raise InputError(f"{name}: expected rows of one length; pad the shorter ones") from None


def beside(x: Array, name: str, like: Array) -> Array:
    """`x` in the memory where `like` is: from the CPU it is sent to the GPU, but not the other way.

    Raises InputError for an array on a GPU and a model on the CPU: another model was meant.
    """
    if on_gpu(x) and not on_gpu(like):
        raise InputError(
            f"{name}: expected an array on the device 'cpu', where the model is, got one on 'cuda'; "
            f"move one of them: model.to('cuda'), or cupy.asnumpy({name})"
        )
    return array_module(like).asarray(x)
