"""Layer normalisation (Ba et al. 2016): vectors of mean 0 and variance 1.

What it should do:

    forward   x_hat = (x - mean) / sqrt(var + eps),   y = gamma · x_hat + beta
              mean and var (divided by d_model) over the last axis; x, y: (..., d_model), gamma, beta: (d_model,)
    backward  the gradients of x, gamma and beta

What was noticed: a gradient check of the new layer passed. The first training step is the same as
the reference's, digit for digit. After that the two diverge, a little more with each step.
"""

from typing import NamedTuple

from minitransformer.backend import Array, Generator, zeros
from minitransformer.module import Module, Parameter


class LayerNormCache(NamedTuple):
    x_hat: Array  # (..., d_model)
    rstd: Array  # (..., 1)


class LayerNorm(Module):
    """Normalises the last axis."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        self.eps = eps
        self.gamma = Parameter(zeros((d_model,)) + 1)
        self.beta = Parameter(zeros((d_model,)))

    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, LayerNormCache]:
        centred = x - x.mean(-1, keepdims=True)
        rstd = ((centred * centred).mean(-1, keepdims=True) + self.eps) ** -0.5
        x_hat = centred * rstd
        return self.gamma.data * x_hat + self.beta.data, LayerNormCache(x_hat, rstd)

    def backward(self, dy: Array, cache: LayerNormCache) -> Array:
        x_hat, rstd = cache
        positions = tuple(range(dy.ndim - 1))
        self.gamma.grad += (dy * x_hat).sum(positions)
        self.beta.grad += dy.sum(positions)
        dx = dy - dy.mean(-1, keepdims=True) - x_hat * (dy * x_hat).mean(-1, keepdims=True)
        return self.gamma.data * dx * rstd
