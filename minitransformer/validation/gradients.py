"""Checks of what a layer's backward is given: the gradient of its output."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeAlias, TypeVar, cast

from minitransformer.backend import Array, is_plain
from minitransformer.errors import InputError
from minitransformer.validation.layers import what

F = TypeVar("F", bound=Callable[..., Any])
Shape: TypeAlias = "tuple[int | None, ...]"


def gradient_of_shape(shape_of_y: Callable[[Any, Any], Shape | None]) -> Callable[[F], F]:
    """A decorator for a layer's backward: the gradient that it is given must have the shape that the output had.

    `shape_of_y(layer, cache)` returns that shape. An axis whose length the cache does not tell is None in it, and None
    alone means that any shape will do. Without this check, a gradient of another shape could be broadcast or reshaped,
    and give wrong gradients silently. Raises InputError for another shape, and for what is not an array of numbers.
    """

    def attach(backward: F) -> F:
        name = list(signature(backward).parameters)[1]

        @wraps(backward)
        def wrapper(layer: Any, dy: Array, cache: Any) -> Any:
            expected = shape_of_y(layer, cache)
            if not is_plain(dy) or dy.dtype.kind not in "biufc":
                raise InputError(f"{name}: expected an array of numbers, like the output, got {what(dy)}")
            if expected is not None and not fits(dy.shape, expected):
                shape = ", ".join("…" if n is None else str(n) for n in expected)
                raise InputError(f"{name}: expected the output's shape, ({shape}), got {tuple(dy.shape)}")
            return backward(layer, dy, cache)

        return cast(F, wrapper)

    return attach


def fits(shape: tuple[int, ...], expected: Shape) -> bool:
    """Whether `shape` is `expected`, in which None is an axis of any length."""
    return shape == expected or (
        len(shape) == len(expected) and all(e in (None, n) for n, e in zip(shape, expected, strict=True))
    )
