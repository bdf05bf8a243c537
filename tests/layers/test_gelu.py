"""GELU and its erf against math.erf, at any size and in any memory order; the tanh form against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minitransformer import layers, parts
from minitransformer.layers.gelu import erf

BOTH = pytest.mark.parametrize("layer", [layers.GELU(), layers.GELUTanh()], ids=["erf", "tanh"])


def exact(x: float) -> float:
    """x · Φ(x), from erfc, which keeps its digits where Φ is small."""
    return x * math.erfc(-x / math.sqrt(2)) / 2


def exact_tanh(x: float) -> float:
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@pytest.mark.parametrize(("dtype", "off"), [("float64", 6e-16), ("float32", 2.5e-7)])
def test_erf_is_right_to_the_last_digits(dtype, off):
    sizes = np.logspace(-30, 30, 1201)
    z = np.concatenate([np.linspace(-10, 10, 20_001), sizes, -sizes]).astype(dtype)
    with np.errstate(over="ignore"):
        found = erf(z)
    expected = np.array([math.erf(x) for x in z.tolist()])
    assert found.dtype == dtype and (abs(found) <= 1).all()
    np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(dtype).eps + off, atol=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=off)


def test_erf_of_complex_numbers_has_the_derivative_of_erf():
    z = np.linspace(-7, 7, 1001)
    expected = [2 / math.sqrt(math.pi) * math.exp(-x * x) for x in z]
    np.testing.assert_allclose(erf(z + 1e-30j).imag / 1e-30, expected, rtol=0, atol=5e-15)
    # a Maclaurin series, 2/√π Σ (-1)^n z^(2n+1) / (n! (2n+1))
    z = 0.3 * np.exp(1j * np.linspace(0, 2 * math.pi, 41))
    series = sum((-1) ** n * z ** (2 * n + 1) / (math.factorial(n) * (2 * n + 1)) for n in range(12))
    np.testing.assert_allclose(erf(z), 2 / math.sqrt(math.pi) * series, rtol=2e-14)


@pytest.mark.parametrize(("layer", "formula"), [(layers.GELU(), exact), (layers.GELUTanh(), exact_tanh)])
@pytest.mark.parametrize(("dtype", "off"), [("float64", 1e-15), ("float32", 5e-7)])
def test_gelu_is_its_formula(layer, formula, dtype, off):
    x = np.linspace(-12, 12, 4001).astype(dtype)
    y, cache = layer.forward(x)
    assert y.dtype == cache.slope.dtype == dtype
    np.testing.assert_allclose(y, [formula(v) for v in x.tolist()], rtol=off, atol=off)


@BOTH
def test_far_from_zero_gelu_is_the_relu(layer):
    for dtype, largest in (("float64", 1e150), ("float32", 1e18)):
        x = np.array([-largest, -40.0, 0.0, 40.0, largest], dtype)
        y, cache = layer.forward(x)
        assert y.tolist() == np.maximum(x, 0).tolist()
        assert layer.backward(np.full_like(x, 3), cache).tolist() == [0, 0, 1.5, 3, 3]


def test_the_two_forms_differ_by_what_their_docstring_says():
    x = np.linspace(-6, 6, 12_001)
    difference = abs(layers.GELU().forward(x)[0] - layers.GELUTanh().forward(x)[0]).max()
    assert 4.7e-4 < difference < 4.8e-4


@BOTH
def test_memory_order_and_parts_change_no_bit(layer, monkeypatch):
    rng = np.random.default_rng(1)
    x, dy = rng.normal(size=(2, 5, 7, 6))
    y, cache = layer.forward(x)
    dx = layer.backward(dy, cache)
    monkeypatch.setattr(parts, "NUMBERS", 13)
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1].copy()[::-1]):
        again, cache = layer.forward(other)
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(layer.backward(dy, cache), dx)
    assert layer.forward(np.array(0.5))[0].shape == ()
