"""Positions of tokens, counted from the start of a sentence, as in §3.5, from its end, or from both.

The encoder sees the whole source, so it can be told how far each token is from the end as well as from the start. A
decoder that writes the answer token by token knows the start of the target alone.
"""

from __future__ import annotations

from minitransformer.backend import Array, array_module


def from_start(ids: Array, pad_id: int, start: Array | int = 0) -> Array:
    """start + t for the t-th token of each sentence, padding or not: (B, T) -> (B, T)."""
    xp = array_module(ids)
    return xp.broadcast_to(start + xp.arange(ids.shape[1]), ids.shape)


def from_end(ids: Array, pad_id: int, start: Array | int = 0) -> Array:
    """start + n - 1 - t for the t-th of n tokens: (B, T) -> (B, T). The last token is at `start`, as padding is."""
    xp = array_module(ids)
    n = (ids != pad_id).sum(1, keepdims=True)
    return start + xp.maximum(n - 1 - xp.arange(ids.shape[1]), 0)


def from_both_ends(ids: Array, pad_id: int, start: Array | int = 0) -> Array:
    """Both of these, side by side: (B, T) -> (B, T, 2)."""
    return array_module(ids).stack([from_start(ids, pad_id, start), from_end(ids, pad_id, start)], -1)


# by their names in TransformerConfig.count_source_from
COUNTS = {"start": from_start, "end": from_end, "both": from_both_ends}
