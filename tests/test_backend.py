"""The array backend: random numbers, scatter-add, and what it says when there is no GPU."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer import backend


@given(seed=st.integers(0, 2**32))
def test_add_rows_adds_every_occurrence(seed):
    rng = np.random.default_rng(seed)
    target, ids, rows = rng.normal(size=(7, 3)), rng.integers(0, 7, (5, 11)), rng.normal(size=(5, 11, 3))
    expected = target.copy()
    for id_, row in zip(ids.ravel(), rows.reshape(-1, 3), strict=True):
        expected[id_] += row
    backend.add_rows(target, ids, rows)
    np.testing.assert_allclose(target, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64"])
def test_add_rows_takes_ids_of_any_integer_type(dtype):
    """id · width must not overflow in the type of the ids."""
    rng = np.random.default_rng(0)
    ids, rows = rng.integers(0, 251, (3, 40)).astype(dtype), rng.normal(size=(3, 40, 307))
    target, expected = np.zeros((251, 307)), np.zeros((251, 307))
    np.add.at(expected, ids.astype(int), rows)
    backend.add_rows(target, ids, rows)
    np.testing.assert_allclose(target, expected, rtol=1e-12)


def test_add_rows_reaches_a_view_of_a_larger_buffer():
    buffer = np.zeros(10)
    backend.add_rows(buffer[2:8].reshape(3, 2), np.array([1, 1]), np.ones((2, 2)))
    assert buffer.tolist() == [0, 0, 0, 0, 2, 2, 0, 0, 0, 0]


@given(numbers=st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=40))
@example(numbers=[1e16, 1.0, -1e16])  # since Python 3.12, sum() finds 1
def test_a_sum_in_order_is_a_loop(numbers):
    """Bit for bit, of Python's floats as of NumPy's: ranks add up the ones, replicas in one process the others."""
    expected = 0.0
    for x in numbers:
        expected = expected + x
    assert backend.sum_in_order(numbers) == expected
    assert backend.sum_in_order(map(np.float64, numbers)) == expected
    assert backend.sum_in_order(numbers[1:], np.asarray(numbers[0])) == backend.sum_in_order(numbers)


@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(["float32", "float64", "complex128"]))
def test_sums_as_products_are_sums(seed, dtype):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 5, 7, 11)).astype(dtype)[:, ::-2]
    if dtype == "complex128":
        x = x + 1j * rng.normal(size=x.shape)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    for got, expected in (
        (backend.sum_last(x), x.sum(-1, keepdims=True)),
        (backend.sum_positions(x), x.sum((0, 1, 2))),
    ):
        assert got.dtype == x.dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, **tolerance)


def test_a_generator_is_a_function_of_its_numbers():
    first = backend.generator(3, 1, 40).random(4)
    assert (backend.generator(3, 1, 40).random(4) == first).all()
    for other in ((3, 1, 41), (3, 2, 40), (4, 1, 40), (3,), (3, 1)):
        assert (backend.generator(*other).random(4) != first).all()
    rng = np.random.default_rng(0)
    assert backend.generator(rng) is rng
    assert backend.generator(None).random() != backend.generator(None).random()
    with pytest.raises(mt.ConfigError, match="seed: expected a whole number, 0 or more, got -1"):
        mt.Transformer(mt.TransformerConfig.preset("toy", 11), seed=-1)


def test_initial_weights_without_draws_are_zero():
    rng = backend.NoDraws()
    assert backend.generator(rng) is rng
    for x in (backend.normal(rng, (3, 5), 0.5, "float32"), backend.xavier_uniform(rng, 3, 5, "float32")):
        assert x.shape == (3, 5) and x.dtype == "float32" and not x.any()
        assert x.flags.c_contiguous and x.flags.writeable


def test_a_snapshot_draws_what_the_generator_will_draw():
    rng = backend.generator(5)
    twin = backend.snapshot(rng)
    assert (twin.random(3) == rng.random(3)).all() and backend.snapshot(None) is None


def test_xavier_bounds_and_variance():
    W = backend.xavier_uniform(backend.generator(0), 300, 500, "float64")
    bound = math.sqrt(6 / 800)
    assert abs(W).max() <= bound and abs(W).max() > 0.999 * bound
    assert W.var() == pytest.approx(2 / 800, rel=0.01)


@pytest.mark.parametrize("p", [2**-16, 0.125, 0.5, 1 - 2**-16])
@pytest.mark.parametrize(
    "bit_generator", [np.random.SFC64, np.random.PCG64, np.random.Philox, np.random.MT19937]
)
def test_keep_mask_is_false_with_probability_p(p, bit_generator):
    """As the plain version, rng.random(x.shape) >= p, is. (That entries are independent: tests/laws.)"""
    x, rng = np.zeros((400, 5003), "float32"), np.random.Generator(bit_generator(1))
    kept = backend.keep_mask(rng, p, x)
    assert kept.dtype == bool and kept.shape == x.shape
    sigma = math.sqrt(p * (1 - p) / kept.size)
    for share in (1 - kept.mean(), (rng.random(x.shape) < p).mean()):
        assert abs(share - p) < 5 * sigma


@pytest.mark.parametrize("n", range(1, 10))
def test_keep_mask_takes_four_decisions_from_each_number(n):
    rng, twin = backend.generator(3), backend.generator(3)
    kept = backend.keep_mask(rng, 0.3125, np.zeros(n))
    bits = [
        int(number) >> shift & 0xFFFF
        for number in twin.bit_generator.random_raw(3)
        for shift in (0, 16, 32, 48)
    ]
    assert kept.tolist() == [b >= 0.3125 * 2**16 for b in bits[:n]]


def test_without_a_gpu_cuda_is_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    with pytest.raises(
        mt.ConfigError,
        match=r"device 'cuda' needs CuPy: pip install 'minitransformer\[cuda12\]' \(or \[cuda13\]\)",
    ):
        mt.Transformer(mt.TransformerConfig.preset("toy", 11), device="cuda")


@pytest.mark.parametrize("name", ["int64", "float16", "bool", "flot32", None, object])
def test_only_dtypes_that_carry_gradients_are_taken(name):
    with pytest.raises(mt.ConfigError, match="dtype: expected 'float32', 'float64' or a complex type, got"):
        backend.dtype_of(name)


def test_windows_are_a_view():
    x = np.arange(7)
    rows = backend.windows(x, 3)
    assert rows.tolist() == [[i, i + 1, i + 2] for i in range(5)] and np.shares_memory(rows, x)


class CUDARuntimeError(RuntimeError):
    pass


def no_driver():
    raise CUDARuntimeError("no driver")


@pytest.mark.parametrize(
    ("count", "said"), [(lambda: 0, "no GPU found"), (no_driver, "no usable GPU (no driver)")]
)
def test_cupy_without_a_gpu_is_refused(monkeypatch, count, said):
    runtime = SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), ndarray=type("ndarray", (), {}))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(mt.ConfigError) as raised:
        backend.device_module("cuda")
    assert said in str(raised.value)
