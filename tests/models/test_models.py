"""What holds for stacks and layers of every kind: first weights, generators, caches and states that fit."""

from __future__ import annotations

import numpy as np
import pytest
from dropout_masks import masks_drawn
from first_weights import assert_first_weights
from support import D_MODEL, T_K, T_Q, B, tiny_config

import minitransformer as mt
from minitransformer import models
from minitransformer.models.families import build

BUILT = {
    "EncoderLayer": models.EncoderLayer,
    "DecoderLayer": models.DecoderLayer,
    "PreNormEncoderLayer": models.PreNormEncoderLayer,
    "PreNormDecoderLayer": models.PreNormDecoderLayer,
    "Encoder": models.Encoder,
    "Decoder": models.Decoder,
    "Transformer": lambda config, rng, **dtype: mt.Transformer(config, rng, **dtype),
}


@pytest.mark.parametrize("changes", [{}, {"norm": "pre", "positions": "learned", "attention_bias": True}])
@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize("name", BUILT)
def test_the_seed_the_shapes_and_the_dtype_decide_the_first_weights(name, dtype, changes):
    config = tiny_config(tie_embeddings=False, **changes)
    model = BUILT[name](config, rng=3, **({} if dtype is None else {"dtype": dtype}))
    assert_first_weights(model, 3, dtype or "float32")


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_stacks_and_layers_pass_their_generator_on(norm):
    """Called by themselves, as in the model above."""
    rng = np.random.default_rng(2)
    config = tiny_config(norm=norm)
    x, memory = rng.normal(size=(B, T_Q, config.d_model)), rng.normal(size=(B, T_K, config.d_model))
    for stack, inputs, n_masks in (
        (models.Encoder(config), (memory,), 4),  # a layer: attention, two residuals, ReLU
        (models.Decoder(config), (x, memory), 6),
    ):
        assert len(masks_drawn(stack.forward(*inputs, rng=rng)[1])) == config.n_layers * n_masks
        assert len(masks_drawn(stack.layers[0].forward(*inputs, rng=rng)[1])) == n_masks


@pytest.mark.parametrize("Stack", [models.Encoder, models.Decoder])
def test_a_cache_or_a_state_of_another_depth_is_refused(Stack):
    rng = np.random.default_rng(5)
    stack = Stack(tiny_config())
    x = rng.normal(size=(B, T_Q, 8)).astype("float32")
    inputs = (x,) if Stack is models.Encoder else (x, x)
    y, cache = stack.forward(*inputs)
    for layers in (cache.layers[1:], cache.layers * 2):
        with pytest.raises(ValueError, match="zip"):
            stack.backward(y, cache._replace(layers=layers))
    if Stack is models.Decoder:
        state = stack.start(x, None, 3)
        for layers in (state.layers[1:], state.layers * 2):
            state.layers = layers
            with pytest.raises(ValueError, match="zip"):
                stack.step(x[:, :1], state)


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
def test_the_seed_is_0_unless_another_is_given(family):
    config = mt.OneStackConfig(11, 11, n_layers=1, d_model=8, n_heads=2, d_ff=9, family=family)
    for model in (build(config), type(build(config))(config)):
        np.testing.assert_array_equal(model.flatten().data, build(config, 0).flatten().data)


def test_positions_from_both_ends_have_the_sinusoids_of_half_the_features():
    model = mt.Transformer(tiny_config(count_source_from="both"), dtype="float64")
    expected = mt.layers.sinusoids(model.config.max_len, D_MODEL // 2)
    np.testing.assert_array_equal(model.src_embedding.positions.PE.data, expected)
