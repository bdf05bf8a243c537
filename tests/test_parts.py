"""Formulas computed some rows at a time: the numbers of the whole, whatever the parts and the threads."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitransformer import layers as L
from minitransformer import parts
from minitransformer.parallel.replicas import add
from minitransformer.training.optimizer import adam


@given(
    n=st.integers(1, 40), numbers=st.sampled_from([1, 3, 20, 10**6]), threads=st.sampled_from([None, 1, 3])
)
def test_parts_give_the_numbers_of_the_whole(n, numbers, threads):
    """Also of rows that no part divides evenly, of results of other widths, and with arguments that are not cut.

    (Where a formula has a product in it, to rounding: BLAS may add up fewer rows in another order.)
    """
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 7)), rng.normal(size=(n, 1)).astype("float32")
    gamma = rng.normal(size=n)  # with fewer axes, which does not make n of its numbers rows
    seen = []

    @parts.in_parts
    def formula(x, y, gamma, factor):
        seen.append(len(x))
        return x * y * factor + gamma.sum(), (x * x).sum(-1, keepdims=True), (y > 0)[:, 0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "NUMBERS", numbers)
        with nullcontext() if threads is None else parts.on_threads(threads):
            found = formula(x, y, gamma, 3)
    for a, b in zip(found, formula.__wrapped__(x, y, gamma, 3), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    *cut, whole = seen
    assert whole == n == sum(cut)
    assert len(cut) == min(-(-7 * n // numbers), n) and max(cut) - min(cut) <= 1


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


def test_a_formula_may_write_to_its_arguments(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 10)

    @parts.in_parts
    def add(total, x):
        total += x

    total, x = np.random.default_rng(1).normal(size=(2, 97))
    expected = total + x
    assert add(total, x) is None
    np.testing.assert_array_equal(total, expected)


def test_a_result_may_be_one_array(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 10)
    x = np.random.default_rng(1).normal(size=(13, 4))
    np.testing.assert_array_equal(parts.in_parts(lambda x: x * x)(x), x * x)


def test_a_vector_stays_whole_where_a_formula_is_of_rows(monkeypatch):
    """For which the mean of a part would not be that of the whole. What is not large stays whole, too."""
    monkeypatch.setattr(parts, "NUMBERS", 3)
    x = np.random.default_rng(1).normal(size=(2, 40))
    seen = []
    centred = parts.in_rows(lambda x: seen.append(x.shape) or x - x.mean(-1, keepdims=True))
    np.testing.assert_array_equal(centred(x[0]), centred(x)[0])
    centred(x[:, :6])
    assert seen == [(40,), (1, 40), (1, 40), (2, 6)]
    np.testing.assert_array_equal(
        L.LayerNorm(40, dtype="float64").forward(x[0])[0], L.LayerNorm(40, dtype="float64").forward(x)[0][0]
    )


def test_threads_work_at_the_same_time_and_share_nothing_twice():
    """Each waits until the other has come, and what it computes inside is not shared again."""
    both, inside = threading.Barrier(2, timeout=20), []

    def meet(item):
        both.wait()
        parts.each(lambda _: inside.append(threading.current_thread()), [1, 2])

    with parts.on_threads(2):
        parts.each(meet, [1, 2])
    assert len(inside) == 4 and len(set(inside)) == 2


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 10)

    @parts.in_parts
    def fails_late(x):
        if x[-1] >= 90:
            raise ValueError("late")

    with parts.on_threads(2), pytest.raises(ValueError, match="late"):
        fails_late(np.arange(97.0))


def test_parts_are_of_about_the_same_size_and_leave_nothing_out():
    for size, n in ((0, 3), (2, 3), (7, 3), (100, 7)):
        cut = parts.parts(size, n)
        assert [i for part in cut for i in range(size)[part]] == list(range(size)) and len(cut) == n
        sizes = [part.stop - part.start for part in cut]
        assert max(sizes) - min(sizes) <= 1
