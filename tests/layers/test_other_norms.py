"""The norms that are not in the paper: their values, cell by cell of the cube (B, T, d_model), and who shares what."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from support import D_MODEL, T_Q, B, randomise

import minitransformer as mt
from minitransformer import layers

N_GROUPS = 4
SHARES = {  # whether the cells p and q = (sentence, position, feature) have their mean and deviation in common
    "LayerNorm": (lambda: layers.LayerNorm(D_MODEL, 0.1), lambda p, q: p[:2] == q[:2]),
    "BatchNorm": (lambda: layers.BatchNorm(D_MODEL, 0.1), lambda p, q: p[2] == q[2]),
    "InstanceNorm": (lambda: layers.InstanceNorm(D_MODEL, 0.1), lambda p, q: p[::2] == q[::2]),
    "GroupNorm": (
        lambda: layers.GroupNorm(D_MODEL, N_GROUPS, 0.1),
        lambda p, q: p[0] == q[0] and p[2] // (D_MODEL // N_GROUPS) == q[2] // (D_MODEL // N_GROUPS),
    ),
}


def layer_and_cube(name, seed=1):
    rng = np.random.default_rng(seed)
    return randomise(SHARES[name][0](), rng), rng.normal(3, 2, (B, T_Q, D_MODEL)), rng


@pytest.mark.parametrize("name", SHARES)
def test_each_cell_is_normalised_with_the_cells_it_shares_with(name):
    layer, x, _ = layer_and_cube(name)
    y, _ = layer.forward(x)
    cells = list(itertools.product(*map(range, x.shape)))
    for p in cells:
        together = [x[q] for q in cells if SHARES[name][1](p, q)]
        mean = math.fsum(together) / len(together)
        var = math.fsum((v - mean) ** 2 for v in together) / len(together)
        x_hat = (x[p] - mean) / math.sqrt(var + 0.1)
        assert y[p] == pytest.approx(
            layer.gamma.data[p[2]] * x_hat + layer.beta.data[p[2]], rel=1e-11, abs=1e-12
        )


@pytest.mark.parametrize("name", SHARES)
def test_cells_that_share_nothing_do_not_feel_each_other(name):
    layer, x, rng = layer_and_cube(name)
    before, cache = layer.forward(x)
    dy = rng.normal(size=x.shape)
    p = (1, 2, 3)
    x[p] += 1
    moved = layer.forward(x)[0] != before
    alone = np.zeros_like(dy)
    alone[p] = dy[p]
    felt = layer.backward(alone, cache) != 0
    for q in itertools.product(*map(range, x.shape)):
        assert moved[q] == felt[q] == SHARES[name][1](p, q), q


def test_group_norm_with_a_group_for_each_feature_is_instance_norm():
    instance, x, rng = layer_and_cube("InstanceNorm")
    group = layers.GroupNorm(D_MODEL, D_MODEL, 0.1, dtype="float64")
    group.load_state_dict(instance.state_dict())
    dy = rng.normal(size=x.shape)
    for layer in (instance, group):
        layer.zero_grad()
    (y, cache), (y_group, cache_group) = instance.forward(x), group.forward(x)
    np.testing.assert_allclose(y_group, y, rtol=1e-12)
    np.testing.assert_allclose(
        group.backward(dy, cache_group), instance.backward(dy, cache), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(group.gamma.grad, instance.gamma.grad, rtol=1e-12)


@pytest.mark.parametrize("n_groups", [0, -2, 3, 9])
def test_groups_that_do_not_fit_are_refused(n_groups):
    expected = "a divisor of d_model=8" if n_groups > 0 else "at least 1"
    message = f"n_groups: expected {expected}, got {n_groups}"
    with pytest.raises(mt.ConfigError, match=message):
        layers.GroupNorm(8, n_groups)


def test_batch_norm_of_rows_is_over_the_rows():
    x = np.random.default_rng(3).normal(size=(200, 3)) * [1, 10, 100]
    y, _ = layers.BatchNorm(3, eps=1e-12, dtype="float64").forward(x)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-9)
    assert mt.gradcheck(layers.BatchNorm(3), x[:7] / 100).ok


@pytest.mark.parametrize("shape", [(200, 4), (2, 3, 5, 4)])
@pytest.mark.parametrize("norm", [layers.InstanceNorm(4), layers.GroupNorm(4, 2)])
def test_norms_over_the_positions_of_a_sentence_have_one_axis_of_positions(norm, shape):
    expected = rf"expected \(B, T, d_model\), got shape {re.escape(str(shape))}"
    with pytest.raises(mt.InputError, match=expected):
        norm.forward(np.ones(shape))


def test_the_default_eps_is_that_of_layer_norm():
    for norm in (layers.BatchNorm(4), layers.InstanceNorm(4), layers.GroupNorm(4, 2), layers.LayerNorm(4)):
        assert norm.eps == 1e-5
