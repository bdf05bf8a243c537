"""`minitransformer gradcheck`: checks every layer, and prints a line for each."""

from __future__ import annotations

import argparse
import textwrap
import time

from minitransformer.checks import CASES, check_gradients
from minitransformer.checks.run import METHODS, Outcome, is_own
from minitransformer.commands.common import Answer, Commands
from minitransformer.gradcheck import TOLERANCE, GradcheckReport
from minitransformer.streams import write


def add(commands: Commands) -> None:
    """Add the command `gradcheck`."""
    sub = commands.add(
        "gradcheck", check_all, "compare every backward pass with numerical derivatives", _epilog()
    )
    sub.add_argument(
        "layers",
        metavar="LAYER",
        nargs="*",
        help="a layer below, or FILE.py:NAME for one of your own (default: all below, and the whole model)",
    )
    sub.add_argument(
        "--full", action="store_true", help="also the paper's base model: 63 million parameters, 5 GB"
    )


def _epilog() -> str:
    names = textwrap.fill(", ".join(CASES), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"layers:\n{names}\n"
        "The complex step is right to the last digits; central differences are a second, independent method. Small\n"
        "layers are checked number by number, those of thousands of numbers (marked *) along two random directions.\n"
        "FILE.py:NAME is a tuple (layer, input, ...) or (f, f_backward, array, ...), or a function that returns one.\n"
        "The exit status is 1 if a gradient is wrong.\n "
    )


def check_all(arguments: argparse.Namespace) -> Answer:
    """Check every gradient; print a line for each layer as soon as it is done."""

    def tell(*columns: str) -> None:
        if not arguments.json:
            write("{:<27}{:>11}  {:>13}  {:>20}  {}".format(*columns).rstrip())

    start, outcomes = time.perf_counter(), []
    checks = check_gradients(arguments.layers, arguments.full)
    tell("layer", "numbers", "complex step", "central differences", "")
    for outcome in checks:
        outcomes.append(outcome)
        left_out = f"  ({outcome.left_out} left out)" if outcome.left_out else ""
        errors = (_error_of(outcome.worst(method)) for method in METHODS)
        tell(outcome.name, f"{outcome.n_numbers:,}", *errors, ("ok" if outcome.ok else "WRONG") + left_out)
    worst = {m: max((_error(o, m) for o in outcomes), key=lambda e: e or 0.0) for m in METHODS}
    # for a layer of the user's own, everything is shown
    shown = [str(r) for o in outcomes for r in o.reports if not r.ok or is_own(o.name)]
    answer = {
        "ok": all(outcome.ok for outcome in outcomes),
        "seconds": time.perf_counter() - start,
        "worst": worst,
        "layers": [
            {
                "name": outcome.name,
                "numbers": outcome.n_numbers,
                **{method: _error(outcome, method) for method in METHODS},
                "ok": outcome.ok,
            }
            for outcome in outcomes
        ],
    }
    tell(
        "largest relative error",
        "",
        *("none " if worst[m] is None else f"{worst[m]:.1e} " for m in METHODS),
        f"in {answer['seconds']:.0f} s",
    )
    tell("tolerance", "", *(f"{TOLERANCE[m]:.1e} " for m in METHODS), "")
    return answer, "\n".join(shown) or "Every gradient agrees with its numerical derivatives."


def _error(outcome: Outcome, method: str) -> float | None:
    report = outcome.worst(method)
    return report.max_relative_error if report else None


def _error_of(report: GradcheckReport | None) -> str:
    if report is None:
        return "none "
    error = report.max_relative_error
    return ("<1e-16" if error < 1e-16 else f"{error:.1e}") + ("*" if report.directional else " ")
