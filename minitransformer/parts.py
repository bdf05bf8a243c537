"""A decorator that computes a formula over large arrays some rows at a time.

The formula's intermediate results then stay in the processor's cache, and several threads can share the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import pairwise
from typing import Any, TypeVar, cast

from minitransformer.backend import Array, array_module, on_gpu

NUMBERS = 1 << 18  # size of a part of the first argument: 1 MB in float32
F = TypeVar("F", bound=Callable[..., Any])
_threads: ContextVar[ThreadPoolExecutor | None] = ContextVar("threads", default=None)


def in_parts(formula: F) -> F:
    """A decorator of a formula whose rows (along the first axis) are independent: compute some of them at a time.

    All array arguments have the same number of rows. The formula returns a tuple of arrays with that many rows, or
    returns None and changes its arguments in place. On a GPU it is computed as a whole.
    """

    @wraps(formula)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        first, n = arguments[0], len(arguments[0])
        rows = max(NUMBERS * n // max(first.size, 1), 1)
        if n <= rows or on_gpu(first):
            return formula(*arguments, **named)

        def compute(part: slice) -> tuple[Array, ...] | None:
            given = [x[part] if getattr(x, "ndim", 0) else x for x in (*arguments, *named.values())]
            return formula(*given[: len(arguments)], **dict(zip(named, given[len(arguments) :], strict=True)))

        def fill(part: slice, found: tuple[Array, ...] | None) -> None:
            for whole, x in zip(results, found or (), strict=True):
                whole[part] = x

        head, *rest = (slice(i, min(i + rows, n)) for i in range(0, n, rows))
        found = compute(head)
        results = tuple(array_module(x).empty((n, *x.shape[1:]), x.dtype) for x in found or ())
        fill(head, found)
        pool = _threads.get()
        for _ in (pool.map if pool else map)(lambda part: fill(part, compute(part)), rest):
            pass
        return None if found is None else results

    return cast(F, wrapper)


def parts(size: int, n: int) -> list[slice]:
    """`n` slices that divide `size` numbers into parts of about the same size."""
    bounds = [size * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """A context in which `n` threads share the formulas that are computed in parts."""
    with ThreadPoolExecutor(n) as pool:
        token = _threads.set(pool)
        try:
            yield
        finally:
            _threads.reset(token)
