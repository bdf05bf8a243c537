"""Gradient checking: is backward the derivative of forward? Compares it with numerical derivatives.

For a random upstream gradient dy, the number L = Σ forward(x) · dy has the gradient backward(dy). Two independent
methods find the same gradient from forward alone:

    complex step         dL/dx = Im L(x + ih) / h, h = 1e-30        no subtraction, so right to the last digits;
                                                                    forward must be analytic, and run in complex128
    central difference   dL/dx = [8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))] / 12h, in float64
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from minitransformer.backend import Array, array_module, silent_overflow, to_host, zeros
from minitransformer.errors import InputError
from minitransformer.gradcheck.derivatives import (
    EPS,
    STEP,
    STEPS,
    Slope,
    both_sides,
    central,
    plainly_smooth,
    slopes,
)
from minitransformer.gradcheck.diagnosis import diagnose, nothing_compared
from minitransformer.gradcheck.progress import Progress
from minitransformer.gradcheck.report import ALONG, METHODS, GradcheckReport, Row
from minitransformer.gradcheck.subject import ANALYTIC, COMPLEX_STEP, Subject, norm
from minitransformer.parameter import loose_arrays

TOLERANCE = {"complex": 1e-12, "central": 1e-8}
FLOOR = 1e-2  # the error of gradients below this share of the largest is relative to that share, not to themselves
# With more numbers than this, directions of all of them are checked instead of each number by itself.
MOST_ELEMENTS = {"complex": 3_000, "central": 1_500}
DIRECTIONS = 2  # a fault that is missed along one by chance is seen along the other
# How often forward runs for a number, and for a direction, if nothing has to be looked at twice.
RUNS = {"complex": (1, 9), "central": (4, 7)}
# Where forward is analytic, derivatives by complex and by real steps agree at least to this precision.
ANALYTIC_TO = 1e-6
MOST_DOUBTS = 20  # after so many entries that stay wrong on a second look, the others get none
MOST_MOVES = 5  # how often a direction that starts at a kink gets another start


@silent_overflow()
def gradcheck(
    layer: Any,
    *inputs: Any,
    method: str = "central",
    directional: bool | None = None,
    dropout_seed: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    **unknown: Any,
) -> GradcheckReport:
    """Check `layer.backward` for `layer.forward(*inputs)`.

    `layer` is any object with the two methods of the contract in module.py, a subclass of Module or not; its
    parameters are the `Parameter`s among its attributes, and those of the layers among them. Gradients are
    checked for every floating-point input, in their order, and every parameter; inputs of other types (ids,
    masks, None) are passed on as they are. The layer itself is not touched, because a deep copy in float64 is checked.
    The upstream gradient dy is random (`seed`). So is, in the copy, every parameter whose entries are all equal,
    because a gamma of ones and a bias of zeros hide mistakes. The report is also not ok if the layer was seen to
    write to its inputs, its parameters or dy, to keep something between forward and backward outside the cache, or
    to be random without its rng.

    method        "central" or "complex". Central differences need numbers between about 0.01 and 100; complex
                  steps work with any numbers, but need an analytic forward
    directional   False: every number by itself. True: the derivatives along two random directions of all inputs
                  and parameters at once, and, if one is wrong, along a direction of each. None: directions above
                  3,000 numbers (central: 1,500)
    dropout_seed  checks the layer in training, each forward(…, rng=…) drawing the same random numbers
    tolerance     of the relative error |analytic - numeric| / max(|analytic|, |numeric|, floor), the floor being
                  1 % of the largest gradient, or, along a direction, the length of the gradient over the root of
                  the number of numbers; by default 1e-12 for complex steps, 1e-8 for central differences

    A check that takes long says on standard error how long it will take, and how far it is.

    Raises InputError for something that is not a layer or not a method, if there is nothing to differentiate, if
    backward does not return a gradient of the right shape for each floating-point input, or if forward does not run
    in complex numbers or is not analytic (method "complex").
    """
    if unknown:
        raise InputError(
            f"gradcheck: expected method, directional, dropout_seed, seed or tolerance, got {', '.join(unknown)}; "
            f"inputs of forward are passed by position: gradcheck(layer, x, mask)"
        )
    tolerance = checked_tolerance(method, tolerance)
    subject = Subject(layer, inputs, dropout_seed, seed)
    rows = compare(subject, method, directional, tolerance)
    notes = [
        f"{path}: floats, but no Parameter; their gradient is not checked" for path in loose_arrays(layer)
    ]
    broken = subject.not_found + subject.broken
    return GradcheckReport(type(layer).__name__, method, tolerance, subject.n_numbers, rows, broken, notes)


def checked_tolerance(method: str, tolerance: float | None) -> float:
    """The tolerance, or the method's own for None. Raises InputError for an unknown method and a bad tolerance."""
    if method not in list(METHODS):
        raise InputError(f"method: expected 'central' or 'complex', got {method!r}")
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 <= tolerance < 1):
        raise InputError(f"tolerance: expected a number 0 <= x < 1, or None, got {tolerance!r}")
    return TOLERANCE[method] if tolerance is None else tolerance


