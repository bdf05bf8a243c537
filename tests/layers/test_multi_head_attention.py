"""§3.2.2: heads side by side, their widths, their biases, their masks. (Its laws: tests/laws.)"""

from __future__ import annotations

import numpy as np
import pytest
from attention_by_loops import attention_by_loops
from messages import message_of
from support import D_K, D_MODEL, D_V, T_K, T_Q, B, H, random_mask, randomise

import minitransformer as mt
from minitransformer import layers
from minitransformer.layers import (
    MultiHeadAttention,
)
from minitransformer.layers.multi_head_attention import merge_heads, split_heads


@pytest.mark.parametrize(
    ("widths", "shapes"),
    [({}, (9, 9)), ({"d_k": 2}, (6, 9)), ({"d_v": 5}, (9, 15)), ({"d_k": 2, "d_v": 5}, (6, 15))],
)
def test_each_width_of_a_head_may_be_given_without_the_other(widths, shapes):
    layer = layers.MultiHeadAttention(9, 3, **widths)
    assert (layer.W_Q.shape, layer.W_K.shape) == ((9, shapes[0]),) * 2
    assert (layer.W_V.shape, layer.W_O.shape) == ((9, shapes[1]), (shapes[1], 9))


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


def test_messages_of_widths_that_do_not_fit():
    for widths in ({}, {"d_k": 2}, {"d_v": 2}):
        message = message_of(mt.ConfigError, layers.MultiHeadAttention, 8, 3, **widths)
        assert message == "n_heads: expected a divisor of d_model=8, or d_k and d_v, got 3"


@pytest.mark.parametrize("bias", [False, True])
def test_multi_head_is_h_attentions_side_by_side(bias):
    rng = np.random.default_rng(1)
    layer = randomise(MultiHeadAttention(D_MODEL, H, D_K, D_V, bias=bias), rng)
    query, key, value = (rng.normal(size=(B, t, D_MODEL)) for t in (T_Q, T_K, T_K))
    mask = random_mask(rng, B, 1, T_Q, T_K)
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    heads = []
    for i in range(H):
        k, v = slice(i * D_K, (i + 1) * D_K), slice(i * D_V, (i + 1) * D_V)
        Q = query @ p["W_Q"][:, k] + (p["b_Q"][k] if bias else 0)
        K = key @ p["W_K"][:, k] + (p["b_K"][k] if bias else 0)
        V = value @ p["W_V"][:, v] + (p["b_V"][v] if bias else 0)
        heads.append(attention_by_loops(Q[:, None], K[:, None], V[:, None], mask)[:, 0])
    expected = np.concatenate(heads, -1) @ p["W_O"] + (p["b_O"] if bias else 0)
    y, _ = layer.forward(query, key, value, mask)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-13)


HINT = "; write mask[None, None] for (T_q, T_k), mask[:, None, None] for a row of keys for each sentence"


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.ones((B, 1, T_Q, T_K), int), "int64 of shape (2, 1, 5, 7)"),
        (np.zeros((B, 1, T_Q, T_K), np.float32), "float32 of shape (2, 1, 5, 7)"),
        (np.ones((T_Q, T_K)), "float64 of shape (5, 7)"),
        ([[True]], "[[True]]"),
        (np.ones((B, 1, T_K, T_Q), bool), f"bool of shape (2, 1, 7, 5){HINT}"),
        (np.ones((T_K, T_Q), bool), f"bool of shape (7, 5){HINT}"),
        (np.ones((B, T_K), bool), f"bool of shape (2, 7){HINT}"),
        (np.ones((H, T_Q, T_K), bool), f"bool of shape (3, 5, 7){HINT}"),
        (np.ones((B, T_Q, T_K), bool), f"bool of shape (2, 5, 7){HINT}"),
        (np.ones((1, T_K), bool), f"bool of shape (1, 7){HINT}"),
        (np.ones(T_K, bool), f"bool of shape (7,){HINT}"),
        (np.ones((), bool), f"bool of shape (){HINT}"),
        (np.ones((1, B, 1, T_Q, T_K), bool), f"bool of shape (1, 2, 1, 5, 7){HINT}"),
        (np.ones((1, 1, 1, T_Q, T_K), bool), f"bool of shape (1, 1, 1, 5, 7){HINT}"),
    ],
)
def test_a_mask_of_the_wrong_type_or_shape_is_refused(mask, got):
    rng = np.random.default_rng(4)
    layer = MultiHeadAttention(D_MODEL, H, D_K, D_V)
    query, key = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_K, D_MODEL))
    message = message_of(mt.InputError, layer.forward, query, key, key, mask)
    expected = "mask: expected booleans (True = may be attended to), each axis 1 or as in (B, h, T_q, T_k) = "
    assert message == f"{expected}(2, 3, 5, 7), got {got}"


@pytest.mark.parametrize("n", [2, 3, 5])
def test_two_axes_that_could_mean_two_things_are_refused(n):
    """With as many sentences as queries, (T_q, T_k) might as well be a row of keys for each sentence."""
    layer, x = MultiHeadAttention(D_MODEL, 2), np.random.default_rng(4).normal(size=(n, n, D_MODEL))
    message = message_of(mt.InputError, layer.forward, x, x, x, np.tri(n, dtype=bool))
    assert f"got bool of shape ({n}, {n}), which could mean two things here{HINT}" in message
    for mask in (np.tri(n, dtype=bool)[None, None], np.tri(n, dtype=bool)[:, None, None]):
        layer.forward(x, x, x, mask)
    layer.forward(x[:1], x[:1], x[:1], np.tri(n, dtype=bool))


def test_heads_split_and_merge_are_inverse():
    x = np.random.default_rng(5).normal(size=(B, T_Q, H * D_K))
    heads = split_heads(x, H)
    assert heads.shape == (B, H, T_Q, D_K) and (heads[1, 2, 3] == x[1, 3, 2 * D_K : 3 * D_K]).all()
    assert (merge_heads(heads) == x).all()


def test_heads_must_divide_the_model_unless_widths_are_given():
    with pytest.raises(mt.ConfigError, match="n_heads: expected a divisor of d_model=8"):
        MultiHeadAttention(8, 3)
    assert MultiHeadAttention(8, 3, 5, 2).W_O.shape == (6, 8)


def test_a_nan_reaches_the_gradient_of_every_parameter():
    """b_K's, too, which is 0 but for rounding: where nothing is known any more, it does not say that all is well."""
    rng = np.random.default_rng(6)
    layer = randomise(layers.MultiHeadAttention(D_MODEL, H, D_K, D_V, bias=True), rng)
    y, cache = layer.forward(*(rng.normal(size=(B, t, D_MODEL)) for t in (T_Q, T_K, T_K)))
    layer.backward(np.full_like(y, np.nan), cache)
    for name, p in layer.parameters().items():
        assert np.isnan(p.grad).all(), name
