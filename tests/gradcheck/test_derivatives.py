"""Derivatives of a function of one number: exact, on the right step, on the right side of a bend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.gradcheck.derivatives import STEPS, both_sides, central, one_sided, slopes


@given(coefficients=st.lists(st.floats(-3, 3), min_size=1, max_size=4), h=st.sampled_from(STEPS))
def test_all_formulas_are_exact_for_polynomials_up_to_the_fourth_power(
    coefficients: list[float], h: float
) -> None:
    def f(t: float) -> float:
        return sum(c * t**power for power, c in enumerate(coefficients, 1))

    rounding = 1e-13 / h
    for estimate in (central(f, h), one_sided(f, h), one_sided(f, -h)):
        assert math.isclose(estimate, coefficients[0], rel_tol=1e-10, abs_tol=rounding)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_the_step_is_found_on_which_the_derivative_does_not_depend(scale: float) -> None:
    for f in (np.sin, np.expm1, np.tanh, lambda t: np.log1p(max(t, -0.9))):
        found = both_sides(lambda t, f=f: float(f(t / scale)), noise=1e-16)
        assert abs(found.value * scale - 1) < 1e-9 and found.doubt * scale < 1e-8


@given(place=st.floats(1e-5, 0.2), side=st.sampled_from([-1, 1]), bend=st.floats(0.1, 10))
def test_a_bend_nearby_is_seen_from_the_other_side(place: float, side: int, bend: float) -> None:
    def f(t: float) -> float:
        return math.sin(t) + bend * max(0, side * t - place)

    found = slopes(f, noise=1e-16)
    assert abs(found.best.value - 1) < 1e-8
    assert not found.kink(1.0, least=1e-8)


@given(left=st.floats(-5, 5), jump=st.floats(0.01, 5))
def test_a_bend_right_here_is_a_kink_for_any_slope_in_between(left: float, jump: float) -> None:
    def f(t: float) -> float:
        return math.sin(t) * (left if t < 0 else left + jump)

    found = slopes(f, noise=1e-16)
    for share in (0, 0.3, 1):
        assert found.kink(left + share * jump, least=1e-8)
    for share in (-0.1, 1.1):
        assert not found.kink(left + share * jump, least=1e-8)
