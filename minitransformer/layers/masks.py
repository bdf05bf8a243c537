"""§3.2.3: who may attend to whom.

A mask is a boolean array that broadcasts to (B, h, T_q, T_k). True means that a key may be attended to.
`masked_scores` sets the scores where it is False to -inf; `softmax_without_maximum` in attention_in_blocks.py does
the same, and the CUDA kernel for softmax skips those scores.
"""

from __future__ import annotations

from minitransformer.backend import Array, array_module, windows
from minitransformer.validation import checked
from minitransformer.validation.layers import causal_mask_inputs, padding_mask_inputs


@checked(padding_mask_inputs)
def padding_mask(ids: Array, pad_id: int) -> Array:
    """True at the keys that are words, False at padding: (B, T) -> (B, 1, 1, T)."""
    return (ids != pad_id)[:, None, None, :]


@checked(causal_mask_inputs)
def causal_mask(ids: Array) -> Array:
    """Position i may attend to the positions j <= i: (B, T) -> (1, 1, T, T), lower triangle True.

    `ids` gives the length and the array library. The mask is j <= i, in memory that grows with T and not with T²: a
    view of one array, T times True and then T - 1 times False, in which each row starts one place earlier than the row
    above.
    """
    T = ids.shape[1]
    seen = array_module(ids).arange(2 * T - 1) < T
    return windows(seen, T)[::-1][None, None]


def masked_scores(scores: Array, mask: Array | None) -> Array:
    """The scores where the mask is True, -inf elsewhere: a softmax gives these a weight of exactly 0."""
    return scores if mask is None else array_module(scores).where(mask, scores, -array_module(scores).inf)
