"""The other layers of section 3: values against the paper's formulas. (What they all keep to: tests/laws.)"""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import D_FF, D_MODEL, T_Q, V_SRC, B, random_ids, randomise, tiny_config

import minitransformer as mt
from minitransformer import layers


def test_linear_is_x_times_w_plus_b():
    rng = np.random.default_rng(0)
    layer = randomise(layers.Linear(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    y, _ = layer.forward(x)
    expected = [[[sum(x[b, t, i] * layer.W.data[i, j] for i in range(D_MODEL)) + layer.b.data[j]
                  for j in range(D_FF)] for t in range(T_Q)] for b in range(B)]  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_feed_forward_is_equation_2():
    rng = np.random.default_rng(1)
    layer = randomise(layers.FeedForward(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    expected = np.maximum(0, x @ p["W_1"] + p["b_1"]) @ p["W_2"] + p["b_2"]
    np.testing.assert_allclose(layer.forward(x)[0], expected, rtol=1e-12)


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


def test_add_norm_is_the_norm_of_the_sum():
    rng = np.random.default_rng(4)
    layer = randomise(layers.AddNorm(D_MODEL), rng)
    x, s = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_Q, D_MODEL))
    np.testing.assert_array_equal(layer.forward(x, s)[0], layer.norm.forward(x + s)[0])


def test_embedding_is_a_row_times_the_square_root_of_d_model():
    rng = np.random.default_rng(5)
    layer = randomise(layers.Embedding(V_SRC, D_MODEL), rng)
    ids = random_ids(rng, B, T_Q, V_SRC)
    y, _ = layer.forward(ids)
    np.testing.assert_allclose(y[1, 0], math.sqrt(D_MODEL) * layer.E.data[ids[1, 0]], rtol=1e-12)


def test_embedding_gradient_counts_every_occurrence_of_an_id():
    layer = layers.Embedding(3, 4, dtype="float64")
    _, cache = layer.forward(np.array([[1, 1, 1, 2]]))
    dy = np.random.default_rng(6).normal(size=(1, 4, 4))
    layer.backward(dy, cache)
    np.testing.assert_allclose(
        layer.E.grad, 2 * np.stack([0 * dy[0, 0], dy[0, :3].sum(0), dy[0, 3]]), rtol=1e-12
    )


def test_sinusoids_are_interleaved_with_base_10000():
    PE = layers.sinusoids(50, 6)
    for pos in (0, 1, 17, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            assert PE[pos, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert PE[pos, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoids_need_an_even_width():
    with pytest.raises(mt.ConfigError, match="an even number for sinusoidal positions, got 7"):
        layers.SinusoidalPositions(5, 7)


def test_integers_fractions_and_binary_numbers_of_positions():
    np.testing.assert_array_equal(layers.integers(5, 3), [[pos] * 3 for pos in range(5)])
    np.testing.assert_array_equal(layers.fractions(5, 3), [[pos / 5] * 3 for pos in range(5)])
    for pos, row in enumerate(layers.binary(64, 7)):
        assert list(row) == [float(bit) for bit in reversed(f"{pos:07b}")]
    np.testing.assert_array_equal(layers.no_positions(5, 3), np.zeros((5, 3)))


@pytest.mark.parametrize("max_len", [1, 2, 16])
def test_binary_positions_are_all_different_in_as_few_features_as_can_be(max_len):
    n_bits = len(bin(max_len - 1)) - 2 if max_len > 1 else 1
    assert len(np.unique(layers.binary(max_len, n_bits), axis=0)) == max_len
    with pytest.raises(
        mt.ConfigError, match=f"expected at least {n_bits + 1}, a bit each, for .* got {n_bits}"
    ):
        layers.binary(2**n_bits + 1, n_bits)


@pytest.mark.parametrize(
    ("positions", "table"),
    [("sinusoidal", "sinusoids"), ("none", "no_positions")]
    + [(x, x) for x in ("integers", "fractions", "binary")],
)
def test_a_model_adds_the_table_its_config_names(positions, table):
    model = mt.Transformer(tiny_config(positions=positions), dtype="float64")
    ids = random_ids(np.random.default_rng(8), B, T_Q, V_SRC)
    x, _ = model.src_embedding.forward(ids, start=2)
    words, _ = model.src_embedding.embedding.forward(ids)
    PE = getattr(layers, table)(model.config.max_len, D_MODEL)[2 : 2 + T_Q]
    np.testing.assert_array_equal(x, words + PE)


def integer_positions(max_len, d_model, dtype):
    return layers.FixedPositions(layers.integers(max_len, d_model), dtype)


@pytest.mark.parametrize(
    "Positions", [layers.SinusoidalPositions, layers.LearnedPositions, integer_positions]
)
def test_positions_begin_at_start(Positions):
    layer = Positions(19, D_MODEL, dtype="float64")
    x = np.random.default_rng(7).normal(size=(B, 19, D_MODEL))
    whole, _ = layer.forward(x)
    part, _ = layer.forward(x[:, 4:9], start=4)
    np.testing.assert_array_equal(part, whole[:, 4:9])


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_refuses_what_is_no_probability_below_one(p):
    with pytest.raises(mt.ConfigError, match="dropout: expected a probability"):
        layers.Dropout(p)


@pytest.mark.parametrize("p", [1 - 2**-16, 1 - 2**-18, np.nextafter(1, 0)])
def test_a_probability_next_to_one_still_keeps_a_few(p):
    """A p of 1 would divide by 0."""
    assert layers.Dropout(p).p == 1 - 2**-16
