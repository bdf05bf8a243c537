"""§3.3 ReLU, and the softmax of §3.2.1 and §3.4 with its derivative."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import Array, Generator, array_module, silent_overflow, sum_last
from minitransformer.module import Module


class ReLUCache(NamedTuple):
    y: Array  # (...,); y > 0 exactly where x > 0, so x itself is not needed


class ReLU(Module):
    """Rectified linear unit.

    forward   y = max(0, x)                  elementwise
    backward  dx = dy where x > 0, else 0    (at the kink x = 0 the derivative is taken to be 0)
    """

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, ReLUCache]:
        y = array_module(x).maximum(x, 0)
        return y, ReLUCache(y)

    def backward(self, dy: Array, cache: ReLUCache) -> Array:
        return dy * (cache.y > 0)


def softmax(scores: Array, mask: Array | None = None) -> Array:
    """exp(scores) / Σ exp(scores) over the last axis, among the entries where `mask` is True.

    An entry that may not be attended to scores -inf, so its weight is exactly 0. A row without any entry left gives
    zeros. Subtracting the row's maximum changes nothing in the quotient and keeps exp from overflowing. (Masks meet
    scores here, and in what stands in for this function: `softmax_without_maximum` in attention_in_blocks.py, and a
    kernel on a GPU.)
    """
    if kernels.usable(scores):
        return kernels.softmax(scores, mask)
    xp = array_module(scores)
    if mask is not None:
        scores = xp.where(mask, scores, -xp.inf)
    top = scores.max(-1, keepdims=True)
    if mask is not None:
        top = xp.where(xp.isfinite(top), top, 0)  # a fully masked row: exp(-inf - 0) = 0
    with silent_overflow():  # -1e38 - 3e38 is -inf in float32, and exp of it 0 as it should be
        weights = scores - top
    xp.exp(weights, out=weights)
    total = sum_last(weights)
    if mask is not None:
        total = xp.where(total == 0, 1, total)  # ... and 0 / 1 = 0
    weights /= total
    return weights


def softmax_backward(dweights: Array, weights: Array) -> Array:
    """dscores = weights · (dweights - Σ dweights · weights): the softmax's Jacobian diag(w) - w wᵀ, applied.

    A weight of 0 (masked) gives a gradient of 0.
    """
    if kernels.usable(weights, dweights):
        return kernels.softmax_backward(dweights, weights)
    dscores = dweights - sum_last(dweights * weights)
    dscores *= weights
    return dscores


def log_softmax(logits: Array) -> Array:
    """log(exp(logits) / Σ exp(logits)) over the last axis, without ever forming a quotient that can be 0."""
    xp = array_module(logits)
    with silent_overflow():  # -1e38 - 3e38 is -inf in float32: half of the lowest number stands for it
        shifted = xp.maximum(logits - logits.max(-1, keepdims=True), xp.finfo(logits.dtype).min / 2)
    return shifted - xp.log(sum_last(xp.exp(shifted)))
