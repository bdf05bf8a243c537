"""Formulas over large arrays, some rows at a time: a decorator that stands above the formula.

What a formula makes on the way then stays in the processor's cache, and several threads can share the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from itertools import pairwise
from typing import Any, TypeVar, cast

from minitransformer.backend import array_module, on_gpu

NUMBERS = 1 << 18  # in a part of the first argument: 1 MB in float32
F = TypeVar("F", bound=Callable[..., Any])
_threads: ContextVar[ThreadPoolExecutor | None] = ContextVar("threads", default=None)


def in_parts(formula: F) -> F:
    """Above a formula whose rows (along the first axis) do not depend on each other: compute some of them at a time.

    All arrays among the arguments have as many rows. The formula returns arrays with a row for each of those it was
    given, or None and writes to its arguments. On a GPU, it is computed as a whole.
    """

    @wraps(formula)
    def by_parts(*arguments: Any) -> Any:
        first, n = arguments[0], len(arguments[0])
        step = max(NUMBERS * n // max(first.size, 1), 1)
        if n <= step or on_gpu(first):
            return formula(*arguments)

        def compute(part: slice) -> Any:
            return formula(*(x[part] if hasattr(x, "shape") else x for x in arguments))

        def compute_all(some: list[slice]) -> None:
            for part in some:
                for whole, x in zip(results, compute(part) or (), strict=True):
                    whole[part] = x

        cut = [slice(i, min(i + step, n)) for i in range(0, n, step)]
        found = compute(cut[0])
        results = [array_module(x).empty((n, *x.shape[1:]), x.dtype) for x in found or ()]
        for whole, x in zip(results, found or (), strict=True):
            whole[cut[0]] = x
        threads = _threads.get()
        if threads is None:
            compute_all(cut[1:])
        else:
            list(
                threads.map(
                    compute_all, [cut[1:][share] for share in parts(len(cut) - 1, threads._max_workers)]
                )
            )
        return None if found is None else tuple(results)

    return cast(F, by_parts)


def parts(size: int, n: int) -> list[slice]:
    """`size` numbers in `n` parts of about the same size."""
    bounds = [size * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """A block in which formulas that are computed in parts are shared by `n` threads."""
    with ThreadPoolExecutor(n) as pool:
        token = _threads.set(pool)
        try:
            yield
        finally:
            _threads.reset(token)
