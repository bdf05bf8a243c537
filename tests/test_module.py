"""Modules: what a state holds, and what a subclass owes."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import Pair
from support import tiny_config

import minitransformer as mt
from minitransformer import layers
from minitransformer.memory import converted


def test_state_dict_round_trip():
    model, other = mt.Transformer(tiny_config(), seed=1), mt.Transformer(tiny_config(), seed=2)
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.flatten().data, model.flatten().data)
    before = model.flatten().data.copy()
    for x in state.values():
        x[...] = 0
    np.testing.assert_array_equal(model.flatten().data, before)  # a copy, not a view


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.update({"first.0.beta": np.full(5, 1j)}),
            r"first.0.beta: expected float32 .* got complex128",
        ),
        (lambda s: s.pop("second.b"), "lacks 1 parameter.* 'second.b'"),
        (lambda s: s.update(stranger=np.zeros(1)), "has 1 name.* 'stranger'"),
        (
            lambda s: s.update({"second.W": np.zeros((5, 3))}),
            r"second.W: expected float32 of shape \(3, 5\), got float64 of shape \(5, 3\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    model = Pair()
    before = model.flatten().data.copy()
    state = {name: x + 1 for name, x in model.state_dict().items()}
    change(state)
    with pytest.raises(mt.CheckpointError, match=message):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model.flatten().data, before)


def test_a_module_without_forward_or_backward_says_so():
    with pytest.raises(TypeError, match="Pair defines no forward"):
        Pair().forward()
    with pytest.raises(TypeError, match="Pair defines no backward"):
        Pair().backward(None, None)


def test_a_module_without_parameters_has_nothing_to_zero():
    layers.ReLU().zero_grad()
    assert layers.ReLU().flatten().data.size == 0


class Tensor:
    """Like PyTorch's: another library's array, which NumPy can read unless it is part of a graph."""

    def __init__(self, array, readable=True):
        self.array, self.readable = array, readable
        self.shape, self.dtype = array.shape, "torch.float32"

    def __array__(self, dtype=None, copy=None):
        if not self.readable:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        return self.array


@pytest.mark.parametrize("which", ["model", "Adam"])
def test_weights_of_another_library_are_taken_or_told_how_to_become_numpys(which):
    model = mt.layers.Linear(3, 2)
    holder = model if which == "model" else mt.Adam(model)
    state = {name: np.asarray(x) + (name != "layout") for name, x in holder.state_dict().items()}
    holder.load_state_dict({name: Tensor(x) for name, x in state.items()})
    for name, x in holder.state_dict().items():
        np.testing.assert_array_equal(x, state[name])
    first = next(iter(state))
    with pytest.raises(
        mt.InputError,
        match=rf"^{first}: expected a NumPy array, .*; pass {first}\.detach\(\)\.cpu\(\)\.numpy\(\)",
    ):
        holder.load_state_dict({name: Tensor(x, readable=False) for name, x in state.items()})


def test_a_table_is_exact_again_after_float32():
    exact = layers.sinusoids(19, 8)
    back = layers.SinusoidalPositions(19, 8, dtype="float64").to(dtype="float32").to(dtype="float64")
    np.testing.assert_array_equal(back.PE.data, exact)
    np.testing.assert_array_equal(converted(layers.SinusoidalPositions(19, 8), "float64").PE.data, exact)
