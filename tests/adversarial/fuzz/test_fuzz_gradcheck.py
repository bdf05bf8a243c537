"""Layers that break the contract, in all combinations of faults, given to `gradcheck`.

It says so, in a report that is not ok or in an InputError; it never calls a layer right whose gradient is wrong, and
raises nothing of its own. What the layer itself raises is passed on.
"""

from __future__ import annotations

import collections
import functools
import threading
import traceback
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hostile import REFUSED, SCALARS, attempt
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.parameter import Parameter

PACKAGE = str(Path(mt.__file__).parent)


class Cache(NamedTuple):
    x: Any
    w: Any


class Square:
    """y = x² w and its derivative. Faults change what goes in and what comes out."""

    faults: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.w = Parameter(np.array([0.5, -1.5, 2.0]))

    def forward(self, x: Any, rng: Any = None) -> Any:
        returned: Any = (x * x * self.w.data, Cache(x, self.w.data))
        for fault in self.faults:
            returned = FORWARD.get(fault, lambda layer, x, returned: returned)(self, x, returned)
        return returned

    def backward(self, dy: Any, cache: Any) -> Any:
        x, w = cache[:2]
        if "no gradient of w" not in self.faults:
            dw = (dy * x * x).sum(0)
            self.w.grad = dw if "assigns the gradient of w" in self.faults else self.w.grad + dw
        returned: Any = 2 * dy * x * w
        for fault in self.faults:
            returned = BACKWARD.get(fault, lambda layer, dy, cache, dx: dx)(self, dy, cache, returned)
        return returned


def writing(write: Callable[..., Any]) -> Callable[..., Any]:
    """A fault that writes somewhere and passes on what came."""

    def fault(*arguments: Any) -> Any:
        write(*arguments)
        return arguments[-1]

    return fault


def add(x: Any, value: float = 1.0) -> None:
    x += value


# what forward makes of its answer
FORWARD: dict[str, Callable[..., Any]] = {
    "y alone": lambda layer, x, r: r[0] if isinstance(r, tuple) else r,
    "three things": lambda layer, x, r: (*r, 3) if isinstance(r, tuple) else (r, 1, 2),
    "a list": lambda layer, x, r: list(r),
    "nothing": lambda layer, x, r: None,
    "y is a list": lambda layer, x, r: (np.asarray(r[0], object).tolist(), *r[1:]),
    "y is integers": lambda layer, x, r: (np.zeros((4, 3), int), *r[1:]),
    "y is objects": lambda layer, x, r: (np.asarray(r[0], object), *r[1:]),
    "y is complex": lambda layer, x, r: (np.asarray(r[0]) + 1j, *r[1:]),
    "y is float32": lambda layer, x, r: (np.asarray(r[0]).astype("float32"), *r[1:]),
    "no cache": lambda layer, x, r: (r[0], None),
    "writes to x": writing(lambda layer, x, r: add(x)),
    "writes to w": writing(lambda layer, x, r: add(layer.w.data)),
    "writes to the gradient of w": writing(lambda layer, x, r: add(layer.w.grad)),
    "another y each time": lambda layer, x, r: (r[0] + np.random.default_rng().normal(), *r[1:]),
    "another shape each time": lambda layer, x, r: (np.zeros((next(COUNT), 2)), *r[1:]),
}
COUNT = iter(range(10**9))
# what backward makes of its answer
BACKWARD: dict[str, Callable[..., Any]] = {
    "dx in a list": lambda layer, dy, cache, dx: [dx],
    "no dx": lambda layer, dy, cache, dx: None,
    "two dx": lambda layer, dy, cache, dx: (dx, dx),
    "dx None in a tuple": lambda layer, dy, cache, dx: (None,),
    "dx transposed": lambda layer, dy, cache, dx: np.transpose(np.asarray(dx, object)).copy(),
    "a row of dx": lambda layer, dy, cache, dx: dx[0],
    "dx as a number": lambda layer, dy, cache, dx: 1.5,
    "dx as a text": lambda layer, dy, cache, dx: "dx",
    "dx of integers": lambda layer, dy, cache, dx: np.ones((4, 3), int),
    "dx of objects": lambda layer, dy, cache, dx: np.asarray(dx, object),
    "dx complex": lambda layer, dy, cache, dx: np.ones((4, 3)) * 1j,
    "dx negative": lambda layer, dy, cache, dx: -np.asarray(dx, float),
    "dx nan": lambda layer, dy, cache, dx: np.full((4, 3), np.nan),
    "dx infinite": lambda layer, dy, cache, dx: np.full((4, 3), np.inf),
    "writes to dy": writing(lambda layer, dy, cache, dx: add(dy)),
    "writes to the cache": writing(lambda layer, dy, cache, dx: add(cache[0])),
    "backward writes to w": writing(lambda layer, dy, cache, dx: add(layer.w.data)),
    "no gradient of w": lambda layer, dy, cache, dx: dx,
    "assigns the gradient of w": lambda layer, dy, cache, dx: dx,
}


class Slots(Square):
    __slots__ = ("extra",)


class OnlySlots:
    """The same layer without a dictionary, its methods those of Square."""

    __slots__ = ("__weakref__", "extra", "w")
    faults: tuple[str, ...] = ()
    forward, backward = Square.forward, Square.backward

    def __init__(self) -> None:
        self.w = Parameter(np.array([0.5, -1.5, 2.0]))


