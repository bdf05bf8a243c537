"""Gradient checking, for this package's layers and for yours: is backward the derivative of forward?

check.py          the check: forward and backward of a layer against numerical derivatives
each_number.py    the check number by number
directions.py     the check of many numbers at once, along random directions
comparison.py     the moves of numbers, the error that decides, and whether forward is analytic
functions.py      the same check for plain functions
arguments.py      the arguments of a check: their names, and what is refused
hidden.py         Parameters in places where the check does not look for them
subject.py        the layer under test, as a function of the numbers in its inputs and parameters
derivatives.py    numerical derivatives of a function of one number, and how uncertain they are
progress.py       how long a check will take, and how far it is
diagnosis.py      hints on what a wrong gradient usually means
report.py         the results, as a table

The package itself can be called: `minitransformer.gradcheck(layer, x)` calls its function `gradcheck`.
"""

import inspect
import sys
from types import ModuleType
from typing import Any

from minitransformer.gradcheck.check import TOLERANCE, gradcheck
from minitransformer.gradcheck.functions import gradcheck_function
from minitransformer.gradcheck.report import GradcheckReport, Row

__all__ = ["TOLERANCE", "GradcheckReport", "Row", "gradcheck", "gradcheck_function"]


class _Callable(ModuleType):
    """A module that is called as its function `gradcheck` is."""

    def __call__(self, *inputs: Any, **options: Any) -> GradcheckReport:
        return gradcheck(*inputs, **options)


# Whichever is imported first, `minitransformer.gradcheck` is this module: a package's attribute is its submodule.
sys.modules[__name__].__class__ = _Callable
__signature__ = inspect.signature(gradcheck)
