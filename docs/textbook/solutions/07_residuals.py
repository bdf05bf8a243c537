"""Solutions to the exercises of chapter 7."""

import math

import numpy as np

import minitransformer as mt


class Scaled(mt.Module):
    """y = x + alpha F(x), alpha = 1 / sqrt(L) in a stack of L"""

    def __init__(self, d, L, rng):
        self.alpha = 1 / math.sqrt(L)
        self.F = mt.layers.FeedForward(d, 4 * d, rng=rng, dtype="float64")

    def forward(self, x, rng=None):
        s, cache = self.F.forward(x)
        return x + self.alpha * s, cache

    def backward(self, dy, cache):
        return dy + self.F.backward(self.alpha * dy, cache)


class Highway(mt.Module):
    """y = g · F(x) + (1 - g) · x, g = sigmoid(x W + b)"""

    def __init__(self, d, rng):
        self.F = mt.layers.FeedForward(d, 4 * d, rng=rng, dtype="float64")
        self.gate = mt.layers.Linear(d, d, rng=rng, dtype="float64")

    def forward(self, x, rng=None):
        s, cache = self.F.forward(x)
        a, cache_gate = self.gate.forward(x)
        g = 1 / (1 + np.exp(-a))
        return g * s + (1 - g) * x, (x, s, g, cache, cache_gate)

    def backward(self, dy, caches):
        x, s, g, cache, cache_gate = caches
        ds = dy * g
        da = dy * (s - x) * g * (1 - g)
        return dy * (1 - g) + self.F.backward(ds, cache) + self.gate.backward(da, cache_gate)


def by_blocks_passed(dy, jacobians):
    """Entry k: what of dx = dy (I + J_L) ... (I + J_1) went through k blocks.  jacobians: [J_1, ..., J_L]"""
    parts = [dy]
    for J in reversed(jacobians):
        past = [*parts, np.zeros_like(dy)]
        through = [np.zeros_like(dy), *(part @ J for part in parts)]
        parts = [p + t for p, t in zip(past, through, strict=True)]
    return parts
