"""`minitransformer gradcheck`: checks every layer, and prints a line for each."""

from __future__ import annotations

import argparse
import textwrap
import time

from minitransformer.checks import CASES, check_gradients
from minitransformer.checks.run import METHODS
from minitransformer.commands.common import Answer, Commands
from minitransformer.gradcheck import TOLERANCE, GradcheckReport
from minitransformer.streams import write


def add(commands: Commands) -> None:
    """Add the command `gradcheck`."""
    sub = commands.add(
        "gradcheck", check_all, "compare every backward pass with numerical derivatives", _epilog()
    )
    sub.add_argument(
        "layers", metavar="LAYER", nargs="*", help="which to check (default: all, and the whole model)"
    )
    sub.add_argument(
        "--full", action="store_true", help="also the paper's base model: 63 million parameters, 4 GB"
    )


def _epilog() -> str:
    names = textwrap.fill(", ".join(CASES), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"layers:\n{names}\n"
        "The complex step is right to the last digits, central differences are independent of it. Small layers are\n"
        "checked number by number; where there are thousands (marked *), along two random directions of them all.\n"
        "Exit status 1 if a gradient is wrong. For a layer of your own: minitransformer.gradcheck in Python.\n "
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
    worst = {m: max(outcome.worst(m).max_relative_error for outcome in outcomes) for m in METHODS}
    wrong = [str(report) for outcome in outcomes for report in outcome.reports if not report.ok]
    answer = {
        "ok": not wrong,
        "seconds": time.perf_counter() - start,
        "worst": worst,
        "layers": [
            {
                "name": outcome.name,
                "numbers": outcome.n_numbers,
                **{method: outcome.worst(method).max_relative_error for method in METHODS},
                "ok": outcome.ok,
            }
            for outcome in outcomes
        ],
    }
    tell(
        "largest relative error", "", *(f"{worst[m]:.1e} " for m in METHODS), f"in {answer['seconds']:.0f} s"
    )
    tell("tolerance", "", *(f"{TOLERANCE[m]:.1e} " for m in METHODS), "")
    return answer, "\n".join(wrong) or "Every gradient agrees with its numerical derivatives."


def _error_of(report: GradcheckReport) -> str:
    error = report.max_relative_error
    return ("<1e-16" if error < 1e-16 else f"{error:.1e}") + ("*" if report.directional else " ")
