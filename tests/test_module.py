"""Modules: what a state holds, and what a subclass owes."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import Pair
from support import tiny_config

import minitransformer as mt
from minitransformer import layers


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


def test_a_module_without_parameters_has_nothing_to_zero():
    layers.ReLU().zero_grad()
    assert layers.ReLU().flatten().data.size == 0
