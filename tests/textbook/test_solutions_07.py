"""The solutions of chapter 7 solve its exercises."""

from __future__ import annotations

import importlib.util
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "07_residuals.py"
spec = importlib.util.spec_from_file_location("solutions_07", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize("L", [1, 8, 152])
def test_scaled_blocks_keep_the_gradients_length_at_every_depth(L):
    rng = np.random.default_rng(0)
    d = 16
    blocks = [solutions.Scaled(d, L, rng) for _ in range(L)]
    x, dy, caches = rng.normal(size=(6, d)), rng.normal(size=(6, d)), []
    y, dx = x, dy
    for block in blocks:
        y, cache = block.forward(y)
        caches.append(cache)
    for block, cache in zip(reversed(blocks), reversed(caches), strict=True):
        dx = block.backward(dx, cache)
    assert 0.9 < np.linalg.norm(dx) / np.linalg.norm(dy) < 1.5
    assert np.linalg.norm(y - x) > 0.3 * np.linalg.norm(x)  # and the blocks do something


@pytest.mark.parametrize("method", ["complex", "central"])
def test_the_blocks_have_the_right_gradients(method):
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    for block in (
        solutions.Scaled(4, 5, np.random.default_rng(0)),
        solutions.Highway(4, np.random.default_rng(0)),
    ):
        report = mt.gradcheck(block, x, method=method)
        assert report.ok, report


def test_the_highway_is_its_formula_and_its_gate_decides():
    rng = np.random.default_rng(0)
    block, x = solutions.Highway(4, rng), rng.normal(size=(2, 3, 4))
    new = block.F.forward(x)[0]
    for bias, expected in [(-50, x), (50, new), (0, None)]:
        block.gate.b.data[...] = bias
        if expected is None:
            g = 1 / (1 + np.exp(-(x @ block.gate.W.data)))
            expected = x + g * (new - x)
        np.testing.assert_allclose(block.forward(x)[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("L", [0, 1, 4])
def test_the_gradient_sorted_by_the_number_of_blocks_passed_through(L):
    rng = np.random.default_rng(0)
    dy, jacobians = rng.normal(size=(1, 3)), list(rng.normal(size=(L, 3, 3)))
    parts = solutions.by_blocks_passed(dy, jacobians)
    assert len(parts) == L + 1
    for k, part in enumerate(parts):
        expected = np.zeros_like(dy)
        for through in combinations(range(L), k):
            path = dy
            for block in reversed(through):
                path = path @ jacobians[block]
            expected += path
        np.testing.assert_allclose(part, expected, rtol=1e-10)
