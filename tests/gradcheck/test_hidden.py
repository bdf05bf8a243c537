"""Parameters where nobody looks for them: in objects, in classes, in closures of functions."""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import Affine, Layer, both_methods, x

import minitransformer as mt
from minitransformer.gradcheck.subject import Subject


@both_methods
def test_a_parameter_that_is_not_found_is_told_so(method: str) -> None:
    class Hidden(Layer):
        def __init__(self) -> None:
            super().__init__(np.sin, np.cos)
            self.box = types.SimpleNamespace(W=mt.Parameter(x(3)))

    report = mt.gradcheck(Hidden(), x(3, 4), method=method)
    assert not report.ok and report.broken[0].startswith("1 Parameter(s) not found")


def test_a_parameter_of_a_class_is_not_found_and_told_so() -> None:
    class Base(Layer):
        W = mt.Parameter(x(3))

    class Below(Base):
        b = mt.Parameter(x(3))

    outer = Layer(np.sin, np.cos)
    outer.inner = Below(np.sin, np.cos)  # type: ignore[attr-defined]
    for layer in (outer, Below(np.sin, np.cos)):
        assert mt.gradcheck(layer, x(2, 3)).broken == [
            f"{name} is a Parameter of a class, and not found: make it in __init__, on self"
            for name in ("Base.W", "Below.b")
        ]


def test_the_parameters_of_a_layer_that_belongs_to_a_class_are_not_found() -> None:
    class Outer:
        inner = mt.layers.Linear(3, 3, rng=0)

        def forward(self, x):
            return self.inner.forward(x)

        def backward(self, dy, cache):
            return dy @ self.inner.W.data.T  # and no gradient of W and b

    assert mt.gradcheck(Outer(), x(2, 3)).broken == [
        f"Outer.inner.{name} is a Parameter of a class, and not found: make it in __init__, on self"
        for name in ("W", "b")
    ]


IN_A_MODULE = [mt.Parameter(x(3))]
W = mt.Parameter(x(3))  # which has the name of an attribute that layers below have


def test_a_parameter_in_a_global_variable_is_not_found_and_told_so() -> None:
    class Global:
        def forward(self, x):
            return x * IN_A_MODULE[0].data, x

        def backward(self, dy, x):
            return dy * IN_A_MODULE[0].data  # and no gradient of it

    assert mt.gradcheck(Global(), x(2, 3)).broken == [
        "IN_A_MODULE.0 is a Parameter in a global variable, and not found: make it an attribute"
    ]

    class Own(Layer):
        def __init__(self) -> None:
            super().__init__(np.sin, np.cos)
            self.W = mt.Parameter(x(3))

        def forward(self, x):
            return super().forward(x * self.W.data)

        def backward(self, dy, cache):
            raise NotImplementedError

    assert Subject(Own(), (x(2, 3),), None, 0).not_found == []


def test_a_parameter_in_a_closure_is_not_found_and_told_so() -> None:
    W, b, never = mt.Parameter(x(3)), mt.Parameter(x(4)), mt.layers.Linear(3, 3, rng=0)

    def made_by_a_function() -> Any:
        class Closed:
            def forward(self, x):
                return x * W.data, x

            def backward(self, dy, x):
                return dy * W.data  # and no gradient of W

        return Closed()

    inner = Layer(np.sin, np.cos)
    inner.deeper = {"f": [lambda: (lambda: b)()]}  # type: ignore[attr-defined]
    outer = Layer(np.sin, np.cos)
    outer.inner, outer.norm = inner, lambda x: never.forward(x)  # type: ignore[attr-defined]
    for layer, names in ((made_by_a_function(), ["W"]), (outer, ["b", "never.W", "never.b"])):
        report = mt.gradcheck(layer, x(2, 3))
        assert not report.ok and report.broken == [
            f"{name} is a Parameter in the closure of a function, and not found: make it an attribute"
            for name in names
        ]


def test_a_parameter_in_the_closure_of_a_function_in_a_closure_is_not_found_either() -> None:
    b = mt.Parameter(x(3))

    def innermost() -> Any:
        return b

    def inner() -> Any:
        return innermost() or inner()

    layer = Layer(np.sin, np.cos)
    layer.outer = lambda: inner()  # type: ignore[attr-defined]
    assert mt.gradcheck(layer, x(2, 3)).broken == [
        "b is a Parameter in the closure of a function, and not found: make it an attribute"
    ]


@both_methods
def test_a_parameter_that_is_an_attribute_may_be_in_a_closure_as_well(method: str) -> None:
    layer = Affine()
    W = layer.W
    layer.shape = lambda: W.shape  # type: ignore[attr-defined]
    assert mt.gradcheck(layer, x(2, 7, 3), method=method).ok


def test_a_closure_without_parameters_is_no_matter() -> None:
    factor = np.array([2.0])

    def later() -> Any:
        return unset  # noqa: F821

    layer = Layer(lambda x: factor * x, lambda x: factor)
    layer.later = later  # type: ignore[attr-defined]
    assert mt.gradcheck(layer, x(2, 3)).ok
    unset = 3
    del unset
    assert mt.gradcheck(layer, x(2, 3)).ok


def through_wraps(method):
    @functools.wraps(method)
    def wrapper(*arguments):
        return method(*arguments)

    return wrapper


def scaled(x):
    return x * W.data


class Wrapped(Layer):
    @through_wraps
    def forward(self, x):
        return x * W.data, None


class WithLambda(Layer):
    def forward(self, x):
        return (lambda: x * W.data)(), None


class WithHelper(Layer):
    def forward(self, x):
        return scaled(x), None


class WithProperty(Layer):
    @property
    def weights(self):
        return W.data

    def forward(self, x):
        return x * self.weights, None


class WithStaticMethod(Layer):
    @staticmethod
    def scale(x):
        return x * W.data

    def forward(self, x):
        return self.scale(x), None


class Inherits(Wrapped):
    pass


@pytest.mark.parametrize("cls", [Wrapped, WithLambda, WithHelper, WithProperty, WithStaticMethod, Inherits])
def test_a_global_parameter_is_seen_however_a_layer_reaches_it(cls: type) -> None:
    layer = cls(np.sin, np.cos)
    cls.backward = lambda self, dy, cache: dy * W.data  # type: ignore[attr-defined]
    (broken,) = mt.gradcheck(layer, x(2, 3)).broken
    assert broken.endswith("is a Parameter in a global variable, and not found: make it an attribute")
