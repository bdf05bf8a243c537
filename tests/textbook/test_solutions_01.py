"""The solutions of chapter 1 solve its exercises."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "01_why_attention.py"
spec = importlib.util.spec_from_file_location("solutions_01", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize(("n", "w"), [(7, 1), (8, 2), (9, 2), (12, 5), (5, 9)])
def test_layers_until_all_outputs_depend_on_all_inputs(n, w):
    """In the package's attention: after so many layers the last output reaches the first input, one earlier not."""
    position = np.arange(n)
    mask = abs(position[:, None] - position) <= w
    layers = solutions.solution_2(n, w)
    assert layers == max(1, math.ceil((n - 1) / w))

    def ends_depend(n_layers):
        rng = np.random.default_rng(0)
        stack = [mt.layers.MultiHeadAttention(6, 2, rng=rng, dtype="float64") for _ in range(n_layers)]
        x, caches = rng.normal(size=(1, n, 6)), []
        for layer in stack:
            x, cache = layer.forward(x, x, x, mask)
            caches.append(cache)
        dx = np.zeros_like(x)
        dx[0, -1] = rng.normal(size=6)
        for layer, cache in zip(reversed(stack), reversed(caches), strict=True):
            dx = sum(layer.backward(dx, cache))
        return dx[0, 0].any()

    assert ends_depend(layers)
    assert layers == 1 or not ends_depend(layers - 1)


def test_one_vector_holds_a_few_words_and_not_many():
    def share(n, d):
        return np.mean([solutions.solution_3(n, d, 100, np.random.default_rng(seed)) for seed in range(10)])

    assert share(1, 64) == 1
    assert share(3, 64) > 0.95
    assert share(128, 64) < 0.3
    assert share(16, 256) > share(16, 64) + 0.1


@pytest.mark.parametrize("d", [64, 256])
def test_the_signal_has_to_exceed_the_largest_of_the_wrong_words(d):
    V = 100
    limit = d / (2 * math.log(V))  # where 1 = sqrt(2 ln V (n - 1) / d)

    def share(n):
        return np.mean([solutions.solution_3(n, d, V, np.random.default_rng(seed)) for seed in range(10)])

    assert share(round(1 + limit / 4)) > 0.95
    assert 0.55 < share(round(1 + limit)) < 0.8
    assert share(round(1 + 4 * limit)) < 0.3


@pytest.mark.parametrize("method", ["complex", "central"])
def test_the_leaky_layer_has_the_right_gradient(method):
    layer = solutions.Leaky(3, 0.3, rng=0)
    report = mt.gradcheck(layer, np.random.default_rng(1).normal(size=(2, 5, 3)), method=method)
    assert report.ok, report


def test_the_leaky_layer_is_its_formula_and_its_gradient_survives_distance():
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=(1, 40, 8)), 40
    far = {}
    for alpha in (0.05, 1.0):
        layer = solutions.Leaky(8, alpha, rng=1)
        W, U = layer.W.data, layer.U.data
        h, cache = layer.forward(x)
        expected = (1 - alpha) * h[0, -2] + alpha * np.tanh(x[0, -1] @ W + h[0, -2] @ U)
        np.testing.assert_allclose(h[0, -1], expected, rtol=1e-12)
        dh = np.zeros_like(x)
        dh[0, -1] = 1
        sizes = np.linalg.norm(layer.backward(dh, cache)[0], axis=-1)
        far[alpha] = sizes[0] / sizes[n - 2]
    assert far[0.05] > 100 * far[1.0]
