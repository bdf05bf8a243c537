"""The sub-layers that the settings name."""

from __future__ import annotations

import numpy as np
import pytest
from dropout_masks import masks_drawn
from support import D_MODEL, T_K, T_Q, B, randomise, tiny_config

import minitransformer as mt
from minitransformer import layers, models


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("norm_layer", "Norm"), [("layer", layers.LayerNorm), ("rms", layers.RMSNorm)])
def test_a_model_has_the_norm_its_config_names_and_no_other(norm, norm_layer, Norm):
    model = mt.Transformer(tiny_config(norm=norm, norm_layer=norm_layer, eps=0.25))
    found = [type(layer) for layer in norms_below(model)]
    per_stack = 1 if norm == "pre" else 0
    assert found == [Norm] * (model.config.n_layers * (2 + 3) + 2 * per_stack)
    assert {layer.eps for layer in norms_below(model)} == {0.25}


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh"])
def test_a_model_has_the_activation_its_config_names(norm, activation):
    model = mt.Transformer(tiny_config(norm=norm, activation=activation))
    kind = {"relu": layers.ReLU, "gelu": layers.GELU, "gelu_tanh": layers.GELUTanh}[activation]
    found = [type(x.feed_forward.activation) for x in (*model.encoder.layers, *model.decoder.layers)]
    assert found == [kind] * 2 * model.config.n_layers


def norms_below(node):
    if isinstance(node, layers.LayerNorm | layers.RMSNorm):
        yield node
    elif isinstance(node, mt.Module | list):
        for child in vars(node).values() if isinstance(node, mt.Module) else node:
            yield from norms_below(child)


@pytest.mark.parametrize("Layer", [models.PreNormEncoderLayer, models.PreNormDecoderLayer])
def test_pre_norm_drops_the_branch_and_not_the_sum(Layer):
    rng = np.random.default_rng(5)
    layer = randomise(Layer(tiny_config(dropout=0.5, dropout_on="residual")), rng)
    x, memory = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_K, D_MODEL))
    decoder = Layer is models.PreNormDecoderLayer
    y, cache = layer.forward(x, *[memory] * decoder, rng=rng)
    kept = list(masks_drawn(cache).values())
    branches = [lambda z: layer.self_attention.forward(z, z, z), lambda z: layer.feed_forward.forward(z)]
    if decoder:
        branches.insert(1, lambda z: layer.cross_attention.forward(z, memory, memory))
    for i, (branch, k) in enumerate(zip(branches, kept, strict=True), 1):
        z, _ = getattr(layer, f"norm_{i}").forward(x)
        x = x + k * branch(z)[0] / 0.5
    np.testing.assert_allclose(y, x, rtol=1e-12)
