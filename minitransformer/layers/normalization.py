"""Layer normalisation (Ba et al. 2016), which §3.1 puts after every sub-layer, and RMSNorm, without the mean."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer import kernels
from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    array_module,
    mean_last,
    sum_positions,
    zeros,
)
from minitransformer.kernels import fused
from minitransformer.module import Module, Parameter
from minitransformer.parts import in_rows
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs, norm_inputs
from minitransformer.validation.settings import layer_sizes


@fused(kernels.layer_norm)
@in_rows
def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma · x_hat + beta, x_hat = (x - mean(x)) · rstd and rstd = 1 / sqrt(var(x) + eps)."""
    centred = x - mean_last(x)
    rstd = 1 / array_module(x).sqrt(mean_last(centred * centred) + eps)
    x_hat = centred * rstd
    return gamma * x_hat + beta, x_hat, rstd


@fused(kernels.layer_norm_backward)
@in_rows
def layer_norm_backward(dy: Array, x_hat: Array, rstd: Array, gamma: Array) -> Array:
    """dx of layer_norm: back through y = gamma · x_hat + beta, and through the mean and the variance in x_hat."""
    dx_hat = dy * gamma
    return (dx_hat - mean_last(dx_hat) - x_hat * mean_last(dx_hat * x_hat)) * rstd


class LayerNormCache(NamedTuple):
    x_hat: Array  # (..., d_model) the normalised rows; x and its mean are not needed any more
    rstd: Array  # (..., 1) the reciprocal of the standard deviation, 1 / sqrt(variance + eps)


class LayerNorm(Module):
    """Normalises each position's vector to mean 0 and variance 1, then scales and shifts it.

    forward   x_hat = (x - mean) / sqrt(var + eps),   y = gamma · x_hat + beta
              mean and (biased) var over the last axis; x, y: (..., d_model), gamma, beta: (d_model,)
    backward  dgamma = Σ dy · x_hat,   dbeta = Σ dy                      sums over all positions
              dx_hat = dy · gamma
              dx = (dx_hat - mean(dx_hat) - x_hat · mean(dx_hat · x_hat)) / sqrt(var + eps)

    eps keeps a constant row finite: its x_hat is 0, provided that the rounding error of x - mean (in float32 about
    1e-7 · |x|) is small compared with sqrt(eps).
    """

    @layer_sizes
    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)
        self.beta = Parameter(zeros((d_model,), dtype))

    @layer_inputs
    @checked(norm_inputs)
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, LayerNormCache]:
        y, x_hat, rstd = layer_norm(x, self.gamma.data, self.beta.data, self.eps)
        return y, LayerNormCache(x_hat, rstd)

    @gradient_of_shape(lambda layer, cache: cache.x_hat.shape)
    def backward(self, dy: Array, cache: LayerNormCache) -> Array:
        self.gamma.grad += sum_positions(dy * cache.x_hat)
        self.beta.grad += sum_positions(dy)
        return layer_norm_backward(dy, cache.x_hat, cache.rstd, self.gamma.data)


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

    @layer_sizes
    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)

    @layer_inputs
    @checked(norm_inputs)
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, RMSNormCache]:
        rrms = 1 / array_module(x).sqrt(mean_last(x * x) + self.eps)
        x_hat = x * rrms
        return self.gamma.data * x_hat, RMSNormCache(x_hat, rrms)

    @gradient_of_shape(lambda layer, cache: cache.x_hat.shape)
    def backward(self, dy: Array, cache: RMSNormCache) -> Array:
        x_hat, rrms = cache
        self.gamma.grad += sum_positions(dy * x_hat)
        dx_hat = dy * self.gamma.data
        return (dx_hat - x_hat * mean_last(dx_hat * x_hat)) * rrms


# by their names in TransformerConfig.norm_layer
NORMS = {"layer": LayerNorm, "rms": RMSNorm}
