"""§3.3: two linear maps and a ReLU."""

from __future__ import annotations

import numpy as np
import pytest
from support import D_FF, D_MODEL, T_Q, B, randomise

from minitransformer import layers


def test_feed_forward_is_equation_2():
    rng = np.random.default_rng(1)
    layer = randomise(layers.FeedForward(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    expected = np.maximum(0, x @ p["W_1"] + p["b_1"]) @ p["W_2"] + p["b_2"]
    np.testing.assert_allclose(layer.forward(x)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("Activation", [layers.ReLU, layers.GELU, layers.GELUTanh])
def test_the_activation_stands_between_the_two_maps(Activation):
    rng = np.random.default_rng(2)
    layer = randomise(layers.FeedForward(D_MODEL, D_FF, Activation=Activation), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    hidden, _ = Activation().forward(x @ p["W_1"] + p["b_1"])
    np.testing.assert_allclose(layer.forward(x)[0], hidden @ p["W_2"] + p["b_2"], rtol=1e-12)


@pytest.mark.parametrize("Activation", [layers.ReLU, layers.GELU])
def test_dropout_acts_on_the_activations_output(Activation):
    rng = np.random.default_rng(2)
    layer = randomise(layers.FeedForward(D_MODEL, D_FF, 0.5, Activation=Activation), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    y, cache = layer.forward(x, rng)
    hidden, _ = Activation().forward(x @ layer.W_1.data + layer.b_1.data)
    expected = (cache.dropout.kept * hidden / 0.5) @ layer.W_2.data + layer.b_2.data
    np.testing.assert_allclose(y, expected, rtol=1e-11)
