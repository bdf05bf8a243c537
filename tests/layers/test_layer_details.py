"""Layers in detail: their first weights, draw by draw; the defaults of their arguments; every message, whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from first_weights import assert_first_weights
from support import D_FF, D_K, D_MODEL, D_V, T_K, T_Q, V_SRC, B, H, randomise

import minitransformer as mt
from minitransformer import layers
from minitransformer.validation import check_mask

# ---- the first weights


L = layers
DRAWN = {
    "Linear": lambda **how: L.Linear(5, 3, **how),
    "FeedForward": lambda **how: L.FeedForward(D_MODEL, D_FF, **how),
    "MultiHeadAttention": lambda **how: L.MultiHeadAttention(D_MODEL, H, D_K, D_V, bias=True, **how),
    "Embedding": lambda **how: L.Embedding(V_SRC, D_MODEL, **how),
    "OutputProjection": lambda **how: L.OutputProjection(V_SRC, D_MODEL, **how),
    "LearnedPositions": lambda **how: L.LearnedPositions(19, D_MODEL, **how),
}
NOT_DRAWN = {
    "LayerNorm": lambda **how: L.LayerNorm(D_MODEL, **how),
    "AddNorm": lambda **how: L.AddNorm(D_MODEL, **how),
    "RMSNorm": lambda **how: L.RMSNorm(D_MODEL, **how),
    "BatchNorm": lambda **how: L.BatchNorm(D_MODEL, **how),
    "InstanceNorm": lambda **how: L.InstanceNorm(D_MODEL, **how),
    "GroupNorm": lambda **how: L.GroupNorm(D_MODEL, 2, **how),
}


@pytest.mark.parametrize("name", [*DRAWN, *NOT_DRAWN])
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_the_seed_the_shapes_and_the_dtype_decide_the_first_weights(name, dtype):
    how = {"rng": 3} if name in DRAWN else {}
    if dtype is not None:
        how["dtype"] = dtype
    assert_first_weights({**DRAWN, **NOT_DRAWN}[name](**how), 3, dtype or "float32")


@pytest.mark.parametrize("name", DRAWN)
def test_without_a_seed_no_two_layers_are_alike(name):
    a, b = (DRAWN[name]().state_dict() for _ in range(2))
    for n in a:
        assert (a[n] != b[n]).all() or n.rpartition(".")[2].startswith("b")


@pytest.mark.parametrize(("dtype", "expected"), [({}, "float32"), ({"dtype": "float64"}, "float64")])
def test_sinusoids_are_made_in_float64_and_stored_in_the_layers_dtype(dtype, expected):
    PE = layers.sinusoids(19, D_MODEL)
    stored = layers.SinusoidalPositions(19, D_MODEL, **dtype).PE.data
    assert PE.dtype == np.float64 and stored.dtype == expected
    np.testing.assert_array_equal(stored, PE.astype(expected))
    x = np.zeros((B, T_Q, D_MODEL), expected)
    assert layers.SinusoidalPositions(19, D_MODEL, **dtype).forward(x)[0].dtype == expected


def test_a_tied_matrix_is_taken_as_it_is():
    E = mt.Parameter(np.ones((V_SRC, D_MODEL)))
    assert layers.Embedding(V_SRC, D_MODEL, E=E).E is E
    assert layers.OutputProjection(V_SRC, D_MODEL, E=E).E is E


# ---- what stands in an argument's place when it is left out


def test_dropout_is_off_by_default_and_where_it_is_on_draws_from_the_generator():
    rng = np.random.default_rng(1)
    x, s = rng.normal(size=(2, B, T_Q, D_MODEL))
    key = rng.normal(size=(B, T_K, D_MODEL))
    heads = [rng.normal(size=(B, H, T, D_K)) for T in (T_Q, T_K, T_K)]
    for make, inputs in (
        (lambda *p: L.AddNorm(D_MODEL, *p), (x, s)),
        (lambda *p: L.FeedForward(D_MODEL, D_FF, *p, rng=2), (x,)),
        (lambda *p: L.ScaledDotProductAttention(*p), heads),
        (lambda *p: L.MultiHeadAttention(D_MODEL, H, D_K, D_V, *p, rng=2), (x, key, key)),
    ):
        evaluated = make().forward(*inputs)[0]
        np.testing.assert_array_equal(make().forward(*inputs, rng=np.random.default_rng(5))[0], evaluated)
        np.testing.assert_array_equal(make(0.5).forward(*inputs)[0], evaluated)
        assert (make(0.5).forward(*inputs, rng=np.random.default_rng(5))[0] != evaluated).any()


def test_norms_default_to_an_eps_of_1e_minus_5():
    x = np.zeros((1, 2))
    x[0, 0] = 0.002  # mean 0.001, variance 1e-6: eps decides the result
    expected = 1e-3 / math.sqrt(1e-6 + 1e-5)
    zero = np.zeros_like(x)
    assert layers.LayerNorm(2, dtype="float64").forward(x)[0][0, 0] == pytest.approx(expected, rel=1e-12)
    assert layers.AddNorm(2, dtype="float64").forward(x, zero)[0][0, 0] == pytest.approx(expected, rel=1e-12)


def test_linear_has_a_bias_and_attention_has_none_unless_asked_for():
    assert list(layers.Linear(3, 2).parameters()) == ["W", "b"]
    assert list(layers.Linear(3, 2, bias=False).parameters()) == ["W"]
    W = ["W_Q", "W_K", "W_V", "W_O"]
    assert list(layers.MultiHeadAttention(6, 2).parameters()) == W
    assert list(layers.MultiHeadAttention(6, 2, bias=True).parameters()) == [*W, "b_Q", "b_K", "b_V", "b_O"]


@pytest.mark.parametrize(
    ("widths", "shapes"),
    [({}, (9, 9)), ({"d_k": 2}, (6, 9)), ({"d_v": 5}, (9, 15)), ({"d_k": 2, "d_v": 5}, (6, 15))],
)
def test_each_width_of_a_head_may_be_given_without_the_other(widths, shapes):
    layer = layers.MultiHeadAttention(9, 3, **widths)
    assert (layer.W_Q.shape, layer.W_K.shape) == ((9, shapes[0]),) * 2
    assert (layer.W_V.shape, layer.W_O.shape) == ((9, shapes[1]), (shapes[1], 9))


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
    assert layer.forward(np.zeros((2, 3, 4)), start=2)[0].shape == (2, 3, 4)
    with pytest.raises(mt.InputError, match=rf"up to 5 \(max_len\), got {T} from position {start} on"):
        layer.forward(np.zeros((2, T, 4)), start=start)


def test_the_gradient_of_learned_positions_lands_where_they_were_read():
    layer = layers.LearnedPositions(19, D_MODEL, dtype="float64")
    rng = np.random.default_rng(3)
    before = rng.normal(size=(19, D_MODEL))
    layer.P.grad = before
    x = rng.normal(size=(B, T_Q, D_MODEL))
    _, cache = layer.forward(x, start=4)
    dy = rng.normal(size=x.shape)
    assert layer.backward(dy, cache) is dy
    expected = before.copy()
    expected[4 : 4 + T_Q] += dy.sum(0)
    np.testing.assert_allclose(layer.P.grad, expected, rtol=1e-12)


def test_nothing_is_copied_where_nothing_is_dropped():
    x = np.ones((2, 3))
    for layer, rng in ((layers.Dropout(0.5), None), (layers.Dropout(0.0), np.random.default_rng(1))):
        y, cache = layer.forward(x, rng)
        assert y is x and cache.kept is None and layer.backward(x, cache) is x


def test_keys_and_values_have_their_biases():
    """Seen here alone: b_K moves all scores of a query alike, which the softmax does not notice."""
    rng = np.random.default_rng(6)
    layer = randomise(layers.MultiHeadAttention(D_MODEL, H, D_K, D_V, bias=True), rng)
    key, value = rng.normal(size=(2, B, T_K, D_MODEL))
    K, V = layer.keys_and_values(key, value)
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    for heads, expected in ((K, key @ p["W_K"] + p["b_K"]), (V, value @ p["W_V"] + p["b_V"])):
        side_by_side = heads.swapaxes(1, 2).reshape(expected.shape)
        np.testing.assert_allclose(side_by_side, expected, rtol=1e-12, atol=1e-13)


# ---- masks that fit, and messages


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_softmax_under_a_mask_is_stable_for_scores_of_any_size(size):
    scores = size + np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 7.0]]) * (1 if abs(size) < 1e30 else 1e29)
    mask = np.array([[False, True, True], [False, False, False]])
    weights = layers.softmax(scores, mask)
    larger = 1 / (1 + math.exp(-1)) if abs(size) < 1e30 else 1.0
    np.testing.assert_allclose(weights, [[0, 1 - larger, larger], [0, 0, 0]], rtol=1e-12)


@pytest.mark.parametrize(
    "shape", [(7,), (1,), (), (5, 7), (5, 1), (1, 7), (1, 5, 7), (3, 5, 7), (2, 1, 1, 7)]
)
def test_a_mask_may_have_any_shape_that_broadcasts(shape):
    rng = np.random.default_rng(4)
    Q, K, V = (rng.normal(size=(B, H, T, d)) for T, d in ((T_Q, D_K), (T_K, D_K), (T_K, D_V)))
    mask = rng.random(shape) > 0.4
    whole = np.broadcast_to(mask, (B, H, T_Q, T_K))
    attention = layers.ScaledDotProductAttention()
    np.testing.assert_array_equal(attention.forward(Q, K, V, mask)[0], attention.forward(Q, K, V, whole)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_softmax_of_the_largest_numbers_there_are_is_finite(dtype):
    largest = np.finfo(dtype).max
    log_p = layers.log_softmax(np.array([[largest, -largest, largest], [-largest, 0, largest]], dtype))
    np.testing.assert_allclose(log_p[0, ::2], -math.log(2), rtol=1e-6)
    assert (
        log_p[1, 2] == 0 and np.isfinite(log_p).all() and (log_p[[0, 1, 1], [1, 0, 1]] < -largest / 10).all()
    )
    within = np.array([0, -0.49 * largest], dtype)  # up to half of the range nothing is cut off
    np.testing.assert_array_equal(layers.log_softmax(within), within)


def message_of(error, call, *inputs, **options):
    with pytest.raises(error) as raised:
        call(*inputs, **options)
    return str(raised.value)


def test_messages_of_masks():
    expected = "mask: expected booleans (True = may be attended to) that broadcast to (B, h, T_q, T_k) = "
    for mask, got in (
        (np.ones((5, 7)), "float64 of shape (5, 7)"),
        (np.ones((7, 5), bool), "bool of shape (7, 5)"),
        (np.ones((1, 1, 1, 5, 7), bool), "bool of shape (1, 1, 1, 5, 7)"),
    ):
        assert (
            message_of(mt.InputError, check_mask, mask, (2, 3, 5, 7)) == f"{expected}(2, 3, 5, 7), got {got}"
        )
    message = message_of(mt.InputError, check_mask, [[True]], (2, 3, 5, 7))
    assert message == "mask: expected an array of booleans, got list"


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan])
def test_messages_of_dropout(p):
    message = message_of(mt.ConfigError, layers.Dropout, p)
    assert message == f"dropout: expected a probability 0 <= p < 1, got {p}"


def test_messages_of_widths_that_do_not_fit():
    message = message_of(mt.ConfigError, layers.sinusoids, 5, 7)
    assert message == "d_model: expected an even number for sinusoidal positions, got 7"
    for widths in ({}, {"d_k": 2}, {"d_v": 2}):
        message = message_of(mt.ConfigError, layers.MultiHeadAttention, 8, 3, **widths)
        assert message == "n_heads: expected a divisor of d_model=8, or d_k and d_v, got 3"
