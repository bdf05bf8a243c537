"""Parameters, their names and their one flat buffer."""

from __future__ import annotations

import numpy as np
import pytest
from support import randomise, tiny_config

import minitransformer as mt
from minitransformer import layers


class Pair(mt.Module):
    def __init__(self) -> None:
        self.second = layers.Linear(3, 5, rng=1)
        self.first = [layers.LayerNorm(5), {"not": "walked"}]
        self.tied = self.second.W


def test_parameters_are_found_in_the_order_of_definition_and_tied_ones_once():
    assert list(Pair().parameters()) == ["second.W", "second.b", "first.0.gamma", "first.0.beta"]
    assert Pair().n_parameters() == 15 + 5 + 5 + 5


def test_flat_buffers_are_the_parameters():
    model = randomise(Pair(), np.random.default_rng(0))
    values = np.concatenate([p.data.ravel() for p in model.parameters().values()])
    grads = np.concatenate([p.grad.ravel() for p in model.parameters().values()])
    flat = model.flatten()
    np.testing.assert_array_equal(flat.data, values)
    np.testing.assert_array_equal(flat.grad, grads)
    flat.data[...] *= 2
    np.testing.assert_array_equal(
        np.concatenate([p.data.ravel() for p in model.parameters().values()]), 2 * values
    )
    assert model.flatten() is flat
    model.zero_grad()
    assert all((p.grad == 0).all() for p in model.parameters().values())


def test_flat_buffers_follow_a_parameter_that_moved():
    model = Pair()
    first = model.flatten()
    model.to(dtype="float64")
    second = model.flatten()
    assert second.data.dtype == np.float64 and second.data is not first.data
    second.data[...] = 7
    assert (model.second.b.data == 7).all()


def test_assigning_to_a_parameter_writes_into_its_memory():
    model = Pair()
    flat = model.flatten()
    model.second.b.data = np.arange(5)  # not an array of this dtype: converted
    np.testing.assert_array_equal(flat.data[15:20], np.arange(5))
    with pytest.raises(TypeError):
        model.second.b.data = np.full(5, 1j)
    with pytest.raises(ValueError, match="broadcast"):
        model.second.b.data = np.zeros(6)


def test_state_dict_round_trip():
    model, other = mt.Transformer(tiny_config(), seed=1), mt.Transformer(tiny_config(), seed=2)
    state = model.state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(other.flatten().data, model.flatten().data)
    state["output.E" if "output.E" in state else next(iter(state))][...] = 0
    assert (model.flatten().data != 0).any()  # a copy, not a view


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


def test_a_parameter_that_comes_later_is_zeroed_and_stepped_too():
    model = Pair()
    first = model.flatten()
    model.late = mt.Parameter(np.ones(3, np.float32))
    model.late.grad = np.full(3, 7)
    assert model.flatten().data.size == first.data.size + 3
    mt.Adam(model).step(0.1)
    assert (model.late.data < 1).all()
    model.zero_grad()
    assert (model.late.grad == 0).all()


def test_modules_in_a_dict_are_found():
    model = Pair()
    model.heads = {"a": layers.LayerNorm(3)}
    assert list(model.parameters())[-2:] == ["heads.a.gamma", "heads.a.beta"]


def test_a_module_without_parameters_has_nothing_to_zero():
    layers.ReLU().zero_grad()
    assert layers.ReLU().flatten().data.size == 0
