"""§3.2.1: attention against equation 1 written out with loops. (Its laws: tests/laws.)"""

from __future__ import annotations

import numpy as np
import pytest
from attention_by_loops import attention_by_loops
from hypothesis import given
from hypothesis import strategies as st
from support import D_K, D_V, T_K, T_Q, B, H, random_mask

from minitransformer import layers
from minitransformer.layers import (
    ScaledDotProductAttention,
)


@pytest.mark.parametrize(
    "shape", [(5, 7), (1, 1, 5, 7), (1, 3, 5, 7), (2, 1, 1, 7), (2, 3, 5, 1), (1, 1, 1, 1), (2, 3, 5, 7)]
)
def test_a_mask_has_four_axes_or_those_of_queries_and_keys(shape):
    rng = np.random.default_rng(4)
    Q, K, V = (rng.normal(size=(B, H, T, d)) for T, d in ((T_Q, D_K), (T_K, D_K), (T_K, D_V)))
    mask = rng.random(shape) > 0.4
    whole = np.broadcast_to(mask, (B, H, T_Q, T_K))
    attention = layers.ScaledDotProductAttention()
    np.testing.assert_array_equal(attention.forward(Q, K, V, mask)[0], attention.forward(Q, K, V, whole)[0])


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


@pytest.mark.parametrize("axes", [(), (3,), (2, 2, 3)])
def test_there_may_be_fewer_axes_than_four_and_more(axes):
    """One head, the heads of one sentence, several sets of sentences: each as by itself, forward and backward."""
    rng = np.random.default_rng(5)
    Q, K, V, dcontext = (rng.normal(size=(*axes, T, d)) for T, d in ((3, 4), (5, 4), (5, 4), (3, 4)))
    attention = ScaledDotProductAttention()

    def everything(Q, K, V, dcontext):
        context, cache = attention.forward(Q, K, V)
        return [context, *attention.backward(dcontext, cache)]

    found = everything(Q, K, V, dcontext)
    for i in np.ndindex(axes):
        expected = everything(*(x[i][None, None] for x in (Q, K, V, dcontext)))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a[i], b[0, 0], rtol=1e-12, atol=1e-14)
