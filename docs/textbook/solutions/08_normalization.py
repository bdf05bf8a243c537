"""Solutions to the exercises of chapter 8."""

import numpy as np

from minitransformer import layers


def as_linear_map(norm, mean, var):
    """(a, c) such that the BatchNorm `norm` with this fixed mean and variance is y = a · x + c."""
    a = norm.gamma.data / np.sqrt(var + norm.eps)
    return a, norm.beta.data - a * mean


def backward_by_rms_norm(x, dy, gamma, eps):
    """dx of LayerNorm, by way of RMSNorm."""
    rms = layers.RMSNorm(x.shape[-1], eps, dtype="float64")
    rms.gamma.data = gamma
    _, cache = rms.forward(x - x.mean(-1, keepdims=True))
    dz = rms.backward(dy, cache)
    return dz - dz.mean(-1, keepdims=True)


def two_features(x, dy):
    """x_hat and dx of layer norm for vectors of two features, (..., 2), without eps."""
    norm = layers.LayerNorm(2, eps=0.0, dtype="float64")
    _, cache = norm.forward(x)
    return cache.x_hat, norm.backward(dy, cache)
