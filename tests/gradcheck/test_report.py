"""The report as a table."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck_layers import Affine, x

import minitransformer as mt


def test_the_report_is_a_table() -> None:
    report = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), method="complex")
    title, *lines = str(report).splitlines()
    assert title == "Affine: WRONG (complex step, 62 numbers, tolerance 1e-12)"
    assert [line.split()[:2] for line in lines if "error" in line] == [
        ["ok", "x"],
        ["WRONG", "W"],
        ["ok", "b"],
    ]
    row = report.wrong[0]
    assert row.relative_error == report.max_relative_error == pytest.approx(1.0, abs=1.1)
    assert f"analytic {row.analytic:+.10e}" in str(report) and str(list(row.index)) in str(report)
    assert row.analytic == pytest.approx(-row.numeric) and row.shape == (3, 5)


def test_a_wrong_direction_says_how_to_find_the_place() -> None:
    report = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), directional=True)
    assert not report.ok and "directional=False" in str(report)
