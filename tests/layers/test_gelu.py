"""GELU and its normal distribution against math.erfc, in any memory order; the tanh form against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minitransformer import layers, parts
from minitransformer.layers.gelu import normal_distribution

BOTH = pytest.mark.parametrize("layer", [layers.GELU(), layers.GELUTanh()], ids=["erf", "tanh"])


def exact(x: float) -> float:
    """x · Φ(x), from erfc, which keeps its digits where Φ is small."""
    return x * math.erfc(-x / math.sqrt(2)) / 2


def exact_tanh(x: float) -> float:
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@pytest.mark.parametrize(("dtype", "off"), [("float64", 3e-16), ("float32", 1.3e-7)])
def test_the_normal_distribution_is_right_to_the_last_digits(dtype, off):
    sizes = np.logspace(-30, 30, 1201)
    x = np.concatenate([np.linspace(-14, 14, 20_001), sizes, -sizes]).astype(dtype)
    with np.errstate(over="ignore"):
        Phi, x_phi = normal_distribution(x)
    assert Phi.dtype == x_phi.dtype == dtype
    np.testing.assert_allclose(Phi, [math.erfc(-v / math.sqrt(2)) / 2 for v in x.tolist()], rtol=0, atol=off)
    exact = [v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x.tolist()]
    np.testing.assert_allclose(x_phi, exact, rtol=8 * np.finfo(dtype).eps, atol=off)


def test_the_normal_distribution_of_complex_numbers_has_its_density_as_derivative():
    x = np.linspace(-10, 10, 1001)
    Phi, x_phi = normal_distribution(x + 1e-30j)
    density = [math.exp(-v * v / 2) / math.sqrt(2 * math.pi) for v in x]
    np.testing.assert_allclose(Phi.imag / 1e-30, density, rtol=0, atol=3e-15)
    np.testing.assert_allclose(x_phi.real, x * density, rtol=0, atol=1e-15)
    # a Maclaurin series, Φ(x) = 1/2 + 1/√(2π) Σ (-1)^n x^(2n+1) / (2^n n! (2n+1))
    x = 0.4 * np.exp(1j * np.linspace(0, 2 * math.pi, 41))
    series = sum((-0.5) ** n * x ** (2 * n + 1) / (math.factorial(n) * (2 * n + 1)) for n in range(12))
    np.testing.assert_allclose(normal_distribution(x)[0], 0.5 + series / math.sqrt(2 * math.pi), rtol=2e-14)


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
