"""Tools for tests of layers, this package's and yours: inputs to try them on, and laws that have to hold.

strategies.py    Hypothesis strategies for sizes, arrays, masks and ids on which a wrong formula shows (extra `test`)
laws.py          what holds for every layer that keeps the contract of module.py, as functions that take one
"""

from minitransformer.testing.laws import (
    arrays_in,
    assert_accumulates,
    assert_causal,
    assert_close,
    assert_ignores,
    assert_linear,
    assert_pure,
    assert_reentrant,
    assert_same,
    gradients,
    upstream,
)

__all__ = [
    "arrays_in",
    "assert_accumulates",
    "assert_causal",
    "assert_close",
    "assert_ignores",
    "assert_linear",
    "assert_pure",
    "assert_reentrant",
    "assert_same",
    "gradients",
    "upstream",
]
