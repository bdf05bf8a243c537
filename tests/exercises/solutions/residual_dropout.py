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

    def forward(self, x: Array, rng: Generator | None) -> tuple[Array, Array | None]:
        kept = None if rng is None else rng.random(x.shape) >= self.p
        return (x if kept is None else x * kept / (1 - self.p)), kept

    def backward(self, dy: Array, kept: Array | None) -> Array:
        return dy if kept is None else dy * kept / (1 - self.p)


class TwoSublayersCache(NamedTuple):
    linear_1: Any
    kept_1: Array | None
    linear_2: Any
    kept_2: Array | None


class TwoSublayers(Module):
    """Linear maps with residual connections around them."""

    def __init__(self, d_model: int, p: float, seed: int = 0) -> None:
        self.linear_1 = layers.Linear(d_model, d_model, bias=False, rng=seed)
        self.linear_2 = layers.Linear(d_model, d_model, bias=False, rng=seed + 1)
        self.dropout = Dropout(p)

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, TwoSublayersCache]:
        s, cache_1 = self.linear_1.forward(x)
        s, kept_1 = self.dropout.forward(s, rng)
        h = x + s
        s, cache_2 = self.linear_2.forward(h)
        s, kept_2 = self.dropout.forward(s, rng)
        return h + s, TwoSublayersCache(cache_1, kept_1, cache_2, kept_2)

    def backward(self, dy: Array, cache: TwoSublayersCache) -> Array:
        dh = dy + self.linear_2.backward(self.dropout.backward(dy, cache.kept_2), cache.linear_2)
        return dh + self.linear_1.backward(self.dropout.backward(dh, cache.kept_1), cache.linear_1)
