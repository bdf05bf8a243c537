"""Each kernel computes what the formula beside it says. Here the C++ compiler makes them for the CPU, where a warp has
one lane; tests/device/test_gpu.py runs the same comparisons on a GPU."""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
import stand_in
from comparisons import COMPARISONS

from minitransformer import kernels, layers
from minitransformer.layers import dropout, embedding, gelu, normalization
from minitransformer.training import loss, optimizer

DTYPES = ["float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_kernel_is_its_formula(with_kernels, name, dtype):
    found, expected = COMPARISONS[name](sys.modules["cupy"], np.random.default_rng(3), dtype)
    for a, b in zip(found, expected, strict=True):
        a = sys.modules["cupy"].asnumpy(a)
        assert a.dtype == b.dtype and a.shape == b.shape
        rtol = 1e-5 if dtype == "float32" else 1e-12
        # a thousand numbers, added up one after the other, are off by that much
        np.testing.assert_allclose(a, b, rtol=rtol, atol=32 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("arrays", "used"),
    [
        (lambda there, here: (there.zeros(2), 1, there.ones(2, "float32") > 0), "kernel"),
        (lambda there, here: (there.zeros(2), 1, None), "kernel"),
        (lambda there, here: (here.zeros(2), 1, None), "formula"),
        (lambda there, here: (there.zeros(2, "complex128"), 1, None), "formula"),
        (lambda there, here: (there.zeros(2), 1, there.zeros(2, "float32")), "formula"),
    ],
)
def test_a_kernel_takes_the_place_of_its_formula_for_real_numbers_of_one_type_on_a_gpu(
    device, monkeypatch, arrays, used
):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cupy", stand_in.StandIn())

    @kernels.fused(lambda *arguments: ("kernel", len(arguments)))
    def formula(x, n, y):
        """The formula's."""
        return "formula", 3

    assert formula(*arrays(sys.modules["cupy"], np)) == (used, 3)
    assert formula.__doc__ == "The formula's." and formula.__wrapped__(0, 0, 0) == ("formula", 3)


FUSED = [
    (layers.softmax, kernels.softmax),
    (layers.softmax_backward, kernels.softmax_backward),
    (normalization.layer_norm, kernels.layer_norm),
    (normalization.layer_norm_backward, kernels.layer_norm_backward),
    (dropout.keep_mask, kernels.keep_mask),
    (dropout.apply_mask, kernels.apply_mask),
    (embedding.add_rows, kernels.add_rows),
    (gelu.gelu, kernels.gelu),
    (gelu.gelu_tanh, kernels.gelu_tanh),
    (loss.cross_entropy, kernels.cross_entropy),
    (optimizer.adam, kernels.adam),
]


@pytest.mark.parametrize(("formula", "kernel"), FUSED)
def test_a_kernel_has_the_arguments_of_its_formula(formula, kernel):
    ours, theirs = (inspect.signature(f).parameters.values() for f in (formula, kernel))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]


def test_arguments_may_be_named(with_kernels):
    there, rng = sys.modules["cupy"], np.random.default_rng(1)
    scores, mask = rng.normal(size=(1, 2, 3, 5)), rng.random((1, 2, 3, 5)) > 0.4
    expected = layers.softmax(scores, mask)
    np.testing.assert_array_equal(layers.softmax(scores, mask=mask), expected)
    found = there.asnumpy(layers.softmax(there.asarray(scores), mask=there.asarray(mask)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_softmax_of_more_than_four_axes_with_a_mask(with_kernels):
    rng = np.random.default_rng(5)
    scores, mask = rng.normal(size=(2, 3, 1, 2, 5)), rng.random((2, 1, 1, 2, 5)) > 0.3
    there = sys.modules["cupy"]
    found = layers.softmax(there.asarray(scores), there.asarray(mask))
    np.testing.assert_allclose(there.asnumpy(found), layers.softmax(scores, mask), rtol=1e-12)


def test_without_cupy_the_formula_runs(monkeypatch):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert kernels.fused(None)(lambda x: 2 * x)(3) == 6


def test_equal_ids_keep_their_order(with_kernels):
    cupy, ids = sys.modules["cupy"], np.random.default_rng(2).integers(-9, 9, 333)
    order = cupy.empty(ids.shape, "int64")
    kernels._launch("order_of", 32 * ids.size, cupy.zeros(1), cupy.asarray(ids), order, ids.size)
    np.testing.assert_array_equal(cupy.asnumpy(order), ids.argsort(kind="stable"))


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.int64(1), np.int32(1), True, None])
def test_a_number_whose_bytes_a_kernel_would_misread_is_refused(with_kernels, number):
    x = sys.modules["cupy"].zeros(3)
    with pytest.raises(KeyError):
        kernels._launch("apply_mask", 3, x, x, x > 0, x, 3, number)


def test_a_kernel_is_looked_up_once(with_kernels, monkeypatch):
    cupy, found = sys.modules["cupy"], []
    monkeypatch.setattr(cupy.RawModule, "get_function", recording(cupy.RawModule.get_function, found))
    for dtype in DTYPES * 3:
        x = cupy.zeros(5, dtype)
        kernels.apply_mask(kernels.apply_mask(x, x > 0, 0.5), x > 0, 0.5)
    assert found == ["apply_mask", "apply_mask"]  # one for each item size


def recording(function, names):
    def inner(module, name):
        names.append(name)
        return function(module, name)

    return inner
