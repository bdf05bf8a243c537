"""Not in the paper: other ways to normalise an array of batch × position × feature, (B, T, d_model).

All subtract a mean and divide by a deviation. They differ in the cells that share one mean and one deviation:

    LayerNorm      the features of one position                    normalization.py
    BatchNorm      one feature at all positions of all sentences
    InstanceNorm   one feature at all positions of one sentence
    GroupNorm      a group of features at all positions of one sentence

All but LayerNorm mix positions, including padding and later ones, so none of them suits a decoder.
"""

from __future__ import annotations

from typing import NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, array_module, sum_positions, zeros
from minitransformer.errors import ConfigError
from minitransformer.module import Module, Parameter
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs, norm_inputs
from minitransformer.validation.settings import layer_sizes


class NormCache(NamedTuple):
    x_hat: Array  # like x (GroupNorm: with an axis for the groups)
    rstd: Array  # 1 / sqrt(variance + eps), of size 1 along the axes of the mean


def normalize(x: Array, axes: tuple[int, ...], eps: float) -> NormCache:
    """x_hat = (x - mean) / sqrt(var + eps), with mean and (biased) variance over `axes`."""
    centred = x - x.mean(axes, keepdims=True)
    var = (centred * centred).mean(axes, keepdims=True)
    rstd = 1 / array_module(x).sqrt(var + eps)
    return NormCache(centred * rstd, rstd)


def normalize_backward(dx_hat: Array, cache: NormCache, axes: tuple[int, ...]) -> Array:
    """dx = (dx_hat - mean(dx_hat) - x_hat · mean(dx_hat · x_hat)) / sqrt(var + eps), over the same `axes`."""
    x_hat, rstd = cache
    mean = dx_hat.mean(axes, keepdims=True)
    projection = (dx_hat * x_hat).mean(axes, keepdims=True)
    return (dx_hat - mean - x_hat * projection) * rstd


class BatchNorm(Module):
    """Normalises each feature over all positions of all sentences (Ioffe and Szegedy 2015).

    forward   x_hat = normalize(x) over batch and position,   y = gamma · x_hat + beta
              x, y: (B, T, d_model), or (N, d_model) rows; gamma, beta: (d_model,)
    backward  dgamma = Σ dy · x_hat,   dbeta = Σ dy,   dx = normalize_backward(dy · gamma)

    Mean and variance are those of the current batch, in evaluation too: rng=None changes nothing here.
    The running averages that Ioffe and Szegedy evaluate with are not kept, because forward writes nothing to self.
    """

    n_axes: tuple[int, ...] = (2, 3)  # that x may have

    @layer_sizes
    def __init__(self, d_model: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        self.eps = float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)
        self.beta = Parameter(zeros((d_model,), dtype))

    @layer_inputs
    @checked(norm_inputs)
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, NormCache]:
        cache = normalize(x, self.axes(x), self.eps)
        return cache.x_hat * self.gamma.data + self.beta.data, cache

    @gradient_of_shape(lambda layer, cache: cache.x_hat.shape)
    def backward(self, dy: Array, cache: NormCache) -> Array:
        self.gamma.grad += sum_positions(dy * cache.x_hat)
        self.beta.grad += sum_positions(dy)
        return normalize_backward(dy * self.gamma.data, cache, self.axes(dy))

    def axes(self, x: Array) -> tuple[int, ...]:
        """The axes of mean and variance: all but the features."""
        return tuple(range(x.ndim - 1))


class InstanceNorm(BatchNorm):
    """Normalises each feature over the positions of one sentence (Ulyanov et al. 2016).

    forward   x_hat = normalize(x) over position,   y = gamma · x_hat + beta           x, y: (B, T, d_model)
    backward  as BatchNorm's, with means over position
    """

    n_axes = (3,)

    def axes(self, x: Array) -> tuple[int, ...]:
        """The axis of mean and variance: the positions."""
        return (1,)


class GroupNorm(Module):
    """Normalises groups of neighbouring features, over the positions of one sentence (Wu and He 2018).

    forward   x_hat = normalize(x) over position and the features of the group,   y = gamma · x_hat + beta
              x, y: (B, T, d_model), split in between into (B, T, n_groups, d_model / n_groups)
    backward  dgamma = Σ dy · x_hat,   dbeta = Σ dy,   dx = normalize_backward(dy · gamma)

    With d_model groups this is InstanceNorm. Raises ConfigError unless n_groups divides d_model.
    """

    axes = (1, 3)
    n_axes = (3,)

    @layer_sizes
    def __init__(self, d_model: int, n_groups: int, eps: float = 1e-5, dtype: DTypeLike = "float32") -> None:
        if d_model % n_groups:
            raise ConfigError(f"n_groups: expected a divisor of d_model={d_model}, got {n_groups}")
        self.n_groups, self.eps = n_groups, float(eps)
        self.gamma = Parameter(zeros((d_model,), dtype) + 1)
        self.beta = Parameter(zeros((d_model,), dtype))

    @layer_inputs
    @checked(norm_inputs)
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, NormCache]:
        cache = normalize(self._grouped(x), self.axes, self.eps)
        return cache.x_hat.reshape(x.shape) * self.gamma.data + self.beta.data, cache

    @gradient_of_shape(lambda layer, cache: (*cache.x_hat.shape[:2], layer.gamma.shape[0]))
    def backward(self, dy: Array, cache: NormCache) -> Array:
        self.gamma.grad += sum_positions(dy * cache.x_hat.reshape(dy.shape))
        self.beta.grad += sum_positions(dy)
        dx_hat = self._grouped(dy * self.gamma.data)
        return normalize_backward(dx_hat, cache, self.axes).reshape(dy.shape)

    def _grouped(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.n_groups, -1)
