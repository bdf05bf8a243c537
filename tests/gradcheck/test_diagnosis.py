"""What the report says about a mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import Affine, Layer, both_methods, x
from support import randomise

import minitransformer as mt
from minitransformer.gradcheck import diagnosis


@both_methods
@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("W", np.zeros_like, "zero everywhere"),
        ("W", np.negative, "wrong sign"),
        ("W", lambda g: g / 2, "half of what it should be"),
        ("b", lambda g: g / 7, "7 times too small, and 7 is the size of axis 1 of x"),
        ("x", lambda g: g * 3, "3 times too large, and 3 is the size of axis 2 of x"),
        ("x", lambda g: g * 14, "14 times too large, and 14 is the product of axes 0 to 1 of y"),
        ("W", lambda g: g / math.sqrt(3), r"sqrt\(3\) times too small"),
        ("W", lambda g: g * math.sqrt(5), r"sqrt\(5\) times too large, and 5 is the size of axis 2 of y"),
        ("W", lambda g: 1.25 * g, "1.25 times what it should be"),
        ("W", lambda g: g.T.reshape(g.shape), r"axes \[1, 0\]: a transpose"),
        ("x", lambda g: g + g.mean(-1, keepdims=True), "off by the same amount all along axis 2"),
        ("b", lambda g: g + 0.1, "off by the same amount all along axis 0"),
        ("W", lambda g: g * (np.arange(3) != 1)[:, None], r"wrong in 1 of 3 rows \(1\)"),
        ("W", lambda g: g + np.nan, "backward gives NaN"),
        ("W", lambda g: g**3, ""),
    ],
)
def test_the_report_says_what_the_mistake_looks_like(
    method: str, name: str, wrong: Callable[[Any], Any], words: str
) -> None:
    report = mt.gradcheck(Affine(**{name: wrong}), x(2, 7, 3), method=method)
    (row,) = report.wrong
    assert row.name == name and row.hint in str(report)
    assert (re.search(words, row.hint) is not None) if words else row.hint == ""


@both_methods
def test_the_report_sees_exchanged_gradients_and_forgotten_masks(method: str) -> None:
    class Exchanged(mt.layers.MultiHeadAttention):
        def backward(self, dy, cache):
            dquery, dkey, dvalue = super().backward(dy, cache)
            return dquery, dvalue, dkey

    attention = randomise(Exchanged(4, 2), np.random.default_rng(1))
    report = mt.gradcheck(attention, x(2, 3, 4), x(2, 5, 4), x(2, 5, 4, seed=3), method=method)
    assert [(row.name, row.hint) for row in report.wrong] == [
        ("key", "this is the gradient of value"),
        ("value", "this is the gradient of key"),
    ]
    unmasked = Layer(lambda x: np.where(x > 0, x, 0), lambda x: 1.0)
    (row,) = mt.gradcheck(unmasked, x(4, 5), method=method).wrong
    assert "a mask left out of backward" in row.hint
    infinite = Layer(lambda x: x / np.where(x > 0.5, 0, 1), lambda x: 1.0)
    with np.errstate(all="ignore"):
        (row,) = mt.gradcheck(infinite, x(4, 5), method=method).wrong
    assert "forward gives NaN or infinity" in row.hint


# ---- pattern by pattern

N = x(3, 4)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1, "every entry has the wrong sign"),
        (0.5, "every entry is half of what it should be: = where += belongs (backward is called twice)?"),
        (1 / 9, "every entry is 9 times too small, and 9 is the keys: divided once too often?"),
        (9, "every entry is 9 times too large, and 9 is the keys: a sum where a mean belongs?"),
        (3, "every entry is 3 times what it should be: a factor too many or too few"),  # not sqrt(9)
        (8**0.5, "every entry is sqrt(8) times too large, and 8 is d_k: a sum where a mean belongs?"),
        (8**-0.5, "every entry is sqrt(8) times too small, and 8 is d_k: divided once too often?"),
        (-8, "every entry is -8 times what it should be: a factor too many or too few"),
    ],
)
def test_a_factor_is_named(factor: float, words: str) -> None:
    assert diagnosis.factor(factor * N, N, {9: "the keys", 8: "d_k"}) == words


def test_no_factor_is_named_where_there_is_none() -> None:
    assert (
        diagnosis.factor(N**3, N, {})
        == diagnosis.factor(N, 0 * N, {})
        == diagnosis.factor(0 * N, N, {})
        == ""
    )


def test_close_means_five_digits_of_the_largest_entry() -> None:
    n = np.array([1e5, 3.0])
    off = np.array([0, 1.0])
    assert diagnosis.close(n + off, n) and not diagnosis.close(n + 1.1 * off, n)
    assert diagnosis.close(n * 0, n * 0) and not diagnosis.close(n[None], n)


def test_another_inputs_gradient_is_recognised_unless_that_is_zero() -> None:
    numeric = {"x": N, "y": 2 * N, "z": 0 * N}
    assert diagnosis.exchanged("x", {"x": 2 * N}, numeric) == "this is the gradient of y"
    assert (
        diagnosis.exchanged("x", {"x": N}, numeric) == diagnosis.exchanged("x", {"x": 0 * N}, numeric) == ""
    )


def test_exchanged_axes_are_listed() -> None:
    n = x(2, 3, 4)
    for axes in ([0, 2, 1], [1, 2, 0], [2, 1, 0]):
        a = n.transpose(axes).reshape(n.shape)
        assert (
            diagnosis.transposed(a, n)
            == f"the right numbers, but with axes {axes}: a transpose too many or too few?"
        )
    assert diagnosis.transposed(n, n) == diagnosis.transposed(x(2, 3, 4, seed=5), n) == ""


def test_a_forgotten_mask_is_recognised_by_numbers_where_zeros_belong() -> None:
    n = np.where(N > 0, N, 0)
    hint = "not zero where it should be: a mask left out of backward (dropout, ReLU, attention)?"
    assert diagnosis.mask_forgotten(N, n) == diagnosis.mask_forgotten(3 * N, n) == hint
    assert diagnosis.mask_forgotten(3 * n, n) == ""  # zero where it should be
    assert diagnosis.mask_forgotten(N**3, n) == ""  # wrong elsewhere, too
    assert diagnosis.mask_forgotten(N, 0 * N) == diagnosis.mask_forgotten(N + 1, N) == ""


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_missing_mean_is_recognised_by_an_error_that_is_the_same_all_along_an_axis(axis: int) -> None:
    n = x(2, 3, 4)
    hint = f"off by the same amount all along axis {axis}: is a mean or a sum over it missing?"
    for size in (1e-3, 1e3):
        assert diagnosis.missing_mean(n + size * x(2, 3, 4, seed=5).mean(axis, keepdims=True), n) == hint
    assert diagnosis.missing_mean(x(2, 3, 4, seed=5), n) == ""


def test_an_axis_of_one_entry_is_no_sign_of_a_missing_mean() -> None:
    assert diagnosis.missing_mean(np.array([[1.0], [2.0]]), np.zeros((2, 1))) == ""


def test_the_same_amount_means_five_digits() -> None:
    n = np.zeros(2)
    assert diagnosis.missing_mean(np.array([100_000.0, 99_998.0]), n).startswith("off by the same amount")
    assert diagnosis.missing_mean(np.array([100_000.0, 99_997.0]), n) == ""


@pytest.mark.parametrize(
    ("wrong", "listed"),
    [
        ([1], "1 of 8 rows (1)"),
        ([0, 3, 4, 5, 7], "5 of 8 rows (0, 3, 4, 5, 7)"),
        ([0, 2, 3, 4, 5, 7], "6 of 8 rows (0, 2, 3, 4, 5, …)"),
        ([0, 1, 2, 3, 4, 5, 7], "7 of 8 rows (0, 1, 2, 3, 4, …)"),
    ],
)
def test_wrong_rows_are_listed(wrong: list[int], listed: str) -> None:
    for n in (np.zeros((8, 2, 3)), 1e3 * x(8, 2, 3)):
        a = n + 1e-6 * abs(n)  # right to five digits
        a[wrong, 1, 2] += 7
        assert diagnosis.some_rows(a, n) == f"wrong in {listed}: an index that occurs twice, a mask?"


def test_no_rows_are_listed_if_all_are_wrong_or_none_or_there_are_none() -> None:
    assert diagnosis.some_rows(N + 1, N) == diagnosis.some_rows(N, N) == ""
    assert diagnosis.some_rows(np.array([1.0, 2.0]), np.array([1.0, 3.0])) == ""
    assert diagnosis.some_rows(np.array(1.0), np.array(3.0)) == ""


@pytest.mark.parametrize(("kinks", "unsure"), [(0, 1), (1, 0), (1, 1), (2, 3)])
def test_what_to_do_where_nothing_was_compared(kinks: int, unsure: int) -> None:
    kink = "forward has a kink at each of them: give it other numbers, e.g. random ones for zeros"
    digits = "their derivatives have too few digits: try method='complex', or numbers around 1"
    advice = "; ".join([kink][:kinks] + [digits][:unsure])
    assert diagnosis.nothing_compared(kinks, unsure) == f"nothing was compared: {advice}"


@pytest.mark.parametrize(
    ("a", "n", "hint"),
    [
        (N, N + np.inf, "forward gives NaN or infinity near this point"),
        (N + np.nan, N, "backward gives NaN or infinity"),
        (N + 1e-7, N, "right to five digits of the largest entry: rounding? a single wrong entry?"),
        (0 * N, N, "backward gives zero everywhere: is this gradient computed, and added with +=?"),
        (-N, N, "every entry has the wrong sign"),
        (N**3, N, ""),
    ],
)
def test_the_first_pattern_that_fits_is_named(a: Any, n: Any, hint: str) -> None:
    assert diagnosis.diagnose("x", {"x": a}, {"x": n}, {}) == hint
