"""§3.3 ReLU, and the softmax of §3.2.1 and §3.4 with its derivative."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import Array, Generator, array_module, silent_overflow, sum_last
from minitransformer.kernels import fused
from minitransformer.layers.masks import masked_scores
from minitransformer.module import Module
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs, softmax_backward_inputs, softmax_inputs


class ReLUCache(NamedTuple):
    y: Array  # (...,); y > 0 exactly where x > 0, so x itself is not needed


class ReLU(Module):
    """Rectified linear unit.

    forward   y = max(0, x)                  elementwise
    backward  dx = dy where x > 0, else 0    (at the kink x = 0 the derivative is taken to be 0)
    """

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, ReLUCache]:
        y = array_module(x).maximum(x, 0)
        return y, ReLUCache(y)

    @gradient_of_shape(lambda layer, cache: cache.y.shape)
    def backward(self, dy: Array, cache: ReLUCache) -> Array:
        return dy * (cache.y > 0)


@checked(softmax_inputs)
@fused(kernels.softmax)
@silent_overflow()
def softmax(scores: Array, mask: Array | None = None) -> Array:
    """exp(scores) / Σ exp(scores) over the last axis, among the entries where `mask` is True.

    An entry that may not be attended to is given the score -inf, so its weight is exactly 0, and a row without any
    other entry gives zeros. Subtracting the row's maximum is for numerical stability: it leaves the quotient as it
    is, and keeps exp from overflowing.
    """
    xp = array_module(scores)
    scores = masked_scores(scores, mask)
    # finite even for a row of -inf, where -inf - (-inf) would be NaN
    top = xp.maximum(scores.max(-1, keepdims=True), xp.finfo(scores.dtype).min)
    exps = xp.exp(scores - top)
    total = sum_last(exps)
    return exps / xp.where(total == 0, 1, total)


@checked(softmax_backward_inputs)
@fused(kernels.softmax_backward)
def softmax_backward(dweights: Array, weights: Array) -> Array:
    """dscores = weights · (dweights - Σ dweights · weights): the softmax's Jacobian diag(w) - w wᵀ, applied.

    A weight of 0 (masked) gives a gradient of 0.
    """
    return weights * (dweights - sum_last(dweights * weights))


@layer_inputs
@silent_overflow()
def log_softmax(logits: Array) -> Array:
    """log(exp(logits) / Σ exp(logits)) over the last axis, without ever forming a quotient that can be 0."""
    xp = array_module(logits)
    shifted = shifted_logits(logits)
    return shifted - xp.log(sum_last(xp.exp(shifted)))


def shifted_logits(logits: Array) -> Array:
    """logits - max(logits) over the last axis: the same softmax, from numbers whose exp cannot overflow.

    In float32, -1e38 - 3e38 is -inf, which is replaced by half of the lowest number. The exp of that is 0 as well, it
    stays finite when a logarithm is subtracted from it, and multiplied by 0 it does not give NaN.
    """
    xp = array_module(logits)
    z = logits - logits.max(-1, keepdims=True)
    return xp.maximum(z, xp.finfo(z.dtype).min / 2, out=z)
