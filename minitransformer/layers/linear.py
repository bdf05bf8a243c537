"""§3.2, §3.3: the linear map y = x W + b, the form of every projection in the paper."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    generator,
    sum_positions,
    xavier_uniform,
    zeros,
)
from minitransformer.module import Module, Parameter
from minitransformer.products import add_product, product
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs
from minitransformer.validation.settings import layer_sizes


def rows(x: Array) -> Array:
    """(..., d) -> (all positions, d), so that one matrix product serves all sentences."""
    return x.reshape(-1, x.shape[-1])


def linear(x: Array, W: Parameter, b: Parameter | None) -> Array:
    """y = x W + b on the last axis: (..., d_in) -> (..., d_out)."""
    y = product(rows(x), W.data)
    if b is not None:
        y += b.data
    return y.reshape(*x.shape[:-1], -1)


def linear_backward(dy: Array, x: Array, W: Parameter, b: Parameter | None) -> Array:
    """dW = xᵀ dy, db = sum of dy over all positions, dx = dy Wᵀ: adds dW and db into .grad, returns dx."""
    add_product(W.grad, rows(x).T, rows(dy))
    if b is not None:
        b.grad += sum_positions(dy)
    return product(rows(dy), W.data.T).reshape(x.shape)


class LinearCache(NamedTuple):
    x: Array  # (..., d_in)


class Linear(Module):
    """Linear map on the last axis.

    forward   y = x W + b                    x: (..., d_in), W: (d_in, d_out), b: (d_out,), y: (..., d_out)
    backward  dx = dy Wᵀ,   dW = xᵀ dy,   db = Σ dy        sums over all positions

    W starts Xavier-uniform, drawn from `rng` (a generator or a seed; None draws a seed), b at zero.
    """

    @layer_sizes
    def __init__(
        self, d_in: int, d_out: int, *, bias: bool = True, rng: Seed = None, dtype: DTypeLike = "float32"
    ) -> None:
        self.W = Parameter(xavier_uniform(generator(rng), d_in, d_out, dtype))
        self.b = Parameter(zeros((d_out,), dtype)) if bias else None

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, LinearCache]:
        return linear(x, self.W, self.b), LinearCache(x)

    @gradient_of_shape(lambda layer, cache: (*cache.x.shape[:-1], layer.W.shape[1]))
    def backward(self, dy: Array, cache: LinearCache) -> Array:
        return linear_backward(dy, cache.x, self.W, self.b)
