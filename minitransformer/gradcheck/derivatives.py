"""Numerical derivatives of a function of one number, and how uncertain they are.

All of them take f with f(0) = 0 and return an estimate of f'(0). A long step h errs by the formula (h^4 times the
fifth derivative) and may reach over a bend of f; a short one errs by rounding (1e-16 / h). Which step is right
cannot be known beforehand, but the estimates show it: where they are good, they do not depend on the step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

Function: TypeAlias = Callable[[float], float]

EPS = 2.0**-52
# Powers of two, so that x + h is exact. STEP is near eps^(1/5), where the two errors meet for most functions.
STEP = 2.0**-11
STEPS = tuple(2.0**-4 / 4**k for k in range(9))  # 0.06 … 1e-6: for numbers around 1, but also 0.01 or 100


class Slope(NamedTuple):
    """An estimate of f'(0)."""

    value: float
    doubt: float  # how much the value changed with the step, plus what rounding may have added


class Slopes(NamedTuple):
    """f'(0) as seen from the left, from the right, and from both sides."""

    left: Slope
    right: Slope
    both: Slope

    @property
    def best(self) -> Slope:
        """The slope with the least doubt: if f bends nearby, the one from the side without the bend."""
        return surest(self)

    def cannot_tell(self, value: float, least: float) -> bool:
        """Whether `value` agrees with the slope as far as the slope is known, which is not to `least`.

        This happens between two bends, which leave only short steps, for which few digits of f are right.
        """
        return abs(value - self.best.value) <= 2 * self.best.doubt and least < self.best.doubt < 1e3 * least

    def bend(self, least: float) -> bool:
        """Whether f bends at 0: the slopes to the left and to the right differ by `least` or more, and are sure.

        (A bend nearby would make one of them doubtful.)
        """
        return abs(self.right.value - self.left.value) > max(
            least, 1e4 * (self.left.doubt + self.right.doubt)
        )

    def kink(self, value: float, least: float) -> bool:
        """Whether f bends at 0, and `value` is a slope between those to the left and to the right."""
        low, high = sorted((self.left.value, self.right.value))
        margin = 0.01 * (high - low)
        return self.bend(least) and low - margin <= value <= high + margin


def central(f: Function, h: float = STEP) -> float:
    """f'(0) = [8 (f(h) - f(-h)) - (f(2h) - f(-2h))] / 12h + O(h^4)"""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


def one_sided(f: Function, h: float) -> float:
    """f'(0) = [48 f(h) - 36 f(2h) + 16 f(3h) - 3 f(4h)] / 12h + O(h^4), seen from the side of h"""
    return (48 * f(h) - 36 * f(2 * h) + 16 * f(3 * h) - 3 * f(4 * h)) / (12 * h)


def surest(slopes: Iterable[Slope]) -> Slope:
    """The slope with the least doubt. (A long step may leave the domain of f and give NaN.)"""
    return min(slopes, key=lambda slope: math.inf if math.isnan(slope.doubt) else slope.doubt)


def steadiest(estimate: Callable[[float], float], noise: float) -> Slope:
    """The slope estimate(h), at the step h on which it depends least; `noise` is the size of f's rounding errors."""
    pairs = itertools.pairwise((h, estimate(h)) for h in STEPS)
    return surest(Slope(b, abs(b - a) + noise / h) for (_, a), (h, b) in pairs)


def both_sides(f: Function, noise: float) -> Slope:
    """The slope f'(0) by central differences, at the step on which it depends least."""
    return steadiest(lambda h: central(f, h), noise)


def slopes(f: Function, noise: float) -> Slopes:
    """The slopes f'(0) from each side and from both, each at the step on which it depends least."""
    left = steadiest(lambda h: one_sided(f, -h), noise)
    right = steadiest(lambda h: one_sided(f, h), noise)
    return Slopes(left, right, both_sides(f, noise))


def plainly_smooth(f: Function, estimate: float, doubt: float) -> bool:
    """Whether the slopes to both sides agree with `estimate` far better than to `doubt`: a cheap first test."""
    return max(abs(one_sided(f, h) - estimate) for h in (-STEP, STEP)) < 0.01 * doubt
