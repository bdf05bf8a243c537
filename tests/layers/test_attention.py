"""Attention against the paper's formula written out with loops, and the masks. (Its laws: tests/laws.)"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import D_K, D_MODEL, D_V, T_K, T_Q, B, H, random_mask, randomise

import minitransformer as mt
from minitransformer.layers import (
    MultiHeadAttention,
    ScaledDotProductAttention,
    causal_mask,
    padding_mask,
    softmax,
)
from minitransformer.layers.multi_head_attention import merge_heads, split_heads


def attention_by_loops(Q, K, V, mask):
    """Equation 1, a query and a key at a time."""
    context = np.zeros((*Q.shape[:3], V.shape[-1]))
    for b, h, i in np.ndindex(*Q.shape[:3]):
        allowed = [j for j in range(K.shape[2]) if mask[b, 0, i, j]]
        scores = [math.exp(Q[b, h, i] @ K[b, h, j] / math.sqrt(Q.shape[-1])) for j in allowed]
        for j, score in zip(allowed, scores, strict=True):
            context[b, h, i] += score / sum(scores) * V[b, h, j]
    return context


@given(seed=st.integers(0, 2**32))
def test_scaled_dot_product_is_equation_1(seed):
    rng = np.random.default_rng(seed)
    Q, K, V = (
        rng.normal(size=(B, H, T_Q, D_K)),
        rng.normal(size=(B, H, T_K, D_K)),
        rng.normal(size=(B, H, T_K, D_V)),
    )
    mask = random_mask(rng, B, 1, T_Q, T_K)
    context, _ = ScaledDotProductAttention().forward(Q, K, V, mask)
    np.testing.assert_allclose(context, attention_by_loops(Q, K, V, mask), rtol=1e-12, atol=1e-14)


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


def test_masked_softmax_does_not_underflow_when_a_hidden_score_is_huge():
    scores, mask = np.array([[1e4, 1.0, 2.0]], np.float32), np.array([[False, True, True]])
    np.testing.assert_allclose(
        softmax(scores, mask)[0], [0, 1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-6
    )


def test_masks_of_the_paper():
    ids = np.array([[5, 3, 0], [4, 0, 0]])
    assert padding_mask(ids, 0).tolist() == [[[[True, True, False]]], [[[True, False, False]]]]
    assert causal_mask(ids).tolist() == [[[[True, False, False], [True, True, False], [True, True, True]]]]
    with pytest.raises(ValueError, match="read-only"):  # its rows share their numbers
        causal_mask(ids)[0, 0, 2, 1] = False


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((B, 1, T_Q, T_K), int),
        np.zeros((B, 1, T_Q, T_K), np.float32),
        np.ones((B, 1, T_K, T_Q), bool),
        np.ones((B, T_K), bool),
        np.ones((1, B, 1, T_Q, T_K), bool),
    ],
)
def test_a_mask_of_the_wrong_type_or_shape_is_refused(mask):
    rng = np.random.default_rng(4)
    layer = MultiHeadAttention(D_MODEL, H, D_K, D_V)
    query, key = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_K, D_MODEL))
    with pytest.raises(mt.InputError, match=r"mask: expected booleans .* \(2, 3, 5, 7\), got"):
        layer.forward(query, key, key, mask)


def test_heads_split_and_merge_are_inverse():
    x = np.random.default_rng(5).normal(size=(B, T_Q, H * D_K))
    heads = split_heads(x, H)
    assert heads.shape == (B, H, T_Q, D_K) and (heads[1, 2, 3] == x[1, 3, 2 * D_K : 3 * D_K]).all()
    assert (merge_heads(heads) == x).all()


def test_heads_must_divide_the_model_unless_widths_are_given():
    with pytest.raises(mt.ConfigError, match="n_heads: expected a divisor of d_model=8"):
        MultiHeadAttention(8, 3)
    assert MultiHeadAttention(8, 3, 5, 2).W_O.shape == (6, 8)
