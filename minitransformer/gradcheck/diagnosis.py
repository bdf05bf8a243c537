"""Hints on what is wrong with a gradient, if its errors have a known pattern.

Each function looks for one pattern in `a` (the gradient that backward returned), compared with `n` (the numerical
one, of the same shape), and returns a hint, or "".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from minitransformer.backend import Array, array_module

CLOSE = 1e-5  # patterns are looked for to this precision, relative to the largest entry


def diagnose(
    name: str, analytic: Mapping[str, Array], numeric: Mapping[str, Array], sizes: Mapping[int, str]
) -> str:
    """A hint on what is wrong with the gradient `name`, or "". `sizes`: number -> which axes have that size."""
    a, n = analytic[name], numeric[name]
    xp = array_module(n)
    if not bool(xp.isfinite(n).all()):
        return "forward gives NaN or infinity near this point"
    if not bool(xp.isfinite(a).all()):
        return "backward gives NaN or infinity"
    if close(a, n):
        return "right to five digits of the largest entry: rounding? a single wrong entry?"
    if not bool(a.any()):
        return "backward gives zero everywhere: is this gradient computed, and added with +=?"
    return (
        factor(a, n, sizes)
        or exchanged(name, analytic, numeric)
        or transposed(a, n)
        or mask_forgotten(a, n)
        or missing_mean(a, n)
        or some_rows(a, n)
    )


def nothing_compared(kinks: int, unsure: int) -> str:
    """Advice for a report in which every number was left out, at `kinks`, or because its derivative is `unsure`."""
    kink = "forward has a kink at each of them: give it other numbers, e.g. random ones for zeros"
    digits = "their derivatives have too few digits: try method='complex', or numbers around 1"
    return "nothing was compared: " + "; ".join([kink] * (kinks > 0) + [digits] * (unsure > 0))


def close(a: Array, n: Array) -> bool:
    """Whether all entries of `a` are equal to those of `n`, to within CLOSE times the largest."""
    return tuple(a.shape) == tuple(n.shape) and float(abs(a - n).max()) <= CLOSE * float(abs(n).max())


def factor(a: Array, n: Array, sizes: Mapping[int, str]) -> str:
    """A hint if a = c n: a sum for a mean, a forgotten factor, a wrong sign."""
    c = float((a * n).sum()) / (float((n * n).sum()) or math.nan)
    if not c or not close(a, c * n):
        return ""
    if abs(c + 1) < CLOSE:
        return "every entry has the wrong sign"
    if abs(c - 0.5) < CLOSE:
        return "every entry is half of what it should be: = where += belongs (backward is called twice)?"
    for size, axes in sizes.items():
        roots = [] if math.isqrt(size) ** 2 == size else [(0.5, f"sqrt({size})")]
        for power, form in [(1.0, f"{size}"), *roots]:
            if abs(c / size**power - 1) < CLOSE:
                return f"every entry is {form} times too large, and {size} is {axes}: a sum where a mean belongs?"
            if abs(c * size**power - 1) < CLOSE:
                return f"every entry is {form} times too small, and {size} is {axes}: divided once too often?"
    return f"every entry is {c:.6g} times what it should be: a factor too many or too few"


def exchanged(name: str, analytic: Mapping[str, Array], numeric: Mapping[str, Array]) -> str:
    """A hint if `a` is the gradient of another input."""
    others = (
        other for other, n in numeric.items() if other != name and bool(n.any()) and close(analytic[name], n)
    )
    return next((f"this is the gradient of {other}" for other in others), "")


def transposed(a: Array, n: Array) -> str:
    """A hint if `a` has the right numbers, with its axes in another order."""
    for axes in itertools.permutations(range(n.ndim)):
        moved = n.transpose(axes)
        if list(axes) != list(range(n.ndim)) and close(a, moved.reshape(n.shape)):
            return f"the right numbers, but with axes {list(axes)}: a transpose too many or too few?"
    return ""


def mask_forgotten(a: Array, n: Array) -> str:
    """A hint if `a` is right where the gradient is not zero, but not zero where it should be."""
    zero = n == 0
    if bool(zero.any()) and not bool(zero.all()) and bool(a[zero].any()):
        kept = a[~zero]
        c = float((kept * n[~zero]).sum() / (n[~zero] ** 2).sum())
        if close(kept, c * n[~zero]):
            return "not zero where it should be: a mask left out of backward (dropout, ReLU, attention)?"
    return ""


def missing_mean(a: Array, n: Array) -> str:
    """A hint if a - n does not change along an axis: a mean or a sum over this axis is missing, or one too many."""
    d = a - n
    for axis in reversed(range(d.ndim)):
        change = float(abs(d - d.mean(axis, keepdims=True)).max())
        if d.shape[axis] > 1 and change <= CLOSE * float(abs(d).max()):
            return f"off by the same amount all along axis {axis}: is a mean or a sum over it missing?"
    return ""


def some_rows(a: Array, n: Array) -> str:
    """A hint if `a` is wrong only in some rows of the first axis."""
    wrong = abs(a - n).reshape(len(n), -1).max(-1) > CLOSE * float(abs(n).max()) if n.ndim > 1 else []
    rows = [i for i, bad in enumerate(wrong) if bad]
    if 0 < len(rows) < len(wrong):
        listed = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
        return f"wrong in {len(rows)} of {len(wrong)} rows ({listed}): an index that occurs twice, a mask?"
    return ""
