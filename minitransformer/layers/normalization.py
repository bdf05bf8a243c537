"""Layer normalisation (Ba et al. 2016), which §3.1 puts after every sub-layer, and RMSNorm, without the mean."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    array_module,
    dot_last,
    sum_last,
    sum_positions,
    zeros,
)
from minitransformer.module import Module, Parameter


class LayerNormCache(NamedTuple):
    x_hat: Array  # (..., d_model) the normalised rows; x and its mean are not needed any more
    rstd: Array  # (..., 1) 1 / sqrt(variance + eps)


class LayerNorm(Module):
    """Normalises each position's vector to mean 0 and variance 1, then scales and shifts it.

    forward   x_hat = (x - mean) / sqrt(var + eps),   y = gamma · x_hat + beta
              mean and (biased) var over the last axis; x, y: (..., d_model), gamma, beta: (d_model,)
    backward  dgamma = Σ dy · x_hat,   dbeta = Σ dy                      sums over all positions
              dx_hat = dy · gamma
              dx = (dx_hat - mean(dx_hat) - x_hat · mean(dx_hat · x_hat)) / sqrt(var + eps)

    eps keeps a constant row finite. Its x_hat is 0, as long as what rounding leaves of x - mean, in float32 about
    1e-7 · |x|, is small beside sqrt(eps).
    """

    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)
        self.beta = Parameter(zeros((d_model,), dtype))

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, LayerNormCache]:
        if kernels.usable(x, self.gamma.data):
            y, x_hat, rstd = kernels.layer_norm(x, self.gamma.data, self.beta.data, self.eps)
            return y, LayerNormCache(x_hat, rstd)
        d_model = x.shape[-1]
        x_hat = x - sum_last(x) / d_model  # centred, so far
        rstd = 1 / array_module(x).sqrt(dot_last(x_hat, x_hat) / d_model + self.eps)
        x_hat *= rstd
        y = x_hat * self.gamma.data
        y += self.beta.data
        return y, LayerNormCache(x_hat, rstd)

    def backward(self, dy: Array, cache: LayerNormCache) -> Array:
        x_hat, rstd = cache
        gamma, d_model = self.gamma.data, x_hat.shape[-1]
        if kernels.usable(dy, x_hat, gamma):
            dx, dy_x_hat = kernels.layer_norm_backward(dy, x_hat, rstd, gamma)
            self.gamma.grad += sum_positions(dy_x_hat)
            self.beta.grad += sum_positions(dy)
            return dx
        dy_x_hat = dy * x_hat
        self.gamma.grad += sum_positions(dy_x_hat)
        self.beta.grad += sum_positions(dy)
        dx = dy * gamma  # dx_hat, so far; its two means are products with gamma
        dx -= (dy @ gamma)[..., None] / d_model
        dx -= x_hat * ((dy_x_hat @ gamma)[..., None] / d_model)
        dx *= rstd
        return dx


class RMSNormCache(NamedTuple):
    x_hat: Array  # (..., d_model) the rows divided by their root mean square; x is not needed any more
    rrms: Array  # (..., 1) 1 / sqrt(mean(x²) + eps)


class RMSNorm(Module):
    """LayerNorm without the mean and without beta (Zhang and Sennrich 2019): only the size of a row is fixed.

    forward   x_hat = x / sqrt(mean(x²) + eps),   y = gamma · x_hat
              mean over the last axis; x, y: (..., d_model), gamma: (d_model,)
    backward  dgamma = Σ dy · x_hat                                      sum over all positions
              dx_hat = dy · gamma
              dx = (dx_hat - x_hat · mean(dx_hat · x_hat)) / sqrt(mean(x²) + eps)

    eps keeps a row of zeros finite. The model uses it with norm_layer="rms".
    """

    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, RMSNormCache]:
        rrms = 1 / array_module(x).sqrt(dot_last(x, x) / x.shape[-1] + self.eps)
        x_hat = x * rrms
        return x_hat * self.gamma.data, RMSNormCache(x_hat, rrms)

    def backward(self, dy: Array, cache: RMSNormCache) -> Array:
        x_hat, rrms = cache
        self.gamma.grad += sum_positions(dy * x_hat)
        dx = dy * self.gamma.data  # dx_hat, so far
        dx -= x_hat * (dot_last(dx, x_hat) / x_hat.shape[-1])
        dx *= rrms
        return dx
