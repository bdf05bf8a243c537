"""The solutions of chapter 0 solve its exercises."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "00_gradients.py"
spec = importlib.util.spec_from_file_location("solutions_00", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("name", ["Tanh", "Centre"])
def test_the_layers_have_the_right_gradient(name, method):
    layer = getattr(solutions, name)()
    assert mt.gradcheck(layer, np.random.default_rng(0).normal(size=(2, 5, 3)), method=method).ok


def test_the_layers_compute_what_the_exercises_say():
    x = np.random.default_rng(1).normal(size=(4, 3))
    np.testing.assert_allclose(solutions.Tanh().forward(x)[0], np.tanh(x))
    y, cache = solutions.Centre().forward(x)
    np.testing.assert_allclose(y, [row - sum(row) / 3 for row in x])
    np.testing.assert_allclose(solutions.Centre().backward(x, cache).sum(-1), 0, atol=1e-12)


def test_agreement_needs_a_hidden_layer():
    assert solutions.solution_5(hidden=0) > np.log(2) - 1e-3
    assert solutions.solution_5(hidden=8) < 0.05


def test_numbers_that_remember_have_the_derivatives_of_their_formula():
    def f(x, y):
        u = x * y + 2 * x  # x is used four times in all, u twice
        return (u * u + (1 + (x * -1 + u).exp()).log()) * y

    x, y = solutions.Number(0.3), solutions.Number(-1.7)
    f(x, y).backward()
    h = 1e-6

    def value(x, y):
        return f(solutions.Number(x), solutions.Number(y)).value

    assert x.grad == pytest.approx((value(0.3 + h, -1.7) - value(0.3 - h, -1.7)) / (2 * h), rel=1e-6)
    assert y.grad == pytest.approx((value(0.3, -1.7 + h) - value(0.3, -1.7 - h)) / (2 * h), rel=1e-6)


def test_a_number_is_visited_after_all_that_use_it():
    x = solutions.Number(3.0)
    square = x * x
    (square * square + square + x).backward()  # x⁴ + x² + x
    assert x.grad == 4 * 27 + 2 * 3 + 1
