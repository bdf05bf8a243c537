"""The solutions to the exercises of chapter 8 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from minitransformer import layers

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "08_normalization.py"
spec = importlib.util.spec_from_file_location("solutions_08", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_the_linear_map_is_batch_norm_where_the_batch_has_that_mean_and_variance():
    rng = np.random.default_rng(1)
    norm = layers.BatchNorm(5, eps=0.1, dtype="float64")
    norm.gamma.data, norm.beta.data = rng.normal(size=(2, 5))
    x = rng.normal(2, 3, (2, 7, 5))
    a, c = solutions.as_linear_map(norm, x.mean((0, 1)), x.var((0, 1)))
    assert a.shape == c.shape == (5,)
    np.testing.assert_allclose(a * x + c, norm.forward(x)[0], rtol=1e-10)


def test_the_linear_map_can_be_folded_into_the_linear_map_in_front():
    rng = np.random.default_rng(2)
    norm = layers.BatchNorm(5, dtype="float64")
    norm.gamma.data, norm.beta.data = rng.normal(size=(2, 5))
    mean, var = rng.normal(size=5), rng.uniform(1, 2, 5)
    a, c = solutions.as_linear_map(norm, mean, var)
    linear = layers.Linear(3, 5, rng=3, dtype="float64")
    linear.b.data = rng.normal(size=5)
    z = rng.normal(size=(4, 3))
    x, _ = linear.forward(z)
    expected = norm.gamma.data * (x - mean) / np.sqrt(var + norm.eps) + norm.beta.data
    np.testing.assert_allclose(z @ (linear.W.data * a) + (a * linear.b.data + c), expected, rtol=1e-10)


def test_by_way_of_rms_norm_comes_the_gradient_of_layer_norm():
    rng = np.random.default_rng(4)
    norm = layers.LayerNorm(7, eps=0.2, dtype="float64")
    norm.gamma.data, norm.beta.data = rng.normal(size=(2, 7))
    x, dy = rng.normal(1, 2, (2, 3, 5, 7))
    _, cache = norm.forward(x)
    dx = solutions.backward_by_rms_norm(x, dy, norm.gamma.data, norm.eps)
    np.testing.assert_allclose(dx, norm.backward(dy, cache), rtol=1e-10, atol=1e-13)
    assert abs(dx).max() > 0.1


def test_two_features_leave_the_order_alone_and_no_gradient():
    rng = np.random.default_rng(5)
    x, dy = rng.normal(size=(2, 50, 2))
    x_hat, dx = solutions.two_features(x, dy)
    first_is_larger = x[:, :1] > x[:, 1:]
    np.testing.assert_allclose(x_hat, np.where(first_is_larger, [1, -1], [-1, 1]), rtol=1e-9)
    assert abs(dx).max() < 1e-9 * abs(dy / (x[:, :1] - x[:, 1:])).max()
