"""§5.4: dropout."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import backend, kernels
from minitransformer.backend import Array, Generator, on_gpu
from minitransformer.kernels import fused
from minitransformer.module import Module
from minitransformer.parts import in_rows
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs
from minitransformer.validation.settings import between, require


@fused(kernels.keep_mask, on_gpu)
def keep_mask(rng: Generator, p: float, x: Array) -> Array:
    """Booleans of the shape of `x`, False with probability `p`. (A GPU draws other ones from the same `rng`.)"""
    return backend.keep_mask(rng, p, x)


@fused(kernels.apply_mask)
@in_rows
def apply_mask(x: Array, kept: Array, p: float) -> Array:
    """kept · x / (1 - p)."""
    return kept * (x / (1 - p))


class DropoutCache(NamedTuple):
    kept: Array | None  # booleans, like x: False where x was dropped; None if nothing was


class Dropout(Module):
    """Sets a share `p` of the entries to zero while training and scales the others by 1 / (1 - p).

    forward   y = kept · x / (1 - p), kept drawn from `rng`;   y = x with rng=None (evaluation) or p = 0
    backward  dx = kept · dy / (1 - p), with the `kept` of that forward

    `p` is rounded to a multiple of 2^-16 below 1, since each decision uses 16 random bits.
    """

    def __init__(self, p: float) -> None:
        require(between(p, 0, 1), "dropout", "a probability 0 <= p < 1", p)
        self.p = min(round(p * 2**16), 2**16 - 1) / 2**16

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, DropoutCache]:
        if rng is None or self.p == 0:
            return x, DropoutCache(None)
        kept = keep_mask(rng, self.p, x)
        return apply_mask(x, kept, self.p), DropoutCache(kept)

    @gradient_of_shape(lambda layer, cache: None if cache.kept is None else cache.kept.shape)
    def backward(self, dy: Array, cache: DropoutCache) -> Array:
        if cache.kept is None:
            return dy
        return apply_mask(dy, cache.kept, self.p)
