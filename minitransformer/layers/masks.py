"""§3.2.3: who may attend to whom.

A mask is a boolean array, True = may be attended to, that broadcasts to (B, h, T_q, T_k).
It becomes scores of -inf in the softmax: `softmax` in layers/activations.py, `softmax_without_maximum` in
layers/attention_in_blocks.py, or a kernel on a GPU.
"""

from __future__ import annotations

from minitransformer.backend import Array, array_module, windows
from minitransformer.errors import InputError


def padding_mask(ids: Array, pad_id: int) -> Array:
    """True at the keys that are words, False at padding: (B, T) -> (B, 1, 1, T)."""
    return (ids != pad_id)[:, None, None, :]


def causal_mask(ids: Array) -> Array:
    """Position i may attend to the positions j <= i: (B, T) -> (1, 1, T, T), lower triangle True.

    `ids` gives the length and the array library. A view: its rows are the same T times True, T - 1 times False, each
    row beginning one place earlier.
    """
    T = ids.shape[1]
    seen = array_module(ids).arange(2 * T - 1) < T
    return windows(seen, T)[::-1][None, None]


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
