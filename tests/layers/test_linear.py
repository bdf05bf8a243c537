"""The linear map, against the sum written out. (What all layers keep to: tests/laws.)"""

from __future__ import annotations

import numpy as np
from support import D_FF, D_MODEL, T_Q, B, randomise

from minitransformer import layers


def test_linear_is_x_times_w_plus_b():
    rng = np.random.default_rng(0)
    layer = randomise(layers.Linear(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    y, _ = layer.forward(x)
    expected = [[[sum(x[b, t, i] * layer.W.data[i, j] for i in range(D_MODEL)) + layer.b.data[j]
                  for j in range(D_FF)] for t in range(T_Q)] for b in range(B)]  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_linear_has_a_bias_and_attention_has_none_unless_asked_for():
    assert list(layers.Linear(3, 2).parameters()) == ["W", "b"]
    assert list(layers.Linear(3, 2, bias=False).parameters()) == ["W"]
    W = ["W_Q", "W_K", "W_V", "W_O"]
    assert list(layers.MultiHeadAttention(6, 2).parameters()) == W
    assert list(layers.MultiHeadAttention(6, 2, bias=True).parameters()) == [*W, "b_Q", "b_K", "b_V", "b_O"]
