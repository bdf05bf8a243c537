"""§5.4: dropout."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer.backend import Array, Generator, dropout_mask
from minitransformer.errors import ConfigError
from minitransformer.module import Module


class DropoutCache(NamedTuple):
    mask: Array | None  # like x, entries 0 or 1 / (1 - p); None if nothing was dropped


class Dropout(Module):
    """Sets a share `p` of the entries to zero while training and scales the others by 1 / (1 - p).

    forward   y = mask · x, the mask drawn from `rng`;   y = x with rng=None (evaluation) or p = 0
    backward  dx = mask · dy, with the mask of that forward
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:
            raise ConfigError(f"dropout: expected a probability 0 <= p < 1, got {p}")
        self.p = p

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, DropoutCache]:
        if rng is None or self.p == 0:
            return x, DropoutCache(None)
        mask = dropout_mask(rng, self.p, x)
        return x * mask, DropoutCache(mask)

    def backward(self, dy: Array, cache: DropoutCache) -> Array:
        return dy if cache.mask is None else dy * cache.mask
