"""The solutions to the exercises of chapter 12 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "12_gradient_checking.py"
spec = importlib.util.spec_from_file_location("solutions_12", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_the_best_one_sided_step_is_about_the_root_of_eps_and_so_is_the_error():
    root = np.finfo(np.float64).eps ** 0.5
    step, error = solutions.best_one_sided_step()
    assert root / 10 < step < root * 10
    assert root / 10 < error < root * 10


def test_the_wrong_linear_layer_passes_with_one_position_only():
    rng = np.random.default_rng(0)
    layer = solutions.MeanLinear(4, 5, rng=0, dtype="float64")
    assert mt.gradcheck(layer, rng.normal(size=(1, 4))).ok
    report = mt.gradcheck(layer, rng.normal(size=(3, 4)))
    assert [row.name for row in report.wrong] == ["W"]
    assert "3 times too small" in report.wrong[0].hint


@pytest.mark.parametrize("method", ["complex", "central"])
def test_unit_length_has_the_right_values_and_gradient(method):
    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    y, _ = solutions.UnitLength().forward(x)
    np.testing.assert_allclose(y, x / np.linalg.norm(x, axis=-1, keepdims=True), rtol=1e-14)
    report = mt.gradcheck(solutions.UnitLength(), x, method=method)
    assert report.ok, report


def test_with_numpys_norm_the_complex_step_is_refused():
    class WithNorm(solutions.UnitLength):
        def forward(self, x):
            r = np.linalg.norm(x, axis=-1, keepdims=True)
            return x / r, (x / r, r)

    x = np.random.default_rng(0).normal(size=(2, 3, 5))
    assert mt.gradcheck(WithNorm(), x).ok
    with pytest.raises(mt.InputError, match="analytic"):
        mt.gradcheck(WithNorm(), x, method="complex")
