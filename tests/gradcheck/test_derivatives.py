"""Derivatives of a function of one number: exact, on the right step, on the right side of a bend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer.gradcheck.derivatives import (
    STEPS,
    Slope,
    Slopes,
    both_sides,
    central,
    one_sided,
    plainly_smooth,
    slopes,
    surest,
)


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


# ---- what follows from slopes and doubts, at the borders of the rules


@pytest.mark.parametrize(
    ("off", "doubt", "least", "expected"),
    [
        (2, 1, 0.5, True),  # in doubts
        (2.01, 1, 0.5, False),
        (-2, 1, 0.5, True),
        (0, 1, 1, False),
        (0, 1, 0.999, True),
        (0, 1000, 1, False),
        (0, 999, 1, True),
        (0, 1000.5, 1, False),
    ],
)
def test_a_value_cannot_be_told_within_two_doubts_that_are_up_to_a_thousand_times_too_large(
    off: float, doubt: float, least: float, expected: bool
) -> None:
    unit = 2.0**-20
    sure = Slope(1.0, doubt * unit)
    found = Slopes(Slope(5.0, 3 * doubt * unit), Slope(7.0, 2 * doubt * unit), sure)
    assert found.best is sure
    assert found.cannot_tell(1.0 + off * doubt * unit, least * unit) is expected


def test_a_kink_has_a_hundredth_of_margin_on_either_side() -> None:
    for left, right in ((0.0, 1.0), (1.0, 0.0)):
        found = Slopes(Slope(left, 1e-9), Slope(right, 1e-9), Slope(0.5, 1.0))
        assert all(found.kink(value, 1e-8) for value in (-0.01, 0.0, 0.5, 1.0, 1.01))
        assert not any(found.kink(value, 1e-8) for value in (-0.0101, 1.0101))


@pytest.mark.parametrize(
    ("jump", "doubt", "least", "expected"),
    [
        (1.0, 0.0, 1.0, False),
        (1.1, 0.0, 1.0, True),
        (1.0, 2.0**-15, 0.0, True),
        (0.61038, 2.0**-15, 0.0, True),
        (0.61035, 2.0**-15, 0.0, False),
    ],
)
def test_a_bend_is_a_jump_far_beyond_the_doubts(
    jump: float, doubt: float, least: float, expected: bool
) -> None:
    for sign in (-1, 1):
        assert Slopes(Slope(0.0, doubt), Slope(sign * jump, doubt), Slope(0.0, 0.0)).bend(least) is expected


def test_what_is_plainly_smooth_agrees_to_a_hundredth_of_the_doubt_on_both_sides() -> None:
    def f(t: float) -> float:
        return 2 * t if t > 0 else 2.5 * t

    assert plainly_smooth(lambda t: 2 * t, 2.0, doubt=1e-3)
    assert plainly_smooth(f, 2.0, doubt=51.0) and plainly_smooth(f, 2.5, doubt=51.0)
    assert not plainly_smooth(f, 2.0, doubt=49.0) and not plainly_smooth(f, 2.5, doubt=49.0)
    assert not plainly_smooth(lambda t: 2 * t, 2.0, doubt=0.0)


def test_the_surest_slope_is_never_one_whose_doubt_is_not_a_number() -> None:
    nan, wide, sure = Slope(1.0, math.nan), Slope(2.0, 1.0), Slope(3.0, 0.5)
    for order in ([nan, wide, sure], [sure, nan, wide], [wide, sure, nan]):
        assert surest(order) is sure
