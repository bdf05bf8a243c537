"""Attention in blocks is scaled dot-product attention: the same numbers, for any blocks, masks, dropout and scores.

The plain version is compared with equation 1 written with loops (test_attention.py); this one against the plain
version. The gradient checks take it a second time, by itself (tests/checks).
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import D_K, D_V, T_K, T_Q, B, H, random_mask

from minitransformer.layers import (
    AttentionInBlocks,
    MultiHeadAttention,
    ScaledDotProductAttention,
    attention_in_blocks,
    causal_mask,
    softmax,
)
from minitransformer.layers.attention_in_blocks import blocks, n_keys, softmax_without_maximum
from minitransformer.layers.dropout import DropoutCache
from minitransformer.parts import on_threads

SEEDS = st.integers(0, 2**32)
ROWS = st.sampled_from([1, 2, 3, T_Q, 2 * T_Q, 2 * H * T_Q, None])  # to the last, all in one block
MASKS = st.sampled_from(["none", "random", "padding", "causal", "per head", "nothing"])


def heads(rng, size=1.0, dtype="float64"):
    shapes = (B, H, T_Q, D_K), (B, H, T_K, D_K), (B, H, T_K, D_V)
    Q, K, V = (rng.normal(size=shape).astype(dtype) for shape in shapes)
    return Q * np.asarray(size, dtype), K, V


def mask_of(kind, rng):
    """Masks of all the shapes there are; random ones have a query that may attend to nothing."""
    if kind == "padding":
        return (np.arange(T_K) < rng.integers(1, T_K + 1, (B, 1)))[:, None, None]
    if kind == "causal":
        return np.tri(T_Q, T_K, rng.integers(-1, 3), dtype=bool)
    if kind == "nothing":
        return np.zeros((B, 1, 1, 1), bool)
    return {
        "none": None,
        "random": random_mask(rng, B, 1, T_Q, T_K),
        "per head": rng.random((1, H, T_Q, T_K)) > 0.5,
    }[kind]


def assert_close(found, expected, dtype="float64"):
    """To rounding: relative to the largest number there is."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype == dtype and a.shape == b.shape
        assert abs(a - b).max() <= 64 * np.finfo(dtype).eps * abs(b).max()


@given(seed=SEEDS, rows=ROWS, kind=MASKS, dtype=st.sampled_from(["float32", "float64"]))
def test_it_is_the_plain_version(seed, rows, kind, dtype):
    rng = np.random.default_rng(seed)
    Q, K, V = heads(rng, 1.0, dtype)
    mask = mask_of(kind, rng)
    plain, in_blocks = ScaledDotProductAttention(), AttentionInBlocks(rows=rows)
    (expected, cache_plain), (context, cache) = (a.forward(Q, K, V, mask) for a in (plain, in_blocks))
    dcontext = rng.normal(size=context.shape).astype(dtype)
    expected = [expected, *plain.backward(dcontext, cache_plain)]
    assert_close([context, *in_blocks.backward(dcontext, cache)], expected, dtype)
    np.testing.assert_allclose(
        cache.all_weights(), cache_plain.weights, rtol=1e3 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps
    )


@given(seed=SEEDS, rows=ROWS, kind=MASKS)
def test_with_dropout_too(seed, rows, kind):
    """V = 1 makes the context the dropped weights themselves; so known, they are given to the plain version."""
    rng = np.random.default_rng(seed)
    Q, K, _ = heads(rng)
    V = np.broadcast_to(np.eye(T_K), (B, H, T_K, T_K))
    mask = mask_of(kind, rng)
    plain, in_blocks = ScaledDotProductAttention(0.25), AttentionInBlocks(0.25, rows)
    dropped, cache = in_blocks.forward(Q, K, V, mask, np.random.default_rng(seed))
    _, cache_plain = plain.forward(Q, K, V, mask)
    weights = cache_plain.weights
    kept = dropped != 0
    np.testing.assert_allclose(dropped, np.where(kept, weights / 0.75, 0), rtol=1e-12)
    if kind == "none":
        assert 0.5 < kept.mean() < 0.95  # 630 decisions
    cache_plain = cache_plain._replace(dropout=DropoutCache(kept), dropped=dropped)
    dcontext = rng.normal(size=dropped.shape)
    assert_close(in_blocks.backward(dcontext, cache), plain.backward(dcontext, cache_plain))


