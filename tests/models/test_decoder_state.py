"""The state of decoding: its dtype, its room."""

from __future__ import annotations

import numpy as np
import pytest
from support import tiny_config

import minitransformer as mt


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decoding_keeps_the_dtype(dtype, norm):
    model = mt.Transformer(tiny_config(norm=norm), dtype=dtype)
    state = model.start_decoding([[3, 4, 2]], 5)
    assert model.decode_step([1], state).dtype == dtype
    for layer in state.layers:
        assert {x.dtype for x in (layer.K, layer.V, layer.memory_K, layer.memory_V)} == {np.dtype(dtype)}


def test_a_state_knows_its_room_and_how_much_of_it_is_used():
    model = mt.Transformer(tiny_config())
    state = model.start_decoding([[3, 4, 2]], 5)
    for length in range(5):
        assert (state.length, state.max_len) == (length, 5)
        model.decode_step([1], state)
    assert state.length == 5
