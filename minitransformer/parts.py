"""Formulas over large arrays computed some rows at a time: in the processor's cache, and by several threads.

NumPy lets other threads run while it computes, so that a few of them can share the rows of a large array. (With arrays
of some 10,000 numbers they mostly wait for each other: those are left whole.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import wraps
from itertools import pairwise
from threading import Lock
from typing import Any, TypeVar, cast

from minitransformer.backend import Array, array_module, on_gpu

NUMBERS = 1 << 18  # size of a part of the first argument: 1 MB in float32
LARGE = 4  # the most of such parts that a formula of few operations computes faster as a whole
ROWS = 128  # the fewest in a part of a matrix product
MOST = 8  # parts of a matrix product
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


def in_parts(formula: F) -> F:
    """A decorator of a formula whose rows (along the first axis) are independent: compute some of them at a time.

    Array arguments with as many axes as the first have as many rows, and are cut; others are not. The formula returns
    an array, or a tuple of arrays, with that many rows, or returns None and changes its arguments in place. The parts
    do not depend on the number of threads that share them. On a GPU the formula is computed as a whole.
    """
    return _cut(formula, axes=1, at_once=1)


def in_rows(formula: F) -> F:
    """A decorator like `in_parts` for a formula of few operations, which may add up the numbers of a row.

    Only arrays of several rows are cut, and only large ones: with smaller ones it would take longer.
    """
    return _cut(formula, axes=2, at_once=LARGE)


def _cut(formula: F, axes: int, at_once: int) -> F:
    """The decorators above, for arrays with that many axes or more, and with more than so many parts."""

    @wraps(formula)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        first = arguments[0]
        if first.size <= at_once * NUMBERS or first.ndim < axes or len(first) < 2 or on_gpu(first):
            return formula(*arguments, **named)
        n, lock = len(first), Lock()
        results: list[Array] | None = None
        alone = False

        def part_of(x: Any, part: slice) -> Any:
            return x[part] if getattr(x, "ndim", 0) == first.ndim else x

        def compute(part: slice) -> None:
            nonlocal results, alone
            found = formula(
                *(part_of(x, part) for x in arguments),
                **{name: part_of(x, part) for name, x in named.items()},
            )
            if found is None:
                return
            with lock:  # whose part is computed first makes room for all
                if results is None:
                    results = [array_module(x).empty((n, *x.shape[1:]), x.dtype) for x in _as_tuple(found)]
                    alone = not isinstance(found, tuple)
            for whole, x in zip(results, _as_tuple(found), strict=True):
                whole[part] = x

        each(compute, parts(n, min(-(-first.size // NUMBERS), n)))
        if results is None:
            return None
        return results[0] if alone else tuple(results)

    return cast(F, wrapper)


def _as_tuple(x: Array | tuple[Array, ...]) -> tuple[Array, ...]:
    return x if isinstance(x, tuple) else (x,)


def by_rows(write: Callable[[Array, Array, Array], None]) -> Callable[[Array, Array, Array], None]:
    """A decorator of write(out, a, b), which writes a product of `a` and `b` to `out`: threads share the rows of `out`.

    They do so where it is large, in parts that do not depend on the number of threads: BLAS rounds the products of a
    row differently, in the last digit, if it computes other numbers of rows at a time.
    """

    @wraps(write)
    def wrapper(out: Array, a: Array, b: Array) -> None:
        if not threads_share() or out.ndim != 2 or out.size < NUMBERS:
            write(out, a, b)
        else:
            most = len(out) // ROWS
            n = min(
                1 << max(most.bit_length() - 1, 0), MOST
            )  # a power of two, as the number of cores mostly is
            each(lambda part: write(out[part], a[part], b), parts(len(out), n))

    return wrapper


def each(compute: Callable[[T], object], items: Sequence[T]) -> None:
    """Compute every item: where threads share the work, each in the first of them that is free.

    An exception in one of them is raised here.
    """
    waiting = iter(items)

    def work() -> None:
        for item in waiting:
            compute(item)

    n, pool = _threads.get() or (1, None)
    if pool is None:
        return work()
    token = _threads.set(None)  # what an item computes is not shared once more
    try:
        # in a context like this one, to which NumPy's error state belongs
        others = [pool.submit(copy_context().run, work) for _ in range(min(n, len(items)) - 1)]
        try:
            work()
        finally:
            wait(others)
        for other in others:
            other.result()
    finally:
        _threads.reset(token)


# How many threads share the work here, this one among them, and the pool of the others.
_threads: ContextVar[tuple[int, ThreadPoolExecutor] | None] = ContextVar("threads", default=None)


def threads_share() -> bool:
    """Whether there are threads that share the work here."""
    return _threads.get() is not None


def parts(size: int, n: int) -> list[slice]:
    """`n` slices that divide `size` numbers into parts of about the same size."""
    bounds = [size * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """A context in which `n` threads, this one among them, share what `in_parts`, `by_rows` and `each` compute."""
    with ThreadPoolExecutor(n) as pool:
        token = _threads.set((n, pool))
        try:
            yield
        finally:
            _threads.reset(token)
