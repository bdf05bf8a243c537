"""Two sub-layers, linear maps here, with residual connections and dropout (§5.4).

What it should do, where each of the two dropouts draws zeros of its own:

    h = x + Dropout(x W_1)
    y = h + Dropout(h W_2)                    x, h, y: (..., d_model); no dropout with rng=None

What was noticed: without dropout its gradients equal those of the reference, digit for digit. With
dropout they do not, although the reference drops the same numbers and gives the same y.
"""

from typing import Any, NamedTuple

from minitransformer import layers
from minitransformer.backend import Array, Generator
from minitransformer.module import Module


class Dropout:
    """Sets numbers to zero with probability p and multiplies the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Array, rng: Generator | None) -> Array:
        self.kept = None if rng is None else rng.random(x.shape) >= self.p
        return x if self.kept is None else x * self.kept / (1 - self.p)

    def backward(self, dy: Array) -> Array:
        return dy if self.kept is None else dy * self.kept / (1 - self.p)


class TwoSublayersCache(NamedTuple):
    linear_1: Any
    linear_2: Any


class TwoSublayers(Module):
    """Linear maps with residual connections around them."""

    def __init__(self, d_model: int, p: float, seed: int = 0) -> None:
        self.linear_1 = layers.Linear(d_model, d_model, bias=False, rng=seed)
        self.linear_2 = layers.Linear(d_model, d_model, bias=False, rng=seed + 1)
        self.dropout = Dropout(p)

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, TwoSublayersCache]:
        s, cache_1 = self.linear_1.forward(x)
        h = x + self.dropout.forward(s, rng)
        s, cache_2 = self.linear_2.forward(h)
        y = h + self.dropout.forward(s, rng)
        return y, TwoSublayersCache(cache_1, cache_2)

    def backward(self, dy: Array, cache: TwoSublayersCache) -> Array:
        dh = dy + self.linear_2.backward(self.dropout.backward(dy), cache.linear_2)
        return dh + self.linear_1.backward(self.dropout.backward(dh), cache.linear_1)
