"""The solutions to the exercises of chapter 6 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "06_feed_forward.py"
spec = importlib.util.spec_from_file_location("solutions_06", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_the_block_sorts_two_numbers():
    x = np.random.default_rng(0).normal(size=(3, 50, 2)) * 10
    block = solutions.sorter()
    y, _ = block.forward(x)
    np.testing.assert_allclose(y, np.sort(x, axis=-1), rtol=1e-12, atol=1e-12)
    assert block.W_1.shape == (2, 4)


def multiplications(block, *inputs):
    """How many multiplications the matrix products of a forward pass take."""
    Counted.n = 0
    for p in block.parameters().values():
        p.rebind(p.data.view(Counted), p.grad)
    block.forward(*inputs)
    return Counted.n


class Counted(np.ndarray):
    n = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **kwargs):
        plain = [x.view(np.ndarray) if isinstance(x, Counted) else x for x in inputs]
        if out:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, Counted) else x for x in out)
        result = getattr(ufunc, method)(*plain, **kwargs)
        # a product with a vector is none of the layer's: so the softmax adds up its rows
        if ufunc is np.matmul and plain[1].ndim > 1:
            Counted.n += result.size * plain[0].shape[-1]
        return result.view(Counted) if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize(("d_model", "d_ff"), [(4, 16), (6, 23)])
def test_at_this_length_both_take_the_same_multiplications(d_model, d_ff):
    T = solutions.break_even_length(d_model, d_ff)
    x = np.random.default_rng(0).normal(size=(1, T, d_model))
    fed = multiplications(mt.layers.FeedForward(d_model, d_ff, rng=0, dtype="float64"), x)
    attended = multiplications(mt.layers.MultiHeadAttention(d_model, 2, rng=0, dtype="float64"), x, x, x)
    assert attended == fed == 2 * T * d_model * d_ff


@pytest.mark.parametrize("method", ["complex", "central"])
def test_silu_has_the_right_gradient_everywhere(method):
    x = np.random.default_rng(0).normal(size=(3, 4)) * 2
    x[0, 0] = 0.0
    report = mt.gradcheck(solutions.SiLU(), x, method=method)
    assert report.ok and all(row.checked == 12 and row.kinks == 0 for row in report.rows), report
