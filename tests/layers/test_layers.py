"""What holds for layers of every kind: their first weights, draw by draw; the defaults of their arguments."""

from __future__ import annotations

import numpy as np
import pytest
from first_weights import assert_first_weights
from support import D_FF, D_K, D_MODEL, D_V, T_K, T_Q, V_SRC, B, H

from minitransformer import layers

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
