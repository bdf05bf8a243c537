"""The other layers of section 3: values against the paper's formulas, and the contract they all keep."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from gradient_cases import CASES, Case
from hypothesis import given
from hypothesis import strategies as st
from support import D_FF, D_MODEL, T_Q, V_SRC, B, random_ids, randomise

import minitransformer as mt
from minitransformer import layers
from minitransformer.layers import log_softmax

ALL = [
    pytest.param(case, id=f"{cls.__name__}-{i}")
    for cls, cases in CASES.items()
    for i, case in enumerate(cases)
]


def arrays(tree):
    """All arrays in nested tuples, lists and dicts."""
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, tuple | list):
        for node in tree:
            yield from arrays(node)


# ---- values


def test_linear_is_x_times_w_plus_b():
    rng = np.random.default_rng(0)
    layer = randomise(layers.Linear(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    y, _ = layer.forward(x)
    expected = [[[sum(x[b, t, i] * layer.W.data[i, j] for i in range(D_MODEL)) + layer.b.data[j]
                  for j in range(D_FF)] for t in range(T_Q)] for b in range(B)]  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=1e-12)


def test_feed_forward_is_equation_2():
    rng = np.random.default_rng(1)
    layer = randomise(layers.FeedForward(D_MODEL, D_FF), rng)
    x = rng.normal(size=(B, T_Q, D_MODEL))
    p = {name: parameter.data for name, parameter in layer.parameters().items()}
    expected = np.maximum(0, x @ p["W_1"] + p["b_1"]) @ p["W_2"] + p["b_2"]
    np.testing.assert_allclose(layer.forward(x)[0], expected, rtol=1e-12)


def test_layer_norm_has_mean_beta_and_deviation_gamma():
    rng = np.random.default_rng(2)
    layer = layers.LayerNorm(997, eps=1e-12, dtype="float64")
    layer.gamma.data, layer.beta.data = np.full(997, 3.0), np.full(997, -2.0)
    y, _ = layer.forward(rng.normal(5, 7, (B, T_Q, 997)))
    np.testing.assert_allclose(y.mean(-1), -2, rtol=1e-10)
    np.testing.assert_allclose(y.std(-1), 3, rtol=1e-10)  # the biased deviation


def test_layer_norm_of_a_constant_row_is_beta_and_its_gradient_finite():
    rng = np.random.default_rng(3)
    layer = randomise(layers.LayerNorm(D_MODEL), rng)
    x = np.full((B, T_Q, D_MODEL), 4.2)
    y, cache = layer.forward(x)
    np.testing.assert_allclose(y, np.broadcast_to(layer.beta.data, y.shape), atol=1e-10)
    assert np.isfinite(layer.backward(rng.normal(size=y.shape), cache)).all()


def test_add_norm_is_the_norm_of_the_sum():
    rng = np.random.default_rng(4)
    layer = randomise(layers.AddNorm(D_MODEL), rng)
    x, s = rng.normal(size=(B, T_Q, D_MODEL)), rng.normal(size=(B, T_Q, D_MODEL))
    np.testing.assert_array_equal(layer.forward(x, s)[0], layer.norm.forward(x + s)[0])


def test_embedding_is_a_row_times_the_square_root_of_d_model():
    rng = np.random.default_rng(5)
    layer = randomise(layers.Embedding(V_SRC, D_MODEL), rng)
    ids = random_ids(rng, B, T_Q, V_SRC)
    y, _ = layer.forward(ids)
    np.testing.assert_allclose(y[1, 0], math.sqrt(D_MODEL) * layer.E.data[ids[1, 0]], rtol=1e-12)


def test_embedding_gradient_counts_every_occurrence_of_an_id():
    layer = layers.Embedding(3, 4, dtype="float64")
    _, cache = layer.forward(np.array([[1, 1, 1, 2]]))
    dy = np.random.default_rng(6).normal(size=(1, 4, 4))
    layer.backward(dy, cache)
    np.testing.assert_allclose(
        layer.E.grad, 2 * np.stack([0 * dy[0, 0], dy[0, :3].sum(0), dy[0, 3]]), rtol=1e-12
    )


def test_sinusoids_are_interleaved_with_base_10000():
    PE = layers.sinusoids(50, 6)
    for pos in (0, 1, 17, 49):
        for i in range(3):
            angle = pos / 10000 ** (2 * i / 6)
            assert PE[pos, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert PE[pos, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoids_need_an_even_width():
    with pytest.raises(mt.ConfigError, match="must be even, got 7"):
        layers.SinusoidalPositions(5, 7)


@pytest.mark.parametrize("Positions", [layers.SinusoidalPositions, layers.LearnedPositions])
def test_positions_begin_at_start(Positions):
    layer = Positions(19, D_MODEL, dtype="float64")
    x = np.random.default_rng(7).normal(size=(B, 19, D_MODEL))
    whole, _ = layer.forward(x)
    part, _ = layer.forward(x[:, 4:9], start=4)
    np.testing.assert_array_equal(part, whole[:, 4:9])


def test_dropout_keeps_the_mean_and_drops_the_share_p():
    x = np.ones((500, 401), np.float32)
    y, _ = layers.Dropout(0.3).forward(x, np.random.default_rng(8))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / y.size)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_dropout_refuses_what_is_no_probability_below_one(p):
    with pytest.raises(mt.ConfigError, match="dropout: expected a probability"):
        layers.Dropout(p)


@given(logits=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2, max_size=7))
def test_log_softmax_is_finite_for_any_finite_logits(logits):
    x = np.array(logits, np.float32)
    log_p = log_softmax(x)
    assert np.isfinite(log_p).all() and log_p.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_p.astype(float)).sum(), 1, rtol=1e-5)


# ---- the contract, for every layer and model


@pytest.mark.parametrize("case", ALL)
def test_forward_and_backward_write_to_nothing_but_grad(case: Case):
    rng = np.random.default_rng(11)
    layer, inputs = case(rng)
    randomise(layer, rng)
    before_layer, before_inputs = copy.deepcopy(layer.state_dict()), copy.deepcopy(inputs)
    attributes = {id(m): dict(vars(m)) for m in (layer,)}
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = rng.normal(size=y.shape)
    before_dy, before_cache = dy.copy(), copy.deepcopy(list(arrays(cache)))
    layer.backward(dy, cache)
    assert (dy == before_dy).all()
    assert all((a == b).all() for a, b in zip(arrays(cache), before_cache, strict=True))
    assert all((a == b).all() for a, b in zip(arrays(inputs), arrays(before_inputs), strict=True))
    assert all((before_layer[name] == value).all() for name, value in layer.state_dict().items())
    assert all(vars(layer)[k] is v for k, v in attributes[id(layer)].items())


@pytest.mark.parametrize("case", ALL)
def test_backward_twice_gives_equal_dx_and_twice_the_grad(case: Case):
    rng = np.random.default_rng(12)
    layer, inputs = case(rng)
    randomise(layer, rng)
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = rng.normal(size=y.shape)

    def backward():
        for p in layer.parameters().values():
            p.grad[...] = 0
        dx = layer.backward(dy, cache)
        return list(arrays(dx)) if isinstance(dx, tuple) else [dx], [
            p.grad.copy() for p in layer.parameters().values()
        ]

    dx_1, grad_1 = backward()
    dx_2 = layer.backward(dy, cache)
    dx_2 = list(dx_2) if isinstance(dx_2, tuple) else [dx_2]
    for a, b in zip(dx_1, dx_2, strict=True):
        np.testing.assert_array_equal(a, b)
    for once, p in zip(grad_1, layer.parameters().values(), strict=True):
        np.testing.assert_allclose(p.grad, 2 * once, rtol=1e-12, atol=1e-12 * abs(once).max())


@pytest.mark.parametrize("case", ALL)
def test_two_forwards_in_flight_do_not_disturb_each_other(case: Case):
    rng = np.random.default_rng(13)
    layer, inputs = case(rng)
    randomise(layer, rng)
    _, others = case(rng)
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = rng.normal(size=y.shape)
    alone = layer.backward(dy, cache)
    y_again, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    layer.forward(*others, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(y, y_again)
    for a, b in zip(arrays([alone]), arrays([layer.backward(dy, cache)]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ALL)
def test_without_a_generator_nothing_is_random(case: Case):
    layer, inputs = case(np.random.default_rng(14))
    layer.to(dtype="float64")
    np.random.seed(0)  # noqa: NPY002 (the global state that nothing may touch)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(layer.forward(*inputs)[0], layer.forward(*inputs)[0])
    layer.forward(*inputs, rng=np.random.default_rng(1))
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("case", ALL)
def test_the_dtype_of_the_inputs_is_the_dtype_of_everything(case: Case, dtype: str):
    layer, inputs = case(np.random.default_rng(15))
    layer.to(dtype=dtype)
    inputs = tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs)
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dxs = layer.backward(np.ones_like(y), cache)
    floats = [a for a in arrays([y, cache, dxs]) if a.dtype.kind in "fc"]
    assert {a.dtype for a in floats} == {np.dtype(dtype)}
    assert {p.grad.dtype for p in layer.parameters().values()} <= {np.dtype(dtype)}


@pytest.mark.parametrize("case", ALL)
def test_strided_inputs_give_the_same_result(case: Case):
    """Non-contiguous and negatively strided views of the same numbers."""
    rng = np.random.default_rng(16)
    layer, inputs = case(rng)
    randomise(layer, rng)

    def strided(x):
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        view = wide[..., ::-2]
        view[...] = x
        return view

    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    y_strided, cache_strided = layer.forward(*map(strided, inputs), rng=np.random.default_rng(1))
    np.testing.assert_allclose(y_strided, y, rtol=1e-11, atol=1e-12)
    dy = rng.normal(size=y.shape)
    for a, b in zip(
        arrays([layer.backward(dy, cache)]), arrays([layer.backward(dy, cache_strided)]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
