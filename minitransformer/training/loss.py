"""§5.4: cross-entropy with label smoothing."""

from __future__ import annotations

import math
from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import (
    Array,
    array_module,
    extremes,
    on_gpu,
    silent_overflow,
    sum_last,
    to_host,
)
from minitransformer.config import INT64, as_array, as_integer, beside, between, require
from minitransformer.errors import InputError, describe
from minitransformer.layers.activations import log_softmax

CHUNK = 1 << 18  # logits worked on at a time


class LossCache(NamedTuple):
    dlogits: Array  # (B, T_tgt, V)


class LabelSmoothedCrossEntropy:
    """Mean over the non-pad target tokens, in nats a token.

    The target of a token is not 1 at the right word but q = (1 - eps_ls) · onehot + eps_ls / V.

    forward   loss = - Σ q · log softmax(logits) / n_tokens        n_tokens: target tokens that are not padding
    backward  dlogits = (softmax(logits) - q) / n_tokens           0 at padding

    logits: (B, T_tgt, V), tgt_out: (B, T_tgt) integers. Both are computed by forward, by the same few lines.
    `n_tokens` stands in for the batch's own count where the batch is a part of a larger one, whose losses and
    gradients are then sums over the parts.
    Raises InputError if shapes do not fit, a target is outside the vocabulary, or all of it is padding.
    """

    def __init__(self, eps_ls: float = 0.1, pad_id: int = 0) -> None:
        require(between(eps_ls, 0, 1), "eps_ls", "a number 0 <= eps_ls < 1", eps_ls)
        self.eps_ls = float(eps_ls)
        self.pad_id = as_integer("pad_id", pad_id, -INT64, INT64, "an integer")

    def forward(self, logits: Array, tgt_out: Array, n_tokens: int | None = None) -> tuple[Array, LossCache]:
        check_logits(logits)
        tgt_out = as_array(tgt_out, "tgt_out")
        check_targets(tgt_out, tuple(logits.shape))
        if n_tokens is None:
            n_tokens = int(to_host((tgt_out != self.pad_id).sum()))
            if n_tokens == 0:
                raise InputError("tgt_out: expected at least one token that is not padding")
        n_tokens = as_integer("n_tokens", n_tokens, 1, INT64, "1 or more")
        tgt_out = beside(tgt_out, "tgt_out", logits)
        weight = (tgt_out != self.pad_id)[..., None].astype(logits.dtype) / n_tokens
        if kernels.usable(logits):
            loss, dlogits = kernels.cross_entropy(logits, tgt_out, weight, self.eps_ls)
            return loss, LossCache(dlogits)
        loss, dlogits = in_one_pass(logits, tgt_out, weight, self.eps_ls)
        if not on_gpu(loss) and not math.isfinite(loss.real):  # there, only complex steps come so far
            loss, dlogits = by_the_formula(logits, tgt_out, weight, self.eps_ls)
        return loss, LossCache(dlogits)

    def backward(self, cache: LossCache) -> Array:
        return cache.dlogits


def by_the_formula(logits: Array, tgt_out: Array, weight: Array, eps_ls: float) -> tuple[Array, Array]:
    """Loss and dlogits as the class states them: q and log softmax written out. weight: (B, T_tgt, 1)."""
    xp = array_module(logits)
    V = logits.shape[-1]
    log_p = log_softmax(logits)
    q = xp.full_like(log_p, eps_ls / V)
    xp.put_along_axis(q, tgt_out[..., None], 1 - eps_ls + eps_ls / V, -1)
    return -(q * log_p * weight).sum(), (xp.exp(log_p) - q) * weight


def in_one_pass(logits: Array, tgt_out: Array, weight: Array, eps_ls: float) -> tuple[Array, Array]:
    """The same, to rounding, reading each logit from memory once; the loss is inf or NaN where it would overflow.

    With z a position's logits less their maximum and total = Σ exp(z), log softmax is z - log total, and since
    Σ q = 1 the loss needs two numbers of z only, that of the right word and the sum:

        loss = log total - (1 - eps_ls) · z[right word] - eps_ls / V · Σ z
        dlogits = exp(z) / total - eps_ls / V,   less 1 - eps_ls at the right word          all times weight

    A few positions at a time, so that z stays in the processor's cache from one operation to the next.
    """
    xp = array_module(logits)
    V = logits.shape[-1]
    dlogits = xp.empty_like(logits, order="C")
    flat_logits, flat_dlogits, weight = logits.reshape(-1, V), dlogits.reshape(-1, V), weight.reshape(-1, 1)
    right_word = tgt_out.reshape(-1)
    loss = 0
    step = max(CHUNK // V, 1)
    for start in range(0, len(flat_logits), step):
        part = slice(start, start + step)
        words, w = (xp.arange(len(right_word[part])), right_word[part]), weight[part]
        top = flat_logits[part].max(-1, keepdims=True)
        with silent_overflow():
            z = xp.subtract(flat_logits[part], top, out=flat_dlogits[part])
            losses = -(1 - eps_ls) * z[words][:, None] - eps_ls / V * sum_last(z)
            exps = xp.exp(z, out=z)
            total = sum_last(exps)
            loss = loss + ((losses + xp.log(total)) * w).sum()
        exps *= w / total
        exps -= eps_ls / V * w
        exps[words] -= (1 - eps_ls) * w[:, 0]
    return loss, dlogits


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
    low, high = extremes(tgt_out)
    if low < 0 or high >= V:
        raise InputError(f"tgt_out: expected ids 0 … {V - 1}, got {low if low < 0 else high}")
