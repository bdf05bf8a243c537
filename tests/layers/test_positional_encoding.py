"""§3.5: the tables of positions, by their formulas; where they begin and end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from messages import message_of
from support import D_MODEL, T_Q, B, randomise

import minitransformer as mt
from minitransformer import layers


def test_sinusoids_are_interleaved_with_base_10000():
    PE = layers.sinusoids(50, 6)
    for pos in (0, 1, 17, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            assert PE[pos, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert PE[pos, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoids_need_an_even_width():
    for make in (layers.sinusoids, layers.SinusoidalPositions):
        message = message_of(mt.ConfigError, make, 5, 7)
        assert message == "d_model: expected an even number for sinusoidal positions, got 7"


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


def integer_positions(max_len, d_model, dtype):
    return layers.FixedPositions(layers.integers(max_len, d_model), dtype)


@pytest.mark.parametrize(
    "Positions", [layers.SinusoidalPositions, layers.LearnedPositions, integer_positions]
)
def test_positions_begin_at_a_number(Positions):
    layer = Positions(19, D_MODEL, dtype="float64")
    x = np.random.default_rng(7).normal(size=(B, 19, D_MODEL))
    whole, _ = layer.forward(x)
    part, _ = layer.forward(x[:, 4:9], at=4)
    np.testing.assert_array_equal(part, whole[:, 4:9])


@pytest.mark.parametrize(("dtype", "expected"), [({}, "float32"), ({"dtype": "float64"}, "float64")])
def test_sinusoids_are_made_in_float64_and_stored_in_the_layers_dtype(dtype, expected):
    PE = layers.sinusoids(19, D_MODEL)
    stored = layers.SinusoidalPositions(19, D_MODEL, **dtype).PE.data
    assert PE.dtype == np.float64 and stored.dtype == expected
    np.testing.assert_array_equal(stored, PE.astype(expected))
    x = np.zeros((B, T_Q, D_MODEL), expected)
    assert layers.SinusoidalPositions(19, D_MODEL, **dtype).forward(x)[0].dtype == expected


def test_positions_start_at_the_first_unless_told_otherwise():
    for Positions in (layers.SinusoidalPositions, layers.LearnedPositions):
        layer = randomise(Positions(19, D_MODEL), np.random.default_rng(2))
        table = layer.P.data if Positions is layers.LearnedPositions else layer.PE.data
        y, _ = layer.forward(np.zeros((B, T_Q, D_MODEL)))
        np.testing.assert_array_equal(y, np.broadcast_to(table[:T_Q], y.shape))


@pytest.mark.parametrize("positions", [layers.SinusoidalPositions, layers.LearnedPositions])
@pytest.mark.parametrize(("T", "start"), [(6, 0), (3, 4), (1, 5), (2, -1)])
def test_positions_end_with_their_table(positions, T, start):
    """A slice of it that is too short would broadcast, if it has one row, or none."""
    layer = positions(5, 4)
    assert layer.forward(np.zeros((2, 3, 4)), at=2)[0].shape == (2, 3, 4)
    with pytest.raises(mt.InputError, match=rf"0 … 4 \(max_len=5\), got {T} from position {start} on"):
        layer.forward(np.zeros((2, T, 4)), at=start)


def test_the_gradient_of_learned_positions_lands_where_they_were_read():
    layer = layers.LearnedPositions(19, D_MODEL, dtype="float64")
    rng = np.random.default_rng(3)
    before = rng.normal(size=(19, D_MODEL))
    layer.P.grad = before
    x = rng.normal(size=(B, T_Q, D_MODEL))
    _, cache = layer.forward(x, at=4)
    dy = rng.normal(size=x.shape)
    assert layer.backward(dy, cache) is dy
    expected = before.copy()
    expected[4 : 4 + T_Q] += dy.sum(0)
    np.testing.assert_allclose(layer.P.grad, expected, rtol=1e-12)


TABLE = {
    layers.FixedPositions: lambda rng, width: layers.FixedPositions(rng.normal(size=(19, width)), "float64"),
    layers.LearnedPositions: lambda rng, width: layers.LearnedPositions(19, width, rng=rng, dtype="float64"),
}


@pytest.mark.parametrize("make", TABLE.values(), ids=lambda make: "")
def test_each_token_may_have_a_position_of_its_own_or_two(make):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    layer = make(rng, D_MODEL)
    table = layer.P.data if isinstance(layer, layers.LearnedPositions) else layer.PE.data
    at = rng.integers(0, 19, (B, T_Q, 1))
    y, _ = layer.forward(x, at=at)
    alike, _ = layer.forward(x, at=at[:1])
    for b, t in np.ndindex(B, T_Q):
        np.testing.assert_array_equal(y[b, t], x[b, t] + table[at[b, t, 0]])
        np.testing.assert_array_equal(alike[b, t], x[b, t] + table[at[0, t, 0]])
    layer = make(rng, D_MODEL // 2)
    table = layer.P.data if isinstance(layer, layers.LearnedPositions) else layer.PE.data
    both = rng.integers(0, 19, (B, T_Q, 2))
    y, _ = layer.forward(x, at=both)
    for b, t in np.ndindex(B, T_Q):
        first, second = both[b, t]
        np.testing.assert_array_equal(y[b, t], x[b, t] + np.concatenate([table[first], table[second]]))


def test_the_gradient_of_learned_positions_of_each_token_lands_where_they_were_read():
    rng = np.random.default_rng(5)
    layer = layers.LearnedPositions(19, D_MODEL // 2, dtype="float64")
    layer.P.grad = before = rng.normal(size=layer.P.shape)
    at = rng.integers(0, 5, (B, T_Q, 2))  # with repetitions
    x, dy = rng.normal(size=(2, B, T_Q, D_MODEL))
    expected = before.copy()
    for b, t in np.ndindex(B, T_Q):
        for part, position in enumerate(at[b, t]):
            expected[position] += dy[b, t].reshape(2, -1)[part]
    assert layer.backward(dy, layer.forward(x, at=at)[1]) is dy
    np.testing.assert_allclose(layer.P.grad, expected, rtol=1e-12)


def test_the_gradient_of_learned_positions_that_are_alike_in_all_sentences_adds_up():
    rng = np.random.default_rng(5)
    layer = layers.LearnedPositions(19, D_MODEL, dtype="float64")
    x, dy = rng.normal(size=(2, B, T_Q, D_MODEL))
    at = rng.integers(0, 3, (1, T_Q, 1))  # with repetitions
    layer.backward(dy, layer.forward(x, at=at)[1])
    expected = np.zeros(layer.P.shape)
    for b, t in np.ndindex(B, T_Q):
        expected[at[0, t, 0]] += dy[b, t]
    np.testing.assert_allclose(layer.P.grad, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (np.full((B, T_Q, 1), 19), "expected positions 0 … 18, got 19"),
        (np.full((B, T_Q, 1), -1), "expected positions 0 … 18, got -1"),
        (np.zeros((B, T_Q + 1, 1), int), "expected positions of shape"),
        (np.zeros((B + 1, T_Q, 1), int), "expected positions of shape"),
        (np.zeros((B, T_Q), int), "expected positions of shape"),
        (np.zeros((B, T_Q, 1, 2), int), "expected positions of shape"),
        (np.zeros((B, T_Q, 1)), "expected an array of integers"),
        (np.zeros((B, T_Q, 2), int), "features on the last axis"),
    ],
)
def test_positions_that_the_table_does_not_have_are_refused(at, message):
    for Positions in (layers.SinusoidalPositions, layers.LearnedPositions):
        with pytest.raises(mt.InputError, match=message):
            Positions(19, D_MODEL).forward(np.zeros((B, T_Q, D_MODEL)), at=at)
