"""Law 8: training drops a share p and keeps the mean; evaluation drops nothing and draws nothing.

Shares are compared with bounds that a right layer exceeds once in 10^12 runs (Hoeffding's inequality).
"""

from __future__ import annotations

import copy
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import every_module, examples, few

from minitransformer.layers import Dropout
from minitransformer.module import Module
from minitransformer.testing import assert_same
from minitransformer.testing.strategies import seeds


def bound(n, width=1.0):
    """How far the mean of n independent numbers from an interval of this width may be from its expectation."""
    return width * math.sqrt(math.log(2e12) / (2 * n))


def dropouts(node):
    """All Dropout layers below `node`."""
    if isinstance(node, Dropout):
        yield node
    elif isinstance(node, Module):
        for child in vars(node).values():
            yield from dropouts(child)
    elif isinstance(node, list):
        for child in node:
            yield from dropouts(child)


@given(p=st.floats(0.05, 0.9), seed=seeds, dtype=st.sampled_from([np.float32, np.float64]))
def test_dropout_keeps_the_mean_and_drops_the_share_p(p, seed, dtype):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 1.5, (7, 401, 103)).astype(dtype)
    layer = Dropout(p)
    assert abs(layer.p - p) <= 2**-17
    p = layer.p
    y, cache = layer.forward(x, rng)
    dropped = y == 0
    np.testing.assert_allclose(y[~dropped], x[~dropped] / (1 - p), rtol=4 * np.finfo(dtype).eps)
    assert abs(dropped.mean() - p) < bound(x.size)
    assert abs(y.mean(dtype=float) - x.mean(dtype=float)) < bound(x.size, 1.5 / (1 - p))
    dy = rng.normal(size=x.shape).astype(dtype)
    dx = layer.backward(dy, cache)
    np.testing.assert_allclose(dx, np.where(dropped, 0, dy / (1 - p)), rtol=4 * np.finfo(dtype).eps)


@given(p=st.floats(0.1, 0.9), seed=seeds)
def test_every_number_is_dropped_or_kept_by_itself(p, seed):
    """Not whole rows, columns or sentences, and not the same ones in the next forward."""
    rng, layer, x = np.random.default_rng(seed), Dropout(p), np.ones((5, 401, 103))
    dropped = layer.forward(x, rng)[0] == 0
    one_differs = 2 * p * (1 - p)  # of two independent entries, exactly one is dropped
    pairs = [(dropped, layer.forward(x, rng)[0] == 0)]
    pairs += [
        (dropped.swapaxes(0, axis)[:-1:2], dropped.swapaxes(0, axis)[1::2]) for axis in range(3)
    ]  # no entry twice
    for a, b in pairs:
        assert abs((a != b).mean() - one_differs) < bound(a.size)


@every_module
@few
@given(data=st.data())
def test_evaluation_drops_nothing_and_is_deterministic(case, data):
    layer, inputs, *_ = data.draw(examples(case))
    y, _ = layer.forward(*inputs)
    assert_same([layer.forward(*inputs)[0]], [y])
    without = copy.deepcopy(layer)
    for dropout in dropouts(without):
        dropout.p = 0.0
    assert_same([without.forward(*inputs, rng=np.random.default_rng(1))[0]], [y])


@every_module
@few
@given(data=st.data())
def test_training_draws_for_each_dropout_and_for_nothing_else(case, data):
    layer, inputs, *_ = data.draw(examples(case))
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    y, _ = layer.forward(*inputs, rng=rng)
    drops = any(dropout.p > 0 for dropout in dropouts(layer))
    assert (rng.bit_generator.state != before) == drops
    assert_same([layer.forward(*inputs, rng=np.random.default_rng(1))[0]], [y])