def compare(subject: Subject, method: str, directional: bool | None, tolerance: float) -> list[Row]:
    """The rows of the report: number by number, or along directions of all numbers, where there are many of them."""
    if directional is None:
        directional = subject.n_numbers > MOST_ELEMENTS[method]
    number, direction = RUNS[method]
    total = DIRECTIONS * direction if directional else subject.n_numbers * number
    subject.evaluated = Progress(total, subject.seconds).step
    return (along_directions if directional else each_number)(subject, method, tolerance)


def each_number(subject: Subject, method: str, tolerance: float) -> list[Row]:
    """One row with the worst entry of each variable, every entry moved by itself. Gradients are compared on the CPU."""
    analytic = {name: to_host(a) for name, a in subject.analytic_gradients().items()}
    sizes = subject.sizes()
    found = complex_steps(subject) if method == "complex" else central_differences(subject)
    numeric = {name: n for name, n in found.items() if n.size}
    if method == "complex":
        for name, u in subject.random_direction(numeric).items():
            check_analytic(subject, {name: u}, float((numeric[name] * to_host(u)).sum()))
    most = [largest(gradients.values()) for gradients in (analytic, numeric)]
    doubt = subject.noise / STEP if method == "central" else subject.noise
    all_zero = not most[0] and most[1] <= doubt  # as far as one can tell in spite of rounding
    # `largest` leaves out the infinity that a step over a pole gives
    floor = subject.size if all_zero else FLOOR * (min(most) or max(most))
    rows = []
    for name, n in numeric.items():
        a = analytic[name]
        kinks, unsure = settle_doubts(subject, name, a, n, method, tolerance, floor)
        error = relative_error(a, n, floor)
        index = tuple(int(i) for i in array_module(n).unravel_index(int(error.argmax()), n.shape))
        hint = "" if error[index] <= tolerance else diagnose(name, analytic, numeric, sizes)
        checked = int(n.size) - kinks - unsure
        hint = hint if checked else nothing_compared(kinks, unsure)
        worst = float(a[index]), float(n[index]), float(error[index]) if checked else math.inf
        rows.append(Row(name, tuple(n.shape), index, *worst, kinks, unsure, checked, hint))
    return rows


def complex_steps(subject: Subject) -> dict[str, Array]:
    """Name -> gradient, on the CPU, by complex steps."""
    variables, imaginary = subject.complex_change()
    numeric = _zeros_for(subject.variables)
    for name, x in variables.items():
        imag = x.reshape(-1).imag
        for i in range(x.size):
            imag[i] = COMPLEX_STEP
            numeric[name].reshape(-1)[i] = imaginary()
            imag[i] = 0
    return numeric


def central_differences(subject: Subject) -> dict[str, Array]:
    """Name -> gradient, on the CPU, by central differences of one step."""
    numeric = _zeros_for(subject.variables)
    for name, x in subject.variables.items():
        for i in range(x.size):
            move = _mover(x, i)
            numeric[name].reshape(-1)[i] = central(subject.change(move))
            move(0.0)
    return numeric


