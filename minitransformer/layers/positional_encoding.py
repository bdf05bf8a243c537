"""§3.5: positions, as sinusoids (the paper's choice), learned (Table 3, row E), or simpler ones, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    arange,
    array_module,
    generator,
    is_float,
    normal,
    zeros,
)
from minitransformer.layers.embedding import add_rows
from minitransformer.module import Constant, Module, Parameter
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs, positions_inputs
from minitransformer.validation.settings import binary_sizes, layer_sizes, require, sinusoid_sizes


def no_positions(max_len: int, d_model: int) -> Array:
    """PE = 0, so the model is not told where a token is."""
    return zeros((max_len, d_model), "float64")


def integers(max_len: int, d_model: int) -> Array:
    """PE[pos, i] = pos: (max_len, d_model) in float64. Grows without bound."""
    return no_positions(max_len, d_model) + arange(max_len)[:, None]


def fractions(length: int, d_model: int) -> Array:
    """PE[pos, i] = pos / length: (length, d_model) in float64. Bounded, but its meaning depends on the length."""
    return integers(length, d_model) / length


@checked(binary_sizes)
def binary(max_len: int, d_model: int) -> Array:
    """PE[pos, i] = bit i of pos, the lowest first: (max_len, d_model) in float64. Bounded, but not smooth.

    Raises ConfigError if d_model bits cannot tell max_len positions apart.
    """
    PE = no_positions(max_len, d_model)
    for i in range((max_len - 1).bit_length()):
        PE[:, i] = arange(max_len) // 2**i % 2
    return PE


@checked(sinusoid_sizes)
def sinusoids(max_len: int, d_model: int) -> Array:
    """PE: (max_len, d_model) in float64. PE[pos, 2i] = sin(pos / 10000^(2i/d_model)), PE[pos, 2i+1] = cos(same).

    Raises ConfigError for an odd d_model.
    """
    angle = arange(max_len)[:, None] / 10000 ** (2 * arange(d_model // 2) / d_model)
    xp = array_module(angle)
    PE = zeros((max_len, d_model), "float64")
    PE[:, 0::2] = xp.sin(angle)
    PE[:, 1::2] = xp.cos(angle)
    return PE


def rows_at(table: Array, at: Array) -> Array:
    """The rows table[at[:, :, 0]] … table[at[:, :, n - 1]] side by side; at: (B, T, n), the positions of tokens."""
    return table[at].reshape(*at.shape[:2], -1)


class FixedPositions(Module):
    """Adds to the embedding at position pos the row PE[pos] of a table that is not learned.

    forward   y = x + PE[at]                          x, y: (B, T, d_model)
    backward  dx = dy                                 nothing is learned here

    `at` is the position of the first token, or an array with the n positions of each token (see layers/counting.py),
    each of which serves a share of the features: (B, T, n), or (1, T, n) if all sentences have the same positions.
    """

    def __init__(self, PE: Array, dtype: DTypeLike = "float32") -> None:
        require(is_float(PE) and PE.ndim == 2, "PE", "an array of numbers (max_len, d_model)", PE)
        self.PE = Constant(PE, dtype)

    @layer_inputs
    @checked(positions_inputs)
    def forward(self, x: Array, rng: Generator | None = None, at: int | Array = 0) -> tuple[Array, None]:
        return x + rows_at(self.PE.data, at), None

    @gradient_of_shape(lambda layer, cache: (None, None, None))
    def backward(self, dy: Array, cache: None) -> Array:
        return dy


class SinusoidalPositions(FixedPositions):
    """FixedPositions with the paper's table, `sinusoids`."""

    @layer_sizes
    def __init__(self, max_len: int, d_model: int, dtype: DTypeLike = "float32") -> None:
        super().__init__(sinusoids(max_len, d_model), dtype)


class LearnedPositionsCache(NamedTuple):
    at: Array  # (B, T, n), or (1, T, n)
    shape: tuple[int, ...]  # of y


class LearnedPositions(Module):
    """Adds a learned row P[pos] to the embedding at position pos.

    forward   y = x + P[at]           x, y: (B, T, d_model), P: (max_len, d_model), at: as in FixedPositions
    backward  dx = dy,   dP[pos] += Σ dy over the tokens at position pos
    """

    @layer_sizes
    def __init__(self, max_len: int, d_model: int, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        self.P = Parameter(normal(generator(rng), (max_len, d_model), d_model**-0.5, dtype))

    @layer_inputs
    @checked(positions_inputs)
    def forward(
        self, x: Array, rng: Generator | None = None, at: int | Array = 0
    ) -> tuple[Array, LearnedPositionsCache]:
        return x + rows_at(self.P.data, at), LearnedPositionsCache(at, x.shape)

    @gradient_of_shape(lambda layer, cache: cache.shape)
    def backward(self, dy: Array, cache: LearnedPositionsCache) -> Array:
        of_each = dy.sum(0, keepdims=True) if len(cache.at) == 1 else dy
        add_rows(self.P.grad, cache.at, of_each.reshape(-1, self.P.shape[1]))
        return dy


# by their names in TransformerConfig.positions ("learned" is LearnedPositions). "fractions" are of max_len, because
# the length of a target is not known while it is being decoded.
TABLES: dict[str, Callable[[int, int], Array]] = {
    "sinusoidal": sinusoids,
    "integers": integers,
    "fractions": fractions,
    "binary": binary,
    "none": no_positions,
}
