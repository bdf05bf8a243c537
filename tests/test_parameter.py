"""Parameters: how they are found, and what writing to one does."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import Pair

from minitransformer import layers


def test_parameters_are_found_in_the_order_of_definition_and_tied_ones_once():
    assert list(Pair().parameters()) == ["second.W", "second.b", "first.0.gamma", "first.0.beta"]
    assert Pair().n_parameters() == 15 + 5 + 5 + 5


def test_assigning_to_a_parameter_writes_into_its_memory():
    model = Pair()
    flat = model.flatten()
    model.second.b.data = np.arange(5)  # not an array of this dtype: converted
    np.testing.assert_array_equal(flat.data[15:20], np.arange(5))
    with pytest.raises(TypeError):
        model.second.b.data = np.full(5, 1j)
    with pytest.raises(ValueError, match="broadcast"):
        model.second.b.data = np.zeros(6)


def test_modules_in_a_dict_are_found():
    model = Pair()
    model.heads = {"a": layers.LayerNorm(3)}
    assert list(model.parameters())[-2:] == ["heads.a.gamma", "heads.a.beta"]
