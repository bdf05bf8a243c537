"""Gradient checking, for this package's layers and for yours: is backward the derivative of forward?

check.py          the check: forward and backward of a layer against numerical derivatives
functions.py      the same check for plain functions
subject.py        the layer under test, as a function of the numbers in its inputs and parameters
derivatives.py    numerical derivatives of a function of one number, and how uncertain they are
diagnosis.py      hints on what a wrong gradient usually means
report.py         the results, as a table
"""

from minitransformer.gradcheck.check import TOLERANCE, gradcheck
from minitransformer.gradcheck.functions import gradcheck_function
from minitransformer.gradcheck.report import GradcheckReport, Row

__all__ = ["TOLERANCE", "GradcheckReport", "Row", "gradcheck", "gradcheck_function"]
