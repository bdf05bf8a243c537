"""The gradient checks of all cases, by both methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from minitransformer.backend import generator
from minitransformer.checks.cases import BASE_MODEL, CASES, Case
from minitransformer.checks.inputs import Sizes
from minitransformer.checks.own import check_own
from minitransformer.gradcheck import GradcheckReport, gradcheck
from minitransformer.system import single_blas_thread
from minitransformer.validation.settings import one_of

METHODS = ("complex", "central")


class Outcome(NamedTuple):
    """The results for one layer: a report for each of its cases, by each method that can be used."""

    name: str
    reports: list[GradcheckReport]

    @property
    def ok(self) -> bool:
        """Whether every gradient agrees with the numerical one."""
        return all(report.ok for report in self.reports)

    @property
    def n_numbers(self) -> int:
        """How many derivatives each method took, or how many numbers the directions have."""
        return sum(report.n_numbers for report in self.reports if report.method == "central")

    @property
    def left_out(self) -> int:
        """How many numbers were left out, at a kink or not known well enough: see Row."""
        each = (row for report in self.reports if not report.directional for row in report.rows)
        return sum(row.kinks + row.unsure for row in each)

    def worst(self, method: str) -> GradcheckReport | None:
        """The report with the largest relative error by this method, if there is one."""
        by_method = (report for report in self.reports if report.method == method)
        return max(by_method, key=lambda report: report.max_relative_error, default=None)


def check_gradients(names: Sequence[str] = (), full: bool = False, seed: int = 0) -> Iterator[Outcome]:
    """Check the layers called `names` (none: all of them, and the whole model) by both methods, one after another.

    A name may be a layer of ours, or FILE.py:NAME. `full` adds the base model of the paper. Raises ConfigError for a
    name that is not in CASES.
    """
    for name in names:
        if not is_own(name):
            one_of("layer", name, CASES)
    chosen = dict.fromkeys([*(names or CASES), *(BASE_MODEL if full else ())])
    return (outcome(name, seed) for name in chosen)


def is_own(name: str) -> bool:
    """Whether `name` is one in a user's file: FILE.py:NAME."""
    return ".py:" in name


def outcome(name: str, seed: int) -> Outcome:
    """Check all cases of one layer by both methods."""
    with single_blas_thread():  # several threads slow small products down
        if is_own(name):
            return Outcome(name, check_own(name, seed))
        cases = BASE_MODEL.get(name) or CASES[name]
        return Outcome(name, [check(case, method, seed) for case in cases for method in METHODS])


def check(case: Case, method: str, seed: int = 0) -> GradcheckReport:
    """Check one case by one method, with dropout."""
    layer, inputs = case(Sizes(), generator(seed))
    return gradcheck(layer, *inputs, method=method, dropout_seed=seed, seed=seed)
