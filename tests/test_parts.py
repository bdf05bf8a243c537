"""Formulas computed some rows at a time: the numbers of the whole, whatever the parts and the threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer import parts
from minitransformer.parallel.replicas import add
from minitransformer.training.optimizer import adam


@given(
    n=st.integers(1, 40), numbers=st.sampled_from([1, 3, 20, 10**6]), threads=st.sampled_from([None, 1, 3])
)
def test_parts_give_the_numbers_of_the_whole(n, numbers, threads):
    """Also of rows that no part divides evenly, with results of other widths, and with arguments that are numbers.

    (Where a formula has a product in it, to rounding: BLAS may add up fewer rows in another order.)
    """
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 7)), rng.normal(size=(n, 1)).astype("float32")
    seen = []

    @parts.in_parts
    def formula(x, y, factor):
        seen.append((len(x), threading.current_thread()))
        return x * y * factor, (x * x).sum(-1, keepdims=True), (y > 0)[:, 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "NUMBERS", numbers)
        if threads is None:
            found = formula(x, y, 3)
        else:
            with parts.on_threads(threads):
                found = formula(x, y, 3)
    for a, b in zip(found, formula.__wrapped__(x, y, 3), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    *cut, (whole, _) = seen
    assert whole == n == sum(rows for rows, _ in cut) and max(rows for rows, _ in cut) <= max(numbers // 7, 1)


def test_arguments_may_be_named_and_numbers_of_numpy(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 10)

    @parts.in_parts
    def formula(x, factor, y):
        return (x * factor + y,)

    x, y = np.random.default_rng(1).normal(size=(2, 13, 4))
    np.testing.assert_array_equal(formula(x, y=y, factor=np.float64(3))[0], x * 3 + y)


def test_overflow_is_as_silent_in_threads_as_without(monkeypatch):
    """NumPy's error state is each thread's own."""
    monkeypatch.setattr(parts, "NUMBERS", 10)
    p, m, v = np.zeros((3, 97), np.float32)
    total, g = np.full((2, 97), 3e38, np.float32)
    with parts.on_threads(2):
        adam(p, m, v, g, 0.1, 1, 0.9, 0.98, 1e-9)
        add(total, g)
    assert np.isinf(v).all() and np.isinf(total).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_formula_may_write_to_its_arguments(monkeypatch, threads):
    monkeypatch.setattr(parts, "NUMBERS", 10)
    seen = set()

    @parts.in_parts
    def add(total, x):
        seen.add(threading.current_thread())
        total += x

    total, x = np.random.default_rng(1).normal(size=(2, 97))
    expected = total + x
    with parts.on_threads(threads):
        assert add(total, x) is None
    np.testing.assert_array_equal(total, expected)
    assert any(thread is not threading.main_thread() for thread in seen)


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 10)

    @parts.in_parts
    def fails_late(x):
        if x[0] >= 90:
            raise ValueError("late")

    with parts.on_threads(2), pytest.raises(ValueError, match="late"):
        fails_late(np.arange(97.0))


def test_parts_are_of_about_the_same_size_and_leave_nothing_out():
    for size, n in ((0, 3), (2, 3), (7, 3), (100, 7)):
        cut = parts.parts(size, n)
        assert [i for part in cut for i in range(size)[part]] == list(range(size)) and len(cut) == n
        sizes = [part.stop - part.start for part in cut]
        assert max(sizes) - min(sizes) <= 1
