"""The sub-layers that the settings name."""

from __future__ import annotations

import pytest
from support import tiny_config

import minitransformer as mt
from minitransformer import layers


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
