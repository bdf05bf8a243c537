"""LayerNorm and RMSNorm: mean and deviation, the rows that have none, the defaults."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from support import D_MODEL, T_Q, B, randomise

from minitransformer import layers


def test_layer_norm_has_mean_beta_and_deviation_gamma():
    rng = np.random.default_rng(2)
    layer = layers.LayerNorm(997, eps=1e-12, dtype="float64")
    layer.gamma.data, layer.beta.data = np.full(997, 3.0), np.full(997, -2.0)
    y, _ = layer.forward(rng.normal(5, 7, (B, T_Q, 997)))
    np.testing.assert_allclose(y.mean(-1), -2, rtol=1e-10)
    np.testing.assert_allclose(y.std(-1), 3, rtol=1e-10)  # the biased deviation


def test_layer_norm_of_a_constant_row_is_beta_and_its_gradient_finite():
    rng = np.random.default_rng(3)
    layer = randomise(layers.LayerNorm(D_MODEL), rng)
    x = np.full((B, T_Q, D_MODEL), 4.2)
    y, cache = layer.forward(x)
    np.testing.assert_allclose(y, np.broadcast_to(layer.beta.data, y.shape), atol=1e-10)
    assert np.isfinite(layer.backward(rng.normal(size=y.shape), cache)).all()


def test_norms_default_to_an_eps_of_1e_minus_5():
    x = np.zeros((1, 2))
    x[0, 0] = 0.002  # mean 0.001, variance 1e-6: eps decides the result
    expected = 1e-3 / math.sqrt(1e-6 + 1e-5)
    zero = np.zeros_like(x)
    assert layers.LayerNorm(2, dtype="float64").forward(x)[0][0, 0] == pytest.approx(expected, rel=1e-12)
    assert layers.AddNorm(2, dtype="float64").forward(x, zero)[0][0, 0] == pytest.approx(expected, rel=1e-12)


def test_rms_norm_is_x_over_its_root_mean_square():
    rng = np.random.default_rng(2)
    layer = randomise(layers.RMSNorm(D_MODEL, eps=0.1), rng)
    x = rng.normal(3, 2, (B, T_Q, D_MODEL))
    y, _ = layer.forward(x)
    for b, t in itertools.product(range(B), range(T_Q)):
        rms = math.sqrt(math.fsum(v * v for v in x[b, t]) / D_MODEL + 0.1)
        np.testing.assert_allclose(y[b, t], layer.gamma.data * x[b, t] / rms, rtol=1e-12)


def test_rms_norm_is_layer_norm_where_the_mean_is_zero():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    x -= x.mean(-1, keepdims=True)
    norms = layers.RMSNorm(D_MODEL, dtype="float64"), layers.LayerNorm(D_MODEL, dtype="float64")
    y, y_layer = (norm.forward(x)[0] for norm in norms)
    np.testing.assert_allclose(y, y_layer, rtol=1e-10)


def test_rms_norm_of_a_row_of_zeros_is_zero_and_its_gradient_finite():
    layer = randomise(layers.RMSNorm(D_MODEL), np.random.default_rng(4))
    y, cache = layer.forward(np.zeros((B, T_Q, D_MODEL)))
    assert (y == 0).all() and np.isfinite(layer.backward(np.ones_like(y), cache)).all()


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm", "BatchNorm", "InstanceNorm"])
def test_an_eps_of_numpys_does_not_change_the_dtype(norm):
    layer = getattr(layers, norm)(4, eps=np.float64(1e-6))
    y, cache = layer.forward(np.ones((2, 3, 4), "float32"))
    assert [x.dtype for x in (y, *cache)] == ["float32"] * 3
