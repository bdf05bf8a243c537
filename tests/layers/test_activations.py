"""ReLU at its kink; softmax and its logarithm for scores of any size. (Their laws: tests/laws/test_softmax.py.)"""

from __future__ import annotations

import math

import numpy as np
import pytest

from minitransformer import layers
from minitransformer.errors import InputError
from minitransformer.layers import (
    softmax,
)


def test_relu_passes_no_gradient_on_at_zero():
    relu = layers.ReLU()
    y, cache = relu.forward(np.array([-2.0, -0.0, 0.0, 3.0]))
    assert y.tolist() == [0, 0, 0, 3]
    assert relu.backward(np.array([5.0, 6.0, 7.0, 8.0]), cache).tolist() == [0, 0, 0, 8]


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_softmax_under_a_mask_is_stable_for_scores_of_any_size(size):
    scores = size + np.array([[3.0, 1.0, 2.0], [5.0, 6.0, 7.0]]) * (1 if abs(size) < 1e30 else 1e29)
    mask = np.array([[False, True, True], [False, False, False]])
    weights = layers.softmax(scores, mask)
    larger = 1 / (1 + math.exp(-1)) if abs(size) < 1e30 else 1.0
    np.testing.assert_allclose(weights, [[0, 1 - larger, larger], [0, 0, 0]], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_softmax_of_the_largest_numbers_there_are_is_finite(dtype):
    largest = np.finfo(dtype).max
    log_p = layers.log_softmax(np.array([[largest, -largest, largest], [-largest, 0, largest]], dtype))
    np.testing.assert_allclose(log_p[0, ::2], -math.log(2), rtol=1e-6)
    assert (
        log_p[1, 2] == 0 and np.isfinite(log_p).all() and (log_p[[0, 1, 1], [1, 0, 1]] < -largest / 10).all()
    )
    within = np.array([0, -0.49 * largest], dtype)  # up to half of the range nothing is cut off
    np.testing.assert_array_equal(layers.log_softmax(within), within)


def test_masked_softmax_does_not_underflow_when_a_hidden_score_is_huge():
    scores, mask = np.array([[1e4, 1.0, 2.0]], np.float32), np.array([[False, True, True]])
    np.testing.assert_allclose(
        softmax(scores, mask)[0], [0, 1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-6
    )


@pytest.mark.parametrize(("dweights", "weights"), [((1, 4), (3, 4)), ((3, 4), (1, 4))])
def test_a_gradient_of_another_shape_than_the_weights_is_not_broadcast(dweights, weights):
    with pytest.raises(InputError, match="dweights: expected the shape of weights"):
        layers.softmax_backward(np.ones(dweights), np.ones(weights))
