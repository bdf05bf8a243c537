"""Gradient checking: is backward the derivative of forward? Compares it with numerical derivatives.

For a random upstream gradient dy, the number L = Σ forward(x) · dy has the gradient backward(dy). Two independent
methods find the same gradient from forward alone:

    complex step         dL/dx = Im L(x + ih) / h, h = 1e-30        no subtraction, so right to the last digits;
                                                                    forward must be analytic, and run in complex128
    central difference   dL/dx = [8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))] / 12h, in float64
"""

from __future__ import annotations

from typing import Any

from minitransformer.backend import silent_overflow
from minitransformer.errors import InputError
from minitransformer.gradcheck import directions
from minitransformer.gradcheck.each_number import each_number
from minitransformer.gradcheck.progress import Progress
from minitransformer.gradcheck.report import METHODS, GradcheckReport, Row
from minitransformer.gradcheck.subject import Subject
from minitransformer.parameter import loose_arrays

TOLERANCE = {"complex": 1e-12, "central": 1e-8}
# With more numbers than this, directions of all of them are checked instead of each number by itself.
MOST_ELEMENTS = {"complex": 3_000, "central": 1_500}
# How often forward runs for a number, and for a direction, if nothing has to be looked at twice.
RUNS = {"complex": (1, 9), "central": (4, 7)}


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
    total = directions.DIRECTIONS * direction if directional else subject.n_numbers * number
    subject.evaluated = Progress(total, subject.seconds).step
    return (directions.along_directions if directional else each_number)(subject, method, tolerance)
