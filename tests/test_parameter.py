"""Parameters: what one may hold, how they are found, through cycles, slots and collections, and what writing does."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from small_models import Pair

import minitransformer as mt
from minitransformer import bench, layers


def test_parameters_are_found_in_the_order_of_definition_and_tied_ones_once():
    assert list(Pair().parameters()) == ["second.W", "second.b", "first.0.gamma", "first.0.beta"]
    assert Pair().n_parameters() == 15 + 5 + 5 + 5


def test_assigning_to_a_parameter_writes_into_its_memory():
    model = Pair()
    flat = model.flatten()
    model.second.b.data = np.arange(5)  # not an array of this dtype: converted
    np.testing.assert_array_equal(flat.data[15:20], np.arange(5))
    for value in (
        np.full(5, 1j),
        np.zeros(6),
        np.zeros(1),
        0.0,
        [0.0] * 5,
    ):  # the next two would be broadcast
        with pytest.raises(
            mt.InputError, match=r"^Parameter: expected float32 of shape \(5,\) to write there"
        ):
            model.second.b.data = value
        with pytest.raises(
            mt.InputError, match=r"^Parameter: expected float32 of shape \(5,\) to write there"
        ):
            model.second.b.grad = value
    np.testing.assert_array_equal(flat.data[15:20], np.arange(5))


def test_two_parameters_with_one_path_are_refused():
    layer = mt.layers.Linear(2, 3)
    layer.more = {1: mt.Parameter(np.zeros(2)), "1": mt.Parameter(np.ones(2))}
    with pytest.raises(mt.InputError, match=r"'more\.1'"):
        layer.parameters()
    layer.more["1"] = layer.more[1]  # tied: one Parameter
    assert list(layer.parameters()) == ["W", "b", "more.1"]


def test_modules_in_a_dict_are_found():
    model = Pair()
    model.heads = {"a": layers.LayerNorm(3)}
    assert list(model.parameters())[-2:] == ["heads.a.gamma", "heads.a.beta"]


class OtherLibrarys:
    """An array of a library that is neither NumPy nor CuPy."""

    dtype, shape = np.dtype("float32"), (3,)

    def astype(self, dtype: Any) -> OtherLibrarys:
        return self


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (np.arange(3), r"int64 of shape \(3,\)"),
        (np.ones(3, bool), r"bool of shape \(3,\)"),
        (np.array([1.0, None]), r"object of shape \(2,\)"),
        (np.array(["a"]), r"<U1 of shape \(1,\)"),
        ([1.0, 2.0], r"\[1.0, 2.0\]"),
        (0.5, "0.5"),
        (None, "None"),
        (OtherLibrarys(), r"float32 of shape \(3,\)"),
        (mt.Parameter(np.ones(3)), "Parameter"),
        (types.SimpleNamespace(shape=(3,)), "namespace"),
    ],
)
def test_a_parameter_is_an_array_of_floats(data: Any, got: str) -> None:
    with pytest.raises(mt.InputError, match=f"Parameter: expected an array of floats, .* got {got}") as error:
        mt.Parameter(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("make", [lambda dtype: np.ones((2, 3), dtype), lambda dtype: np.ones((), dtype)[()]])
def test_all_floats_of_numpys_may_learn(make: Callable[[str], Any], dtype: str) -> None:
    p = mt.Parameter(make(dtype))
    p.grad += 2
    p.data -= p.grad
    assert (p.data == -1).all() and p.data.dtype == p.grad.dtype == dtype


class Leaf(layers.Linear):
    """A layer that is given its parent."""

    parent: Any = None


class Tree(mt.Module):
    def __init__(self) -> None:
        self.children = [Leaf(3, 3, rng=0), Leaf(3, 3, rng=1)]
        self.by_name: dict[str, Any] = {"first": self.children[0]}
        self.own = mt.Parameter(np.ones(3, "float32"))
        for child in self.children:
            child.parent, child.sisters = self, self.children
        self.by_name["itself"] = self.by_name
        self.children.append(self.children)  # type: ignore[arg-type]
        self.pair = (self, self.by_name)


NAMES = ["children.0.W", "children.0.b", "children.1.W", "children.1.b", "own"]


def test_what_lies_in_a_cycle_is_found_once() -> None:
    tree = Tree()
    assert list(tree.parameters()) == NAMES and tree.n_parameters() == 27
    assert list(tree.children[1].parameters()) == [
        "W",
        "b",
        "parent.children.0.W",
        "parent.children.0.b",
        "parent.own",
    ]
    tree.to(dtype="float64")
    assert {p.data.dtype.name for p in tree.parameters().values()} == {"float64"}
    other = Tree()
    other.load_state_dict(tree.state_dict())
    assert list(other.replica().parameters()) == NAMES and other.flatten().data.size == 27
    found = set(map(id, bench._layers_in(tree)))
    assert found >= set(map(id, tree.children[:2]))


def test_many_layers_that_all_hold_one_another_are_walked_at_once() -> None:
    """By all paths there would be 30 · 29 · 28 … of them."""
    many = [Leaf(2, 2, rng=i) for i in range(30)]
    for layer in many:
        layer.others = many
    assert len(many[0].parameters()) == 60


def test_a_long_chain_of_layers_is_walked_to_its_end() -> None:
    first = last = Leaf(1, 1, rng=0)
    for _ in range(2000):
        last.next = last = Leaf(1, 1, rng=0)
    assert len(first.parameters()) == 4002


def test_parameters_in_slots_are_found() -> None:
    class Slots:
        __slots__ = ("W", "layers", "unset")

        def __init__(self) -> None:
            self.W, self.layers = mt.Parameter(np.ones(3)), [layers.LayerNorm(3)]

        def forward(self, x):
            return x, None

        def backward(self, dy, cache):
            return dy

    class More(Slots):
        def __init__(self) -> None:
            super().__init__()
            self.late = mt.Parameter(np.ones(3))

    class Holder(mt.Module):
        def __init__(self) -> None:
            self.first, self.second = Slots(), More()

    in_slots = ["W", "layers.0.gamma", "layers.0.beta"]
    assert list(Holder().parameters()) == [
        *(f"first.{name}" for name in in_slots),
        *(f"second.{name}" for name in ["late", *in_slots]),
    ]


def test_the_gradient_of_a_parameter_in_fortran_order_is_not_lost() -> None:
    """That of a transposed matrix, for example: rows would be added to a copy of it, which nobody sees."""
    E = np.arange(12.0).reshape(3, 4).T
    layer = mt.layers.Embedding(4, 3, E=mt.Parameter(E))
    _, cache = layer.forward(np.array([[0, 2, 2]]))
    dy = np.random.default_rng(0).normal(size=(1, 3, 3))
    layer.backward(dy, cache)
    np.testing.assert_array_equal(layer.E.data, E)
    np.testing.assert_allclose(layer.E.grad / 3**0.5, [dy[0, 0], [0] * 3, dy[0, 1] + dy[0, 2], [0] * 3])