@given(
    seed=SEEDS,
    exponent=st.floats(-30, 30),
    rows=ROWS,
    kind=MASKS,
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_scores_of_any_size(seed, exponent, rows, kind, dtype):
    """Tiny, saturated, huge; in single rows or in all: what comes out is finite, and the plain version's.

    dQ and dK are compared with the rounding of what they are differences of: see the next test.
    """
    rng = np.random.default_rng(seed)
    sizes = 10.0**exponent * rng.choice([1, 1e-30], (B, H, T_Q, 1))
    Q, K, V = heads(rng, sizes, dtype)
    mask = mask_of(kind, rng)
    plain, in_blocks = ScaledDotProductAttention(), AttentionInBlocks(rows=rows)
    (expected, cache_plain), (context, cache) = (a.forward(Q, K, V, mask) for a in (plain, in_blocks))
    eps = np.finfo(dtype).eps
    largest_score = max(1, float(abs(cache.Q @ K.swapaxes(-1, -2)).max()))
    if largest_score * eps < 1e-2:  # above, a score's own rounding decides which key wins
        tolerance = 32 * eps * largest_score
        np.testing.assert_allclose(context, expected, rtol=0, atol=tolerance * abs(V).max())
        dcontext = rng.normal(size=context.shape).astype(dtype)
        for found, right, scale in zip(
            in_blocks.backward(dcontext, cache), plain.backward(dcontext, cache_plain), (K, Q, V), strict=True
        ):
            assert np.isfinite(found).all()
            bound = tolerance * T_K * abs(dcontext).sum() * abs(V).max() * max(1, float(abs(scale).max()))
            assert abs(found - right).max() <= bound
    assert np.isfinite(context).all() and abs(context).max() <= abs(V).max() * (1 + 32 * eps)


@given(seed=SEEDS, kind=MASKS, size=st.floats(0.1, 200), dtype=st.sampled_from(["float32", "float64"]))
def test_without_its_maximum_a_safe_row_is_the_softmax(seed, kind, size, dtype):
    """Each entry to a few roundings of its score; a row that is not safe says so."""
    rng = np.random.default_rng(seed)
    scores = (size * rng.uniform(-1, 1, (B, H, T_Q, T_K))).astype(dtype)
    mask = mask_of(kind, rng)
    expected = softmax(scores, mask)
    allowed = np.broadcast_to(True if mask is None else mask, scores.shape)
    top = np.where(allowed, scores, -np.inf).max(-1, keepdims=True)
    weights, unsafe = softmax_without_maximum(scores.copy(), mask)
    assert unsafe[abs(top) > 28].all() and not unsafe[abs(top) < 25].any()
    safe = np.broadcast_to(~unsafe, scores.shape)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(weights[safe], expected[safe], rtol=8 * eps * (size + T_K), atol=1e-25)


def test_other_rows_change_no_bit():
    """A saturated query is done by itself: the others' numbers do not depend on it."""
    rng = np.random.default_rng(1)
    Q, K, V = heads(rng, dtype="float32")
    attention = AttentionInBlocks()
    context, _ = attention.forward(Q, K, V)
    Q[1, 0, 2] *= 1e6
    saturated, _ = attention.forward(Q, K, V)
    same = np.ones(Q.shape[:3], bool)
    same[1, 0, 2] = False
    np.testing.assert_array_equal(saturated[same], context[same])
    assert (saturated[~same] != context[~same]).any()


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_weights_are_kept_only_where_one_block_is_all(n_blocks):
    rng = np.random.default_rng(n_blocks)
    Q, K, V = (x[:1, :1] for x in heads(rng))
    layer, plain = AttentionInBlocks(rows=-(-T_Q // n_blocks)), ScaledDotProductAttention()
    dcontext = rng.normal(size=(1, 1, T_Q, D_V))
    context, cache = layer.forward(Q, K, V)
    expected, plain_cache = plain.forward(Q, K, V)
    assert len(blocks(Q, K, layer.rows)) == n_blocks
    assert (cache.weights is None) == (n_blocks > 1)
    assert_close(
        [context, *layer.backward(dcontext, cache)], [expected, *plain.backward(dcontext, plain_cache)]
    )


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_cache_holds_what_backward_needs_and_nothing_else(dropout):
    """Where blocks are computed again, the seeds of their dropout; elsewhere the weights, and what was dropped."""
    Q, K, V = heads(np.random.default_rng(3))
    mask = (np.arange(T_K) < T_K - 2)[None, None, None]
    for rows in (1, None):
        _, cache = AttentionInBlocks(dropout, rows).forward(Q, K, V, mask, np.random.default_rng(4))
        if rows is None:
            assert cache.weights.shape == (B, H, T_Q, T_K)  # the last two columns are 0
            assert cache.seeds is None
            assert (cache.dropout.kept is None) == (dropout == 0)
        else:
            n_seeds = len(blocks(Q, K, rows)) if dropout else 0
            assert len(set(cache.seeds or ())) == n_seeds
            assert cache.weights is None and cache.dropout == DropoutCache(None)


@pytest.mark.parametrize("rows", [1, 2, T_Q, H * T_Q])
def test_threads_change_no_bit(rows):
    """Of the context and of the gradients, with dropout, and where the blocks of one head add into the same keys."""
    Q, K, V = heads(np.random.default_rng(5))
    layer, mask = AttentionInBlocks(0.25, rows), np.tri(T_Q, T_K, 1, dtype=bool)
    dcontext = np.random.default_rng(6).normal(size=(B, H, T_Q, D_V))

    def run():
        context, cache = layer.forward(Q, K, V, mask, np.random.default_rng(7))
        return context, *layer.backward(dcontext, cache)

    expected = run()
    for n in (1, 2, 8):
        with on_threads(n):
            for x, same in zip(run(), expected, strict=True):
                np.testing.assert_array_equal(x, same)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_what_lies_at_keys_that_a_block_leaves_out_does_not_matter(rows):
    """Even where it is no number: 0 times infinity would be none either."""
    rng = np.random.default_rng(7)
    Q, K, V = (x[:1, :1] for x in heads(rng))
    seen = T_K - 2
    mask = (np.arange(T_K) < seen)[None, None, None]
    layer = AttentionInBlocks(rows=rows)
    expected, _ = layer.forward(Q, K[:, :, :seen], V[:, :, :seen])
    K[:, :, seen:] = V[:, :, seen:] = np.inf
    np.testing.assert_array_equal(layer.forward(Q, K, V, mask)[0], expected)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 10, 30, 1000, None])
@pytest.mark.parametrize(("size", "T_k"), [((2, 3, 5), 7), ((1, 1, 1000), 1024), ((3, 2, 400), 3000)])
def test_blocks_cover_every_query_once_and_are_not_too_large(rows, size, T_k):
    seen = np.zeros(size, int)
    Q, K = np.empty((*size, 1)), np.empty((*size[:2], T_k, 1))
    for index in blocks(Q, K, rows):
        seen[index] += 1
        n_rows = np.prod([i.stop - i.start for i in index])
        assert n_rows <= (rows or max(attention_in_blocks.BLOCK // T_k, attention_in_blocks.QUERIES))
    assert (seen == 1).all()


def test_keys_that_nobody_may_attend_to_are_left_out():
    assert n_keys(None, 7) == 7
    assert n_keys(np.ones((1, 1, 5, 1), bool), 7) == 7
    assert n_keys(np.tri(3, 7, 2, dtype=bool)[None, None], 7) == 5
    assert n_keys(np.tri(1, 2, dtype=bool)[None, None], 2) == 1
    assert (
        n_keys(np.zeros((2, 1, 3, 7), bool), 7) == 1
    )  # a product with no column at all would be a special case
    mask = np.zeros((2, 1, 3, 7), bool)
    mask[1, 0, 2, 3] = True
    assert n_keys(mask, 7) == 4


def test_memory_does_not_grow_with_the_square_of_the_length():
    """Forward and backward: from one length to the double, twice the memory, where the scores take four times it."""

    def peak(T):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(1, T, 8)).astype("float32")
        layer = MultiHeadAttention(8, 2, dropout=0.1)
        mask = causal_mask(np.zeros((1, T), int))
        tracemalloc.start()
        y, cache = layer.forward(x, x, x, mask, rng)
        layer.backward(y, cache)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(4096) < 2.2 * peak(2048)
    assert peak(4096) < 2 * 4096**2 * 4 / 5  # the scores of both heads


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-17, reason="no longer numbers than float64 here")
@pytest.mark.parametrize("size", [1, 4, 12, 20])
def test_a_saturated_softmax_costs_no_digits_that_the_plain_version_has(size):
    """Against both in longer numbers. A gradient that saturation made vanish, 10^-3 of the others at size 20, is a
    difference of numbers as large as the others: its own relative error is large in either version.
    """
    rng = np.random.default_rng(1)
    Q, K, V = heads(rng, size)
    dcontext = rng.normal(size=(B, H, T_Q, D_V))

    def gradients(attention, dtype):
        context, cache = attention.forward(*(x.astype(dtype) for x in (Q, K, V)))
        return [context, *attention.backward(dcontext.astype(dtype), cache)]

    exact = gradients(ScaledDotProductAttention(), np.longdouble)
    versions = ScaledDotProductAttention(), AttentionInBlocks(), AttentionInBlocks(rows=2)
    plain, *others = [
        [
            np.linalg.norm((a - b).astype(float)) / np.linalg.norm(b.astype(float))
            for a, b in zip(found, exact, strict=True)
        ]
        for found in (gradients(version, np.float64) for version in versions)
    ]
    for errors in others:
        for error, of_plain in zip(errors, plain, strict=True):
            assert error < 2 * of_plain + 1e-15 and error < 1e-13
