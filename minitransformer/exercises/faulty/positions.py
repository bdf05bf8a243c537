"""Sinusoidal positions (§3.5): a vector for each position, added to the embedding.

What it should do:

    PE[pos, 2i]   = sin(pos / 10000^(2i/d_model))
    PE[pos, 2i+1] = cos(pos / 10000^(2i/d_model))
    y = x + PE[0 : T]                                  x, y: (B, T, d_model), d_model even

What was noticed: training goes well, and the loss is as good as it should be. But weights that were
trained with another implementation of the paper give nonsense here, although every shape fits.
"""

from minitransformer.backend import Array, Generator, arange, array_module
from minitransformer.module import Module


class SinusoidalPositions(Module):
    """Adds PE to the embeddings; nothing is learned here."""

    def __init__(self, max_len: int, d_model: int) -> None:
        frequency = 10000 ** (-2 * arange(d_model // 2) / d_model)
        angle = arange(max_len)[:, None] * frequency
        xp = array_module(angle)
        self.PE = xp.concatenate([xp.sin(angle), xp.cos(angle)], axis=1)

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, None]:
        T = x.shape[1]
        return x + self.PE[:T].astype(x.dtype), None

    def backward(self, dy: Array, cache: None) -> Array:
        return dy
