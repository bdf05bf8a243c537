"""Law 4: softmax is a distribution over what is not masked, blind to shifts; over nothing, it is zero."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import SIZES
from support import random_mask, randomise

import minitransformer as mt
from minitransformer.layers import (
    MultiHeadAttention,
    ScaledDotProductAttention,
    log_softmax,
    softmax,
    softmax_backward,
)
from minitransformer.testing import assert_same, upstream
from minitransformer.testing.strategies import dtypes, masks, seeds

FINITE = st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=7)


def on_a_grid(rng, shape, steps, dtype=np.float64):
    """Multiples of 2^-10: their sums are exact, so that what is equal in theory is equal in every bit."""
    return (rng.integers(-steps, steps, shape) / 1024).astype(dtype)


# ---- shifts


@given(sizes=SIZES, seed=seeds, masked=st.booleans())
def test_softmax_does_not_change_when_all_scores_shift(sizes, seed, masked):
    """Each row by a number of its own, up to a million."""
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, *_ = sizes
    scores = on_a_grid(rng, (B, h, T_q, T_k), 2**12)
    shift = on_a_grid(rng, (B, h, T_q, 1), 2**30)
    mask = random_mask(rng, B, 1, T_q, T_k) if masked else None
    assert_same([softmax(scores + shift, mask)], [softmax(scores, mask)])
    assert_same([log_softmax(scores + shift)], [log_softmax(scores)])


@given(sizes=SIZES, seed=seeds, eps_ls=st.sampled_from([0.0, 0.1, 0.4]))
def test_the_loss_does_not_change_when_all_logits_of_a_position_shift(sizes, seed, eps_ls):
    rng = np.random.default_rng(seed)
    B, T, V, *_ = sizes
    logits, shift = on_a_grid(rng, (B, T, V), 2**12), on_a_grid(rng, (B, T, 1), 2**30)
    tgt_out = rng.integers(0, V, (B, T))
    tgt_out[0, 0] = 1
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls)
    (loss, cache), (shifted, cache_shifted) = (loss_fn.forward(z, tgt_out) for z in (logits, logits + shift))
    assert loss == shifted
    assert_same([loss_fn.backward(cache_shifted)], [loss_fn.backward(cache)])


@given(sizes=SIZES, seed=seeds, data=st.data())
def test_the_gradient_of_scores_sums_to_zero(sizes, seed, data):
    """The same law, transposed: no gradient along a shift; and none at all where the mask is False."""
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, *_ = sizes
    mask = data.draw(masks(B, T_q, T_k))
    weights = softmax(rng.normal(size=(B, h, T_q, T_k)), mask)
    dscores = softmax_backward(upstream(weights, rng), weights)
    assert abs(dscores.sum(-1)).max() < 1e-13
    assert (dscores[np.broadcast_to(~mask, dscores.shape)] == 0).all()
    several = np.broadcast_to(mask.sum(-1) > 1, dscores.shape[:-1])  # a single key leaves nothing to decide
    assert (abs(dscores).max(-1)[several] > 0).all()


# ---- rows


@given(sizes=SIZES, seed=seeds, dtype=dtypes, size=st.sampled_from([1.0, 30.0, 1e4]), data=st.data())
def test_weights_are_zero_exactly_where_the_mask_is_false_and_rows_sum_to_one(sizes, seed, dtype, size, data):
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, *_ = sizes
    mask = data.draw(masks(B, T_q, T_k))
    weights = softmax((size * rng.normal(size=(B, h, T_q, T_k))).astype(dtype), mask)
    assert weights.dtype == dtype and (weights >= 0).all()
    assert (weights[np.broadcast_to(~mask, weights.shape)] == 0).all()
    if size == 1:  # large differences underflow to 0, as they should
        assert (weights[np.broadcast_to(mask, weights.shape)] > 0).all()
    something = np.broadcast_to(mask.any(-1), weights.shape[:-1])
    np.testing.assert_allclose(weights.sum(-1), something, atol=4 * T_k * np.finfo(dtype).eps)


@given(scores=FINITE, dtype=dtypes)
def test_softmax_is_finite_and_sums_to_one_for_any_finite_scores(scores, dtype):
    weights = softmax(np.array(scores, dtype))
    assert weights.dtype == dtype and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


@given(logits=FINITE, dtype=dtypes)
def test_log_softmax_is_finite_for_any_finite_logits(logits, dtype):
    log_p = log_softmax(np.array(logits, dtype))
    assert np.isfinite(log_p).all() and log_p.dtype == dtype
    np.testing.assert_allclose(np.exp(log_p.astype(float)).sum(), 1, rtol=1e-5)


# ---- nothing to attend to


@pytest.mark.parametrize("Attention", [ScaledDotProductAttention, MultiHeadAttention])
@given(sizes=SIZES, seed=seeds)
def test_a_query_that_may_attend_to_nothing_gets_zeros_and_finite_gradients(Attention, sizes, seed):
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, d_k, d_v, d_model, *_ = sizes
    mask = random_mask(rng, B, 1, T_q, T_k)
    mask[..., 0], empty = True, (1, rng.integers(T_q))
    mask[empty[0], 0, empty[1]] = False
    if Attention is MultiHeadAttention:
        layer = randomise(MultiHeadAttention(d_model, h, d_k, d_v), rng)
        axes = [(B, T_q, d_model), (B, T_k, d_model), (B, T_k, d_model)]
    else:
        layer = ScaledDotProductAttention()
        axes = [(B, h, T_q, d_k), (B, h, T_k, d_k), (B, h, T_k, d_v)]
    y, cache = layer.forward(*(rng.normal(size=size) for size in axes), mask)
    dQ, dK, dV = layer.backward(upstream(y, rng), cache)
    is_empty = np.zeros((B, T_q), bool)
    is_empty[empty] = True
    for z in (y, dQ):
        by_query = z if z.ndim == 3 else z.swapaxes(1, 2)  # (B, T_q, ...)
        assert (by_query[is_empty] == 0).all()
        assert np.isfinite(z).all() and (by_query[~is_empty] != 0).any()
    assert np.isfinite(dK).all() and np.isfinite(dV).all()
