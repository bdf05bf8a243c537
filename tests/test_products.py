"""Products written to their place, or added to what is there."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from minitransformer import parts
from minitransformer.products import add_product, product, write_product
from minitransformer.system import single_blas_thread


def assert_close(found, a, b):
    """As far as rounding goes, which is relative to the sum of what is added up."""
    precise = np.matmul(a, b, dtype=np.result_type(a, b, "float64"))
    assert (abs(found - precise) <= 4 * np.finfo(found.dtype).eps * (abs(a) @ abs(b) + 1)).all()


@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("float32", "float64"), ("float64", "complex128")]
)
def test_a_product_is_the_operators(dtypes):
    rng = np.random.default_rng(2)
    a, b = (
        rng.normal(size=shape).astype(dtype) for shape, dtype in zip([(5, 3), (3, 4)], dtypes, strict=True)
    )
    for threads in (nullcontext(), parts.on_threads(1)):
        with threads:
            found = product(a, b.T.copy().T)
        assert found.dtype == dtypes[1]
        assert_close(found, a, b)


@pytest.mark.parametrize("write", [write_product, add_product])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_have_the_same_bits_on_any_number_of_threads(monkeypatch, write, dtype, transposed):
    """Also where no number of parts divides the rows evenly."""
    monkeypatch.setattr(parts, "NUMBERS", 1000)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(700, 96)).astype(dtype), rng.normal(size=(96, 130)).astype(dtype)
    a, b = (np.asfortranarray(a), np.asfortranarray(b)) if transposed else (a, b)
    found = []
    with single_blas_thread():
        for n in (1, 2, 3, 8):
            with parts.on_threads(n):
                out = np.ones((700, 130), dtype)
                write(out, a, b)
                found.append(out)
    for out in found[1:]:
        np.testing.assert_array_equal(out, found[0])
    assert_close(found[0] - (write is add_product), a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_added_to_all_blocks_of_rows(dtype):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(1100, 3)).astype(dtype), rng.normal(size=(3, 2)).astype(dtype)
    out = np.ones((1100, 2), dtype)
    add_product(out, a, b)
    digits = 1e-14 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(out, 1 + a @ b, rtol=digits, atol=digits)


def test_large_products_of_few_rows_are_not_shared(monkeypatch):
    monkeypatch.setattr(parts, "NUMBERS", 1000)
    rng = np.random.default_rng(4)
    out, a, b = np.ones((100, 130)), rng.normal(size=(100, 3)), rng.normal(size=(3, 130))
    with single_blas_thread(), parts.on_threads(2):
        add_product(out, a, b)
    np.testing.assert_allclose(out, 1 + a @ b, rtol=1e-14, atol=1e-14)
