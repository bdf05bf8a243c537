"""Small layers for the gradient checker, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import minitransformer as mt

METHODS = ("complex", "central")
SEEDS = st.integers(0, 2**32 - 1)
both_methods = pytest.mark.parametrize("method", METHODS)


class Layer:
    """A layer that is no Module: y = function(x), dx = dy · derivative(x)."""

    def __init__(self, function: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> None:
        self.function, self.derivative = function, derivative

    def forward(self, x):
        return self.function(x), x

    def backward(self, dy, cache):
        return dy * self.derivative(cache)


class Affine:
    """y = x W + b, by somebody who does not know Module. `wrong` sabotages the gradients, by name."""

    def __init__(self, d_in: int = 3, d_out: int = 5, **wrong: Callable[[Any], Any]) -> None:
        rng = np.random.default_rng(0)
        self.W, self.b = mt.Parameter(rng.normal(size=(d_in, d_out))), mt.Parameter(np.zeros(d_out))
        self.wrong = wrong

    def forward(self, x):
        return x @ self.W.data + self.b.data, x

    def backward(self, dy, x):
        gradients = {"W": np.einsum("btj,btk->jk", x, dy), "b": dy.sum((0, 1)), "x": dy @ self.W.data.T}
        found = {name: self.wrong.get(name, np.asarray)(g) for name, g in gradients.items()}
        self.W.grad += found["W"]
        self.b.grad += found["b"]
        return found["x"]


class Many:
    """y = 2 x, of many inputs; backward returns `n` gradients."""

    def __init__(self, n: int) -> None:
        self.n = n

    def forward(self, x, ids=None, mask=None):
        return 2 * x, None

    def backward(self, dy, cache):
        return (2 * dy,) * self.n


def x(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def relu(at_zero: float) -> Layer:
    """max(0, x), whose derivative at 0 is said to be `at_zero`."""
    return Layer(lambda x: np.maximum(x, 0), lambda x: np.where(x == 0, at_zero, x > 0))