def settle_doubts(
    subject: Subject, name: str, a: Array, n: Array, method: str, tolerance: float, floor: float
) -> tuple[int, int]:
    """Look again, with many step sizes, at the entries of `n` that differ from `a`, and correct n in place.

    Others are looked at too, until one is found that is at no kink, because entries at a kink may agree by chance: the
    central difference of |x| at 0 is 0, and so is sign(0). Returns how many are at a kink, and for how many the
    derivative cannot be known to the tolerance. Both are left out of the comparison, by setting n to a.
    """
    error, flat = relative_error(a, n, floor).ravel(), n.reshape(-1)
    kinks = unsure = compared = stayed_wrong = 0
    for i in (-error).argsort().tolist():
        agrees = bool(error[i] <= tolerance / 10)
        if (agrees and compared) or stayed_wrong == MOST_DOUBTS:
            break
        move, a_i, n_i = _mover(subject.variables[name], i), float(a.ravel()[i]), float(flat[i])
        f, compared = subject.change(move), compared + 1
        if not plainly_smooth(f, n_i, doubt=max(abs(a_i), floor) if agrees else abs(n_i - a_i)):
            found, least = slopes(f, subject.noise), tolerance * max(abs(a_i), floor)
            if found.kink(a_i, least):
                flat[i], kinks, compared = a_i, kinks + 1, compared - 1
            elif method == "central" and not agrees and found.cannot_tell(a_i, least):
                flat[i], unsure, compared = a_i, unsure + 1, compared - 1
            elif method == "central" and not agrees:
                flat[i] = found.best.value
        move(0.0)
        stayed_wrong += not relative_error(a_i, flat[i], floor) <= tolerance
    return kinks, unsure


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
    f = subject.change(_mover_along({name: subject.variables[name] for name in names}, direction))
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


def check_analytic(subject: Subject, direction: dict[str, Array], n: float) -> None:
    """Raise InputError if `n`, the derivative along the direction by complex steps, differs from that by real steps.

    They differ if a part of forward is not analytic, such as a norm, which runs in complex numbers but has another
    derivative there. A difference of a millionth is enough to tell, and bends of L are not mistaken for it.
    """
    f = subject.change(_mover_along({name: subject.variables[name] for name in direction}, direction))
    if abs(n - central(f)) > ANALYTIC_TO * abs(n):
        found = slopes(f, subject.noise)
        real, unseen = found.best.value, EPS * abs(f(STEPS[-1])) / STEPS[-1]
        if abs(n - real) > ANALYTIC_TO * abs(n) + 10 * found.best.doubt + unseen and not found.bend(0.0):
            raise InputError(
                f"forward: its derivative is {n:.6g} by complex steps, {real:.6g} by real ones: {ANALYTIC}"
            )
    f(0.0)


def largest(gradients: Iterable[Array]) -> float:
    """The largest absolute value of all finite entries."""
    finite = (abs(g[array_module(g).isfinite(g)]) for g in gradients)
    return max((float(g.max()) for g in finite if g.size), default=0.0)


def relative_error(a: Any, n: Any, floor: float) -> Array:
    """|a - n| / max(|a|, |n|, floor); infinite where that is NaN."""
    xp = array_module(n)
    error = abs(a - n) / xp.maximum(xp.maximum(abs(a), abs(n)), floor)
    return xp.where(xp.isnan(error), xp.inf, error)


def _zeros_for(variables: dict[str, Array]) -> dict[str, Array]:
    return {name: zeros(x.shape, "float64") for name, x in variables.items()}


def _mover(x: Array, i: int) -> Callable[[float], None]:
    """A function move(t) that moves the i-th number of x by t from where it is now."""
    flat, start = x.reshape(-1), float(x.reshape(-1)[i])

    def move(t: float) -> None:
        flat[i] = start + t

    return move


def _mover_along(variables: dict[str, Array], direction: dict[str, Array]) -> Callable[[float], None]:
    """A function move(t) that moves all variables by t along the direction from where they are now."""
    start = {name: x.copy() for name, x in variables.items()}

    def move(t: float) -> None:
        for name, x in variables.items():
            x[...] = start[name] + t * direction[name]

    return move
