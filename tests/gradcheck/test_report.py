"""The report as a table."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck_layers import Affine, x

import minitransformer as mt
from minitransformer.gradcheck import GradcheckReport, Row


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
    assert row.relative_error == report.max_relative_error == pytest.approx(2.0)
    assert f"analytic {row.analytic:+.10e}" in str(report) and str(list(row.index)) in str(report)
    assert row.analytic == pytest.approx(-row.numeric) and row.shape == (3, 5)


# ---- the whole text of a report


def table(*rows: Row, **more: list[str]) -> list[str]:
    return str(GradcheckReport("Layer", "central", 1e-8, 1234, list(rows), **more)).split("\n")


RIGHT = Row("x", (2, 30), (1, 20), -1.5, -1.5000000001, 6.7e-11)


def test_the_table_of_a_right_layer() -> None:
    assert table(RIGHT, Row("gamma", (3,), (0,), 2.0, 2.0, 0.0, kinks=2, unsure=1)) == [
        "Layer: ok (central differences, 1,234 numbers, tolerance 1e-08)",
        "  ok     x      (2, 30)  error 6.7e-11   analytic -1.5000000000e+00   numeric -1.5000000001e+00 at [1, 20]",
        "  ok     gamma  (3,)     error 0.0e+00   analytic +2.0000000000e+00   numeric +2.0000000000e+00 at [0]"
        "   2 at a kink, left out   1 not known to the tolerance, left out",
    ]


def test_the_table_of_a_wrong_layer_has_hints_broken_rules_and_notes() -> None:
    wrong = Row("b", (), (), 1.0, 2.0, 0.5, hint="every entry is half of what it should be")
    assert table(wrong, RIGHT, broken=["backward writes to dy", "another"], notes=["scale: floats"]) == [
        "Layer: WRONG (central differences, 1,234 numbers, tolerance 1e-08)",
        "  WRONG  b  ()       error 5.0e-01   analytic +1.0000000000e+00   numeric +2.0000000000e+00",
        "         every entry is half of what it should be",
        "  ok     x  (2, 30)  error 6.7e-11   analytic -1.5000000000e+00   numeric -1.5000000001e+00 at [1, 20]",
        "  BROKEN: backward writes to dy",
        "  BROKEN: another",
        "  note: scale: floats",
    ]


def test_the_table_of_a_layer_of_which_nothing_was_compared() -> None:
    nothing = Row("z", (4,), (0,), 0.0, 0.0, np.inf, kinks=4, checked=0, hint="give it other numbers")
    assert table(RIGHT, nothing) == [
        "Layer: UNDECIDED (central differences, 1,234 numbers, tolerance 1e-08)",
        "  ok         x  (2, 30)  error 6.7e-11   analytic -1.5000000000e+00   numeric -1.5000000001e+00 at [1, 20]",
        "  UNDECIDED  z  (4,)     error not known   4 at a kink, left out",
        "         give it other numbers",
    ]


@pytest.mark.parametrize(("moves", "words"), [(0, ""), (2, "   checked beside a kink")])
def test_the_table_of_one_direction(moves: int, words: str) -> None:
    name = "all, along random directions"
    assert table(Row(name, (9,), (), 1.0, 1.0, 0.0, kinks=moves))[1:] == [
        f"  ok     {name}  (9,)  error 0.0e+00   analytic +1.0000000000e+00   numeric +1.0000000000e+00{words}"
    ]


# ---- its verdict


def test_an_error_as_large_as_the_tolerance_is_none_and_nan_is_one() -> None:
    for error, ok in ((1e-8, True), (1.1e-8, False), (np.nan, False)):
        row = Row("x", (1,), (0,), 1.0, 1.0, error)
        report = GradcheckReport("Layer", "central", 1e-8, 1, [row])
        assert report.ok is report.agrees(row) is ok and report.wrong == ([] if ok else [row])


def test_each_variable_has_a_verdict() -> None:
    errors = {"x": (1e-9, 1), "W": (1e-7, 1), "b": (0.0, 0)}
    rows = [Row(name, (1,), (0,), 1.0, 1.0, error, checked=n) for name, (error, n) in errors.items()]
    report = GradcheckReport("Layer", "central", 1e-8, 3, rows)
    assert report.verdicts == {"x": "ok", "W": "WRONG", "b": "UNDECIDED"}


def test_a_report_that_is_ok_is_returned_and_another_raised_with_its_table() -> None:
    right, wrong = (
        GradcheckReport("L", "central", 1e-8, 1, [Row("x", (1,), (0,), 1.0, 1.0, e)]) for e in (0.0, 1.0)
    )
    assert right.raise_if_wrong() is right
    with pytest.raises(AssertionError) as raised:
        wrong.raise_if_wrong()
    assert str(raised.value) == str(wrong)
    assert raised.traceback[-1].ishidden(raised)  # so pytest shows the line of the test


def test_a_row_without_a_comparison_is_neither_right_nor_wrong() -> None:
    row = Row("x", (1,), (0,), 1.0, 1.0, 0.0, checked=0)
    report = GradcheckReport("Layer", "central", 1e-8, 1, [row])
    assert not report.ok and not report.wrong and report.undecided == [row]


def test_a_report_whose_first_row_is_for_all_numbers_is_directional() -> None:
    along = Row("all, along random directions", (9,), (), 1.0, 1.0, 0.0)
    for rows, directional in (([along], True), ([along, RIGHT], True), ([RIGHT], False)):
        assert GradcheckReport("Layer", "central", 1e-8, 9, rows).directional is directional


def test_the_largest_error_is_that_of_the_worst_row() -> None:
    rows = [Row("x", (1,), (0,), 1.0, 1.0, error) for error in (1e-3, 0.5, 1e-4)]
    assert GradcheckReport("Layer", "central", 1e-8, 9, rows).max_relative_error == 0.5
