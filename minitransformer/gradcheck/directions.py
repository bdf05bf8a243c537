"""The check along directions: many numbers are moved at once, along a random direction of all of them."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from minitransformer.backend import Array
from minitransformer.gradcheck.comparison import check_analytic, mover_along, relative_error
from minitransformer.gradcheck.derivatives import STEP, STEPS, Slope, both_sides, central, slopes
from minitransformer.gradcheck.diagnosis import nothing_compared
from minitransformer.gradcheck.report import ALONG, Row
from minitransformer.gradcheck.subject import COMPLEX_STEP, Subject, norm

DIRECTIONS = 2  # a fault that is missed along one by chance is seen along the other
MOST_MOVES = 5  # how often a direction that starts at a kink gets another start


def along_directions(subject: Subject, method: str, tolerance: float) -> list[Row]:
    """A row with the worse of two derivatives along directions of all numbers; if it is wrong, one for each variable.

    A direction that could not be compared counts only if none could.
    """
    rows = []
    for _ in range(DIRECTIONS):
        rows.append(one_direction(subject, method, tolerance, subject.variables))
        subject.draw_upstream()  # a number to which one dy gives little weight is missed along every direction
    worst = max(rows, key=lambda row: (row.checked, row.relative_error))
    worst = replace(worst, kinks=max(row.kinks for row in rows))
    if not worst.checked or worst.relative_error <= tolerance:
        return [worst]
    rows = [replace(worst, hint="directional=False, on a smaller layer, shows which numbers are wrong")]
    each = {name: tuple(x.shape) for name, x in subject.variables.items() if x.size}
    for name, shape in each.items() if len(each) > 1 else ():
        row = one_direction(subject, method, tolerance, [name])
        rows.append(replace(row, name=name, shape=shape))
    return rows


def one_direction(
    subject: Subject, method: str, tolerance: float, names: Collection[str], moves: int = 0
) -> Row:
    """The derivative of L along a random direction of the variables `names`, no component of which is near zero.

    If L has a kink there, all variables move a little, and another derivative is checked; `moves` counts these moves.
    """
    analytic, direction = subject.analytic_gradients(), subject.random_direction(names)
    count = sum(int(u.size) for u in direction.values())
    length = norm(analytic[name] for name in names) / count**0.5
    a = sum(float((analytic[name] * u).sum()) for name, u in direction.items())
    f = subject.change(mover_along({name: subject.variables[name] for name in names}, direction))
    noise = subject.noise
    if method == "complex":
        seen = Slope(complex_step(subject, direction), noise)
    else:
        seen = Slope(central(f), noise / STEP)
        if a != seen.value and not relative_error(a, seen.value, length) <= tolerance / 10:
            seen = both_sides(f, noise)
    n = seen.value
    # a gradient of zeros is right only if no slope is seen
    floor = length or (abs(n) if abs(n) > seen.doubt else subject.size)
    hint, checked, unsure = "", 1, 0
    agrees, h = bool(relative_error(a, n, floor) <= tolerance), STEPS[-1]
    # at a kink the slopes to both sides differ, though their mean may be `a`
    if not agrees or abs(f(h) + f(-h)) / h > 1e-3 * max(abs(n), floor):
        found, least = slopes(f, noise), tolerance * floor
        f(0.0)
        if found.bend(least) and math.isfinite(a) and moves < MOST_MOVES:
            subject.step_aside()
            return one_direction(subject, method, tolerance, names, moves + 1)
        unsure = int(method == "central" and not agrees and found.cannot_tell(a, least))
        checked = 0 if unsure or found.kink(a, least) else 1
        n = n if agrees or method == "complex" else found.best.value
        hint = "" if checked else nothing_compared(1 - unsure, unsure)
    f(0.0)
    if method == "complex":
        check_analytic(subject, direction, n)
    error = float(relative_error(a, n, floor)) if checked else math.inf
    return Row(ALONG, (count,), (), a, n, error, moves, unsure, checked, hint)


def complex_step(subject: Subject, direction: dict[str, Array]) -> float:
    """The derivative of L along the direction, by one complex step."""
    variables, imaginary = subject.complex_change()
    for name, u in direction.items():
        variables[name].imag = COMPLEX_STEP * u
    return imaginary()
