"""The checks of whatever comes in, each in one place, and the decorator that runs a check before a formula.

settings.py   single numbers and names, and what a model is built from
layers.py     what layers are given: arrays, ids, masks, generators
training.py   what a model, the loss and the optimizer are given
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def checked(check: Callable[..., tuple[Any, ...]]) -> Callable[[F], F]:
    """A decorator of a formula: `check` gets its arguments first, and returns them as the formula needs, or raises.

    Both have the same parameters, with the same default values.
    """

    def attach(formula: F) -> F:
        @wraps(formula)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            try:
                needed = check(*arguments, **named)
            except TypeError:
                # Where the arguments do not fit, this names the formula's parameters, and not the check's.
                signature(formula).bind(*arguments, **named)
                raise
            return formula(*needed)

        return cast(F, wrapper)

    return attach
