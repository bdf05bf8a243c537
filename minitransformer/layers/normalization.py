"""Layer normalisation (Ba et al. 2016), as §3.1 uses it around every sub-layer."""

from __future__ import annotations

from typing import NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, array_module, sum_last, sum_positions, zeros
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

    eps keeps a constant row finite: its x_hat is 0.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = eps
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)
        self.beta = Parameter(zeros((d_model,), dtype))

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, LayerNormCache]:
        xp = array_module(x)
        d_model = x.shape[-1]
        centred = x - sum_last(x) / d_model
        var = sum_last(centred * centred) / d_model
        rstd = 1 / xp.sqrt(var + self.eps)
        x_hat = centred * rstd
        return self.gamma.data * x_hat + self.beta.data, LayerNormCache(x_hat, rstd)

    def backward(self, dy: Array, cache: LayerNormCache) -> Array:
        x_hat, rstd = cache
        d_model = x_hat.shape[-1]
        self.gamma.grad += sum_positions(dy * x_hat)
        self.beta.grad += sum_positions(dy)
        dx_hat = dy * self.gamma.data
        mean, projection = sum_last(dx_hat) / d_model, sum_last(dx_hat * x_hat) / d_model
        return rstd * (dx_hat - mean - x_hat * projection)
