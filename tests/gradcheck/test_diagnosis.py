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
