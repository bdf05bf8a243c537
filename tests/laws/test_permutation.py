"""Law 3: without positions there is no order: permuting what is attended to permutes what comes out, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import ENCODERS, SIZES, blocks, both_norms, translations
from support import random_mask, randomise

from minitransformer.layers import MultiHeadAttention, ScaledDotProductAttention
from minitransformer.testing import assert_close, gradients, upstream
from minitransformer.testing.strategies import seeds


@pytest.mark.parametrize("name", ENCODERS)
@given(data=st.data())
def test_an_encoder_without_positions_does_not_know_the_order(name, data):
    """Outputs and dx are permuted as the inputs are; the parameters' gradients stay."""
    sizes, rng = data.draw(SIZES), np.random.default_rng(data.draw(seeds))
    block = randomise(data.draw(blocks(name, sizes)), rng)
    x = rng.normal(size=(sizes.B, sizes.T_k, sizes.d_model))
    mask = random_mask(rng, sizes.B, 1, 1, sizes.T_k)
    order = np.array(data.draw(st.permutations(range(sizes.T_k))))
    y, cache = block.forward(x, mask)
    y_permuted, cache_permuted = block.forward(x[:, order], mask[..., order])
    assert_close([y_permuted], [y[:, order]])
    dy = upstream(y, rng)
    dx, *grads = gradients(block, dy, cache)
    assert_close(gradients(block, dy[:, order], cache_permuted), [dx[:, order], *grads])


@both_norms
@given(data=st.data())
def test_with_positions_it_does(norm, data):
    """The law above would hold for a model that ignores its input; this one does not."""
    model, src_ids, tgt_in, _ = data.draw(translations(norm=norm))
    src_ids[0] = np.arange(1, src_ids.shape[1] + 1)  # no word twice: an exchange of two is one
    exchanged = src_ids.copy()
    exchanged[0, :2] = src_ids[0, 1::-1]
    before, after = model.forward(src_ids, tgt_in)[0], model.forward(exchanged, tgt_in)[0]
    assert abs(after[0] - before[0]).max() > 1e-6 * abs(before[0]).max()


@pytest.mark.parametrize("Attention", [ScaledDotProductAttention, MultiHeadAttention])
@given(sizes=SIZES, seed=seeds)
def test_the_order_of_keys_does_not_matter_and_that_of_queries_stays(Attention, sizes, seed):
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, d_k, d_v, d_model, *_ = sizes
    if Attention is MultiHeadAttention:
        layer = randomise(MultiHeadAttention(d_model, h, d_k, d_v, bias=True), rng)
        shapes = [(B, T_q, d_model), (B, T_k, d_model), (B, T_k, d_model)]
    else:
        layer = ScaledDotProductAttention()
        shapes = [(B, h, T_q, d_k), (B, h, T_k, d_k), (B, h, T_k, d_v)]
    Q, K, V = (rng.normal(size=axes) for axes in shapes)
    mask = random_mask(rng, B, 1, T_q, T_k)
    queries, keys = rng.permutation(T_q), rng.permutation(T_k)
    y, cache = layer.forward(Q, K, V, mask)
    dy = upstream(y, rng)
    dQ, dK, dV, *grads = gradients(layer, dy, cache)
    y_permuted, cache = layer.forward(
        Q[..., queries, :], K[..., keys, :], V[..., keys, :], mask[:, :, queries][..., keys]
    )
    assert_close([y_permuted], [y[..., queries, :]])
    expected = [dQ[..., queries, :], dK[..., keys, :], dV[..., keys, :], *grads]
    assert_close(gradients(layer, dy[..., queries, :], cache), expected)
