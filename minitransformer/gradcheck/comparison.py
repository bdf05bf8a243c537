"""Comparing a gradient with its numerical value: the moves, the error that decides, whether forward is analytic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minitransformer.backend import Array, array_module
from minitransformer.errors import InputError
from minitransformer.gradcheck.derivatives import EPS, STEPS, central, slopes
from minitransformer.gradcheck.subject import ANALYTIC, Subject

# Where forward is analytic, derivatives by complex and by real steps agree at least to this precision.
ANALYTIC_TO = 1e-6


def relative_error(a: Any, n: Any, floor: float) -> Array:
    """|a - n| / max(|a|, |n|, floor); infinite where that is NaN."""
    xp = array_module(n)
    error = abs(a - n) / xp.maximum(xp.maximum(abs(a), abs(n)), floor)
    return xp.where(xp.isnan(error), xp.inf, error)


def check_analytic(subject: Subject, direction: dict[str, Array], n: float) -> None:
    """Raise InputError if `n`, the derivative along the direction by complex steps, differs from that by real steps.

    They differ if a part of forward is not analytic, such as a norm, which runs in complex numbers but has another
    derivative there. A difference of a millionth is enough to tell, and bends of L are not mistaken for it.
    """
    f = subject.change(mover_along({name: subject.variables[name] for name in direction}, direction))
    if abs(n - central(f)) > ANALYTIC_TO * abs(n):
        found = slopes(f, subject.noise)
        real, unseen = found.best.value, EPS * abs(f(STEPS[-1])) / STEPS[-1]
        if abs(n - real) > ANALYTIC_TO * abs(n) + 10 * found.best.doubt + unseen and not found.bend(0.0):
            raise InputError(
                f"forward: its derivative is {n:.6g} by complex steps, {real:.6g} by real ones: {ANALYTIC}"
            )
    f(0.0)


def mover(x: Array, i: int) -> Callable[[float], None]:
    """A function move(t) that moves the i-th number of x by t from where it is now."""
    flat, start = x.reshape(-1), float(x.reshape(-1)[i])

    def move(t: float) -> None:
        flat[i] = start + t

    return move


def mover_along(variables: dict[str, Array], direction: dict[str, Array]) -> Callable[[float], None]:
    """A function move(t) that moves all variables by t along the direction from where they are now."""
    start = {name: x.copy() for name, x in variables.items()}

    def move(t: float) -> None:
        for name, x in variables.items():
            x[...] = start[name] + t * direction[name]

    return move
