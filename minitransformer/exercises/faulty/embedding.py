"""Token embedding (§3.4): one row of a matrix for each token.

What it should do:

    forward   y = E[ids] · sqrt(d_model)       ids: (B, T) integers, E: (V, d_model), y: (B, T, d_model)
    backward  the gradient of E; the ids have none

What was noticed: training works, but it is slower than with other implementations. A word that
occurs twenty times in a batch gets no larger a gradient than a word that occurs once.
"""

import math
from typing import NamedTuple

from minitransformer.backend import Array, Generator, generator, normal
from minitransformer.module import Module, Parameter


class EmbeddingCache(NamedTuple):
    ids: Array  # (B, T)


class Embedding(Module):
    """Looks up rows of E."""

    def __init__(self, vocab_size: int, d_model: int, seed: int = 0) -> None:
        self.E = Parameter(normal(generator(seed), (vocab_size, d_model), d_model**-0.5, "float32"))
        self.scale = math.sqrt(d_model)

    def forward(self, ids: Array, rng: Generator | None = None) -> tuple[Array, EmbeddingCache]:
        return self.E.data[ids] * self.scale, EmbeddingCache(ids)

    def backward(self, dy: Array, cache: EmbeddingCache) -> None:
        self.E.grad[cache.ids] += dy * self.scale