class Falsy(Square):
    def __bool__(self) -> bool:
        raise ValueError("no truth value")

    def __len__(self) -> int:
        raise TypeError("no length")


class Unequal(Square):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")


class Anything(Square):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return 3.0


class Derived(mt.Module):
    faults: tuple[str, ...] = ()
    __init__, forward, backward = Square.__init__, Square.forward, Square.backward


CLASSES = [Square, Slots, OnlySlots, Falsy, Unequal, Anything, Derived]


def generator() -> Any:
    yield 1


# what may stand in an attribute of a layer, all of it harmless to its gradient
EXTRAS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda layer: layer,
    "a list of itself": lambda layer: (inner := [layer], inner.append(inner))[0],
    "a dict of itself": lambda layer: {layer.w: layer, 3: [layer.w], None: {}},
    "a method": lambda layer: layer.forward,
    "a lambda": lambda layer: lambda: layer,
    "a lock": lambda layer: threading.Lock(),
    "a generator": lambda layer: generator(),
    "a weak reference": lambda layer: weakref.ref(layer),
    "a module": lambda layer: np,
    "a class": lambda layer: Square,
    "a read-only mapping": lambda layer: types.MappingProxyType({"w": 1}),
    "a set": lambda layer: {1, "w"},
    "an array": lambda layer: np.ones(3),
    "objects": lambda layer: np.array([layer, None], object),
    "a buffer": lambda layer: memoryview(b"abc"),
    "random numbers": lambda layer: np.random.default_rng(0),
}


UNCOPYABLE = {"a lock", "a generator", "a read-only mapping", "a buffer"}

# places in which nobody looks for Parameters: how w gets there, and how a layer finds it
HIDDEN: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "an object": (lambda w: types.SimpleNamespace(w=w), lambda place: place.w),
    "an array of objects": (lambda w: np.array([w, None], object), lambda place: place[0]),
    "a set": (lambda w: {w}, lambda place: next(iter(place))),
    "a queue": (lambda w: collections.deque([w]), lambda place: place[0]),
    "a key": (lambda w: {w: None}, lambda place: next(iter(place))),
    "a partial": (lambda w: functools.partial(getattr, w, "data"), lambda place: place.args[0]),
    "a class": (lambda w: type("Place", (), {"w": w})(), lambda place: place.w),
}


class Hider(Square):
    def __init__(self, place: str) -> None:
        hide, self.find = HIDDEN[place]
        self.place = hide(Parameter(np.array([0.5, -1.5, 2.0])))

    @property
    def w(self) -> Any:  # type: ignore[override]
        return self.find(self.place)


@given(st.sampled_from([*HIDDEN]), st.sampled_from(["central", "complex"]), st.booleans())
def test_gradcheck_of_hidden_parameters(place, method, directional):
    """Their gradients would not be checked: it says so, and leaves them alone."""
    layer, x = Hider(place), np.random.default_rng(0).uniform(0.5, 1.5, (4, 3))
    report = attempt(
        "gradcheck, hidden", lambda: mt.gradcheck(layer, x, method=method, directional=directional)
    )
    assert report is REFUSED or not report.ok, str(report)
    np.testing.assert_array_equal(layer.w.data, [0.5, -1.5, 2.0])


@given(
    st.data(),
    st.sampled_from(CLASSES),
    st.lists(st.sampled_from([*FORWARD, *BACKWARD]), max_size=3, unique=True),
    st.one_of(st.sampled_from([*EXTRAS]), st.none()),
)
def test_gradcheck_of_layers_with_faults(data, cls, faults, extra):
    layer = cls()
    cls.faults = tuple(faults)
    if extra is not None:
        layer.extra = EXTRAS[extra](layer)
    x = np.random.default_rng(0).uniform(0.5, 1.5, (4, 3))
    before, w = x.copy(), layer.w.data.copy()
    method, directional = data.draw(st.sampled_from(["central", "complex"])), data.draw(st.booleans())
    try:
        report = attempt(
            "gradcheck, faults", lambda: mt.gradcheck(layer, x, method=method, directional=directional)
        )
    except Exception as error:  # the layer's own, if it comes from its code
        ours = [
            f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith((PACKAGE, __file__))
        ]
        assert ours[-1].filename == __file__ and faults, (faults, extra, error)
        return
    finally:
        cls.faults = ()
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(layer.w.data, w)
    if report is REFUSED:
        assert faults or extra in UNCOPYABLE, "a layer without a fault is checked"
    else:
        assert str(report) and report.ok == (not faults), (faults, extra, str(report))


@given(st.data())
def test_gradcheck_of_what_is_no_layer(data):
    names = st.sampled_from(["forward", "backward"])
    methods = data.draw(
        st.dictionaries(names, st.one_of(SCALARS, st.sampled_from([len, repr, lambda *a: a, Square.forward])))
    )
    layer = type("Odd", (), methods)() if data.draw(st.booleans()) else data.draw(SCALARS)
    x = np.ones((4, 3))
    try:
        report = attempt("gradcheck, no layer", lambda: mt.gradcheck(layer, x))
    except Exception as error:
        ours = [
            f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith((PACKAGE, __file__))
        ]
        assert ours[-1].filename == __file__, (methods, error)
        return
    assert report is REFUSED or not report.ok
