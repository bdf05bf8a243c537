"""The state of decoding: its dtype, its room; the rows and sentences that are kept, in the order asked for."""

from __future__ import annotations

import numpy as np
import pytest
from support import V_SRC, V_TGT, randomise, tiny_config

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


def some_way(n_rows=1):
    """A model, and its state after three tokens of `n_rows` rows for each of four sentences, no two alike."""
    rng = np.random.default_rng(6)
    model = randomise(mt.Transformer(tiny_config()), rng)
    src_ids = rng.integers(3, V_SRC, (4, 5))
    src_ids[1, 3:] = src_ids[3, 2:] = 0  # the mask of the source differs, too
    state = model.start_decoding(src_ids, 6)
    state.select(np.arange(4).repeat(n_rows))
    for ids in rng.integers(3, V_TGT, (3, 4 * n_rows)):
        model.decode_step(ids, state)
    return model, state


@pytest.mark.parametrize("order", [[2, 0, 3], [3, 2, 1, 0], [1, 1, 0]])
def test_rows_and_their_sentences_are_kept_in_the_order_asked_for(order):
    model, state = some_way()
    expected = model.decode_step([3, 4, 5, 6], state)[order]
    model, state = some_way()
    state.select(np.array(order), np.array(order))
    found = model.decode_step(np.array([3, 4, 5, 6])[order], state)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_rows_of_a_sentence_are_kept_in_the_order_asked_for():
    order = [
        1,
        0,
        2,
        2,
        5,
        4,
        6,
        7,
    ]  # of each sentence's two rows: swapped, one of them twice, swapped, as they were
    tokens = np.arange(3, 11) % V_TGT
    model, state = some_way(2)
    expected = model.decode_step(tokens, state)[order]
    model, state = some_way(2)
    state.select(np.array(order))
    np.testing.assert_allclose(model.decode_step(tokens[order], state), expected, rtol=1e-12)
