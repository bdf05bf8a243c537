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


def norms_below(node):
    if isinstance(node, layers.LayerNorm | layers.RMSNorm):
        yield node
    elif isinstance(node, mt.Module | list):
        for child in vars(node).values() if isinstance(node, mt.Module) else node:
            yield from norms_below(child)
