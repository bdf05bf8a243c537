"""Is a backward pass the derivative of its forward pass? The checker for our layers and for yours.

check.py          the check: forward and backward of a layer against numerical derivatives
derivatives.py    numerical derivatives of a function of one number, and how sure they are
diagnosis.py      what a wrong gradient usually means
report.py         what was found, as a table
"""

from minitransformer.gradcheck.check import TOLERANCE, gradcheck
from minitransformer.gradcheck.report import GradcheckReport, Row

__all__ = ["TOLERANCE", "GradcheckReport", "Row", "gradcheck"]
