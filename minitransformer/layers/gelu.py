"""Not in the paper: the Gaussian error linear unit (Hendrycks and Gimpel 2016), in place of the ReLU of §3.3."""

from __future__ import annotations

import math
from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import Array, Generator, array_module, silent_overflow
from minitransformer.kernels import fused
from minitransformer.module import Module
from minitransformer.parts import in_parts
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs


def normal_distribution(x: Array) -> tuple[Array, Array]:
    """Φ(x), the probability that a standard normal variable is below x, and x · φ(x), to within rounding of 1.

    φ(x) = exp(-x² / 2) / √(2π)
    Φ(x) = (1 + tanh(πx / (√2 h))) / 2 - 2h/√π · x φ(x) · Σ exp(-t²) / (2t² + x²),   t = h/2, 3h/2, 5h/2, …

    The sum, times h, is an integral by the midpoint rule, and tanh corrects it (Hunter and Regan 1972, for erf). The
    error that remains is about exp(-π²/h²), and the terms from t = π/h on, which are left out, are no larger. With the
    h used here, that is a unit in the last place of 1. (NumPy has no erf.) x may be complex, near the real axis.
    """
    xp = array_module(x)
    log_eps = -math.log(xp.finfo(x.dtype).eps)
    h = math.pi / math.sqrt(log_eps)
    points = [(n + 0.5) * h for n in range(int(log_eps / math.pi))]  # 11 in float64, 5 in float32
    x_squared = x * x
    x_phi = math.sqrt(0.5 / math.pi) * x * xp.exp(-0.5 * x_squared)
    total = sum(math.exp(-t * t) / (2 * t * t + x_squared) for t in points)
    Phi = 0.5 + 0.5 * xp.tanh(math.pi / math.sqrt(2) / h * x) - 2 * h / math.sqrt(math.pi) * x_phi * total
    return Phi, x_phi


@fused(kernels.gelu)
@in_parts
@silent_overflow()
def gelu(x: Array) -> tuple[Array, Array]:
    """y = x · Φ(x), and dy/dx = Φ(x) + x · φ(x), for numbers x."""
    Phi, x_phi = normal_distribution(x)
    return x * Phi, Phi + x_phi


@fused(kernels.gelu_tanh)
@in_parts
@silent_overflow()
def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """y = x · Φ(x), and dy/dx = Φ(x) + x · φ(x), for numbers x, with the Φ of GELUTanh."""
    a, b = math.sqrt(2 / math.pi), 0.044715
    Phi = (1 + array_module(x).tanh(a * (x + b * x * x * x))) / 2
    phi = 2 * Phi * (1 - Phi) * a * (1 + 3 * b * x * x)
    return x * Phi, Phi + x * phi


class GELUCache(NamedTuple):
    slope: Array  # (...,) dy/dx, computed in forward where Φ(x) is at hand, so that x itself is not needed


class GELU(Module):
    """Gaussian error linear unit, as in BERT: x times Φ(x), the standard normal distribution function.

    forward   y = x · Φ(x)                     elementwise, Φ(x) = (1 + erf(x / √2)) / 2
    backward  dx = dy · (Φ(x) + x · φ(x))      φ(x) = dΦ/dx = exp(-x² / 2) / √(2π)
    """

    formula = staticmethod(gelu)

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, GELUCache]:
        y, slope = self.formula(x.reshape(-1))
        return y.reshape(x.shape), GELUCache(slope.reshape(x.shape))

    @gradient_of_shape(lambda layer, cache: cache.slope.shape)
    def backward(self, dy: Array, cache: GELUCache) -> Array:
        return dy * cache.slope


class GELUTanh(GELU):
    """GELU with a tanh in place of erf, as in GPT-2: y is at most 4.8e-4 from GELU's.

    forward   y = x · Φ(x)                     elementwise, Φ(x) = (1 + tanh u) / 2, u = √(2/π) · (x + 0.044715 x³)
    backward  dx = dy · (Φ(x) + x · φ(x))      φ(x) = dΦ/dx = 2 Φ (1 - Φ) · √(2/π) · (1 + 3 · 0.044715 x²)
    """

    formula = staticmethod(gelu_tanh)
