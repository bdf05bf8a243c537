"""§5.4: cross-entropy with label smoothing."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer.backend import Array, array_module
from minitransformer.config import INT64, as_array, as_integer, between, require
from minitransformer.errors import InputError, describe
from minitransformer.layers.activations import log_softmax


class LossCache(NamedTuple):
    dlogits: Array  # (B, T_tgt, V)


class LabelSmoothedCrossEntropy:
    """Mean over the non-pad target tokens, in nats a token.

    The target of a token is not 1 at the right word but q = (1 - eps_ls) · onehot + eps_ls / V.

    forward   loss = - Σ q · log softmax(logits) / n_tokens        n_tokens: target tokens that are not padding
    backward  dlogits = (softmax(logits) - q) / n_tokens           0 at padding

    logits: (B, T_tgt, V), tgt_out: (B, T_tgt) integers. Both come from the same few lines of forward.
    `n_tokens` stands in for the batch's own count where the batch is a part of a larger one, whose losses and
    gradients are then sums over the parts.
    Raises InputError if shapes do not fit, a target is outside the vocabulary, or all of it is padding.
    """

    def __init__(self, eps_ls: float = 0.1, pad_id: int = 0) -> None:
        require(between(eps_ls, 0, 1), "eps_ls", "a number 0 <= eps_ls < 1", eps_ls)
        self.eps_ls = eps_ls
        self.pad_id = as_integer("pad_id", pad_id, -INT64, INT64, "an integer")

    def forward(self, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Array, LossCache]:
        check_logits(logits)
        xp = array_module(logits)
        V = logits.shape[-1]
        tgt_out = as_array(tgt_out, "tgt_out", logits)
        check_targets(tgt_out, tuple(logits.shape))
        is_word = tgt_out != self.pad_id
        if n_tokens is None:
            n_tokens = int(is_word.sum())
            if n_tokens == 0:
                raise InputError("tgt_out: expected at least one token that is not padding")
        n_tokens = as_integer("n_tokens", n_tokens, 1, INT64, "1 or more")
        weight = is_word[..., None].astype(logits.dtype) / n_tokens
        log_p = log_softmax(logits)
        q = xp.full_like(log_p, self.eps_ls / V)
        xp.put_along_axis(q, tgt_out[..., None], 1 - self.eps_ls + self.eps_ls / V, -1)
        loss = -(q * log_p * weight).sum()
        dlogits = (xp.exp(log_p) - q) * weight
        return loss, LossCache(dlogits)

    def backward(self, cache: LossCache) -> Array:
        return cache.dlogits


def check_logits(logits: Array) -> None:
    """Raise InputError unless `logits` is an array of floating-point numbers with an axis for the vocabulary."""
    if not getattr(logits, "shape", ()) or logits.dtype.kind not in "fc":
        raise InputError(f"logits: expected floating-point numbers (B, T_tgt, V), got {describe(logits)}")


def check_targets(tgt_out: Array, logits_shape: tuple[int, ...]) -> None:
    """Raise InputError unless `tgt_out` holds an id of the vocabulary for each of the logits' positions."""
    *positions, V = logits_shape
    if list(tgt_out.shape) != positions or tgt_out.dtype.kind not in "iu" or tgt_out.size == 0:
        raise InputError(
            f"tgt_out: expected integers of shape {tuple(positions)}, at least one, "
            f"got {tgt_out.dtype} of shape {tuple(tgt_out.shape)}"
        )
    low, high = int(tgt_out.min()), int(tgt_out.max())
    if low < 0 or high >= V:
        raise InputError(f"tgt_out: expected ids 0 … {V - 1}, got {low if low < 0 else high}")
