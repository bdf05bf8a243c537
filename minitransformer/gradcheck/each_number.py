"""The check number by number: every entry of every input and parameter is moved by itself."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minitransformer.backend import Array, array_module, to_host, zeros
from minitransformer.gradcheck.comparison import check_analytic, mover, relative_error
from minitransformer.gradcheck.derivatives import STEP, central, plainly_smooth, slopes
from minitransformer.gradcheck.diagnosis import diagnose, nothing_compared
from minitransformer.gradcheck.report import Row
from minitransformer.gradcheck.subject import COMPLEX_STEP, Subject

FLOOR = 1e-2  # the error of gradients below this share of the largest is relative to that share, not to themselves
MOST_DOUBTS = 20  # after so many entries that stay wrong on a second look, the others get none


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
        if not a.any() and not n.any():
            hint = "0 everywhere: is it not used, or do zeros in the inputs hide its gradient?"
        hint = hint if checked else nothing_compared(kinks, unsure)
        worst = float(a[index]), float(n[index]), float(error[index]) if checked else math.inf
        rows.append(Row(name, tuple(n.shape), index, *worst, kinks, unsure, checked, hint))
    return rows


def complex_steps(subject: Subject) -> dict[str, Array]:
    """Name -> gradient, on the CPU, by complex steps."""
    variables, imaginary = subject.complex_change()
    numeric = zeros_for(subject.variables)
    for name, x in variables.items():
        imag = x.reshape(-1).imag
        for i in range(x.size):
            imag[i] = COMPLEX_STEP
            numeric[name].reshape(-1)[i] = imaginary()
            imag[i] = 0
    return numeric


def central_differences(subject: Subject) -> dict[str, Array]:
    """Name -> gradient, on the CPU, by central differences of one step."""
    numeric = zeros_for(subject.variables)
    for name, x in subject.variables.items():
        for i in range(x.size):
            move = mover(x, i)
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
        move, a_i, n_i = mover(subject.variables[name], i), float(a.ravel()[i]), float(flat[i])
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


def largest(gradients: Iterable[Array]) -> float:
    """The largest absolute value of all finite entries."""
    finite = (abs(g[array_module(g).isfinite(g)]) for g in gradients)
    return max((float(g.max()) for g in finite if g.size), default=0.0)


def zeros_for(variables: dict[str, Array]) -> dict[str, Array]:
    """An array of zeros for each variable, on the CPU."""
    return {name: zeros(x.shape, "float64") for name, x in variables.items()}
