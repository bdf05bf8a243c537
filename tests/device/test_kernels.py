"""Each kernel computes what the formula beside it says. Here the C++ compiler makes them for the CPU, where a warp has
one lane; tests/device/test_gpu.py runs the same comparisons on a GPU."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from comparisons import COMPARISONS

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_kernel_is_its_formula(with_kernels, name, dtype):
    found, expected = COMPARISONS[name](sys.modules["cupy"], np.random.default_rng(3), dtype)
    for a, b in zip(found, expected, strict=True):
        a = sys.modules["cupy"].asnumpy(a)
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(
            a, b, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6 if dtype == "float32" else 1e-15
        )
