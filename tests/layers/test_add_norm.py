"""§3.1: the residual connection and the norm after it."""

from __future__ import annotations

import numpy as np
from support import D_MODEL, T_Q, B, randomise

from minitransformer import layers


def test_add_norm_is_the_norm_of_the_sum():
    rng = np.random.default_rng(4)
    layer = randomise(layers.AddNorm(D_MODEL), rng)
    x, s = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_Q, D_MODEL))
    np.testing.assert_array_equal(layer.forward(x, s)[0], layer.norm.forward(x + s)[0])


def test_add_norm_drops_the_sublayer_and_not_the_sum():
    rng = np.random.default_rng(5)
    layer = randomise(layers.AddNorm(D_MODEL, 0.5), rng)
    x, s = rng.normal(size=(2, B, T_Q, D_MODEL))
    y, cache = layer.forward(x, s, rng)
    np.testing.assert_allclose(y, layer.norm.forward(x + cache.dropout.kept * s / 0.5)[0], rtol=1e-12)
