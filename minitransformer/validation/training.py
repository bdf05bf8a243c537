"""Checks of what a model, the loss and the optimizer are given."""

from __future__ import annotations

from typing import Any

from minitransformer.backend import (
    Array,
    Generator,
    array_module,
    castable,
    is_float,
    is_plain,
    on_gpu,
    to_host,
)
from minitransformer.errors import InputError, describe
from minitransformer.validation.layers import as_array, check_range, check_rng, what
from minitransformer.validation.settings import FLOAT32, INT64, as_integer, between


def model_inputs(
    model: Any, src_ids: Array, tgt_in: Array, rng: Generator | None = None, keep: str = "caches"
) -> tuple[Any, ...]:
    """Check the arguments of Transformer.forward; return them, the ids as arrays of its library. Raises InputError."""
    check_rng("rng", rng)
    tgt_in = ids_for(model.tgt_embedding.embedding.E, tgt_in, "tgt_in", model.config.max_len)
    src_ids = ids_for(model.src_embedding.embedding.E, src_ids, "src_ids", model.config.max_len)
    if len(tgt_in) != len(src_ids):
        raise InputError(f"src_ids and tgt_in: expected one batch, got {len(src_ids)} and {len(tgt_in)} rows")
    return model, src_ids, tgt_in, rng, keep


def one_stack_inputs(
    model: Any, ids: Array, segments: Array | None = None, rng: Generator | None = None, keep: str = "caches"
) -> tuple[Any, ...]:
    """Check the arguments of EncoderOnly.forward; return them, the ids as arrays of its library. Raises InputError."""
    check_rng("rng", rng)
    ids = ids_for(model.embedding.embedding.E, ids, "ids", model.config.max_len)
    if segments is not None:
        if model.embedding.segments is None:
            raise InputError("segments: expected None, since this model has none (n_segments=0)")
        segments = ids_for(model.embedding.segments.E, segments, "segments", model.config.max_len)
        if segments.shape != ids.shape:
            raise InputError(f"segments: expected one for each id, {ids.shape}, got {segments.shape}")
    return model, ids, segments, rng, keep


def decoder_only_inputs(
    model: Any, ids: Array, rng: Generator | None = None, keep: str = "caches"
) -> tuple[Any, ...]:
    """Check the arguments of DecoderOnly.forward; return them, the ids as an array of its library."""
    model, ids, _, rng, keep = one_stack_inputs(model, ids, None, rng, keep)
    return model, ids, rng, keep


def ids_for(E: Any, ids: Array, name: str, max_len: int) -> Array:
    """`ids`, rows of E, as an array of E's library. Raises InputError for others, and for more than `max_len`."""
    ids = as_array(ids, name)  # checked before they are moved, since on the CPU no check waits for a GPU
    if ids.ndim != 2 or ids.size == 0:
        raise InputError(f"{name}: expected ids of shape (B, T), B and T at least 1, got {ids.shape}")
    if ids.dtype.kind not in "iu":
        raise InputError(f"{name}: expected integer ids, got {ids.dtype}")
    if ids.shape[1] > max_len:
        raise InputError(f"{name}: expected at most max_len={max_len} tokens, got {ids.shape[1]}")
    check_range(name, ids, E.shape[0])
    return beside(ids, name, E.data)


def next_ids(E: Any, ids: Array, state: Any) -> Array:
    """The ids that decode_step is given, as (B, 1). Raises InputError unless there is one for each row of `state`."""
    ids = ids_for(E, as_array(ids, "ids")[..., None], "ids", 1)
    if len(ids) != state.n_rows:
        raise InputError(f"ids: expected one for each of the {state.n_rows} sentences, got {len(ids)}")
    if state.length == state.max_len:
        raise InputError(
            f"decoding: expected at most {state.max_len} tokens, got more; start with a larger max_len"
        )
    return ids


def gradient_of_logits(model: Any, dlogits: Array, cache: Any) -> tuple[Any, ...]:
    """Check the arguments of Transformer.backward; return them, dlogits in the model's dtype. Raises InputError."""
    check_kept(cache.decoder.layers)
    shape = (*cache.output.x.shape[:-1], model.config.tgt_vocab_size)
    return model, gradient_like("dlogits", dlogits, shape, model.output.E.data), cache


def gradient_of_answers(model: Any, dy: Array, cache: Any) -> tuple[Any, ...]:
    """Check the arguments of the backward of a model of one stack, as `gradient_of_logits` does."""
    check_kept(cache.stack.layers)
    return model, gradient_like("dy", dy, cache.shape, model.embedding.embedding.E.data), cache


def gradient_like(name: str, dy: Array, shape: tuple[int, ...], weights: Array) -> Array:
    """`dy` on the device and in the dtype of `weights`. Raises InputError unless it has the answers' shape."""
    if getattr(dy, "shape", None) != shape or not castable(dy, weights):
        raise InputError(f"{name}: expected numbers of shape {shape}, like the logits, got {describe(dy)}")
    return beside(dy, name, weights).astype(weights.dtype, copy=False)


def check_kept(kept_of_layers: list[Any]) -> None:
    """Raise InputError if forward kept nothing for backward: a None among `kept_of_layers`."""
    if None in kept_of_layers:
        raise InputError("backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'")


def loss_inputs(loss_fn: Any, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Any, ...]:
    """Check the arguments of LabelSmoothedCrossEntropy.forward; return them, the tokens counted. Raises InputError."""
    if not (is_plain(logits) and is_float(logits) and logits.shape):
        raise InputError(f"logits: expected floating-point numbers (B, T_tgt, V), got {what(logits)}")
    tgt_out, (*positions, V) = as_array(tgt_out, "tgt_out"), logits.shape
    if list(tgt_out.shape) != positions or tgt_out.dtype.kind not in "iu" or tgt_out.size == 0:
        raise InputError(
            f"tgt_out: expected integers of shape {tuple(positions)}, at least one, "
            f"got {tgt_out.dtype} of shape {tuple(tgt_out.shape)}"
        )
    check_range("tgt_out", tgt_out, V)
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
    """Check the arguments of clip_grad_norm. Raises InputError for a `max_norm` that cannot be a norm."""
    if max_norm is not None and not between(max_norm, *FLOAT32):
        raise InputError(
            f"max_norm: expected a number above 0 that float32 can hold, or None, got {describe(max_norm)}"
        )
    return model, max_norm


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
