"""Dropout (§5.4): zeros at random in training, nothing at evaluation.

What it should do:

    training     (rng given)  each number of x becomes 0 with probability p, else it is multiplied by 1 / (1 - p)
    evaluation   (rng=None)   y = x
    backward                  the derivative of the forward that returned the cache

What was noticed: the activations of a model are smaller at evaluation than in training, on average,
and the more so the larger p is. Its validation loss is worse than it should be. With p = 0 all is
well.
"""

from typing import NamedTuple

from minitransformer.backend import Array, Generator
from minitransformer.module import Module


class DropoutCache(NamedTuple):
    kept: Array | None  # like x, False where a number was dropped; None at evaluation


class Dropout(Module):
    """Drops numbers with probability p."""

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, DropoutCache]:
        if rng is None:
            return x, DropoutCache(None)
        kept = rng.random(x.shape) >= self.p
        return x * kept / (1 - self.p), DropoutCache(kept)

    def backward(self, dy: Array, cache: DropoutCache) -> Array:
        if cache.kept is None:
            return dy
        return dy * cache.kept / (1 - self.p)
