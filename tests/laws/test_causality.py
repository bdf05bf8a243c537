"""Law 1: the future is invisible, forward and backward, to the last bit; with the masks of dropout frozen too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import READERS, assert_same, both_norms, causal_blocks, translations, upstream

DROPOUT = st.sampled_from([None, 1])  # a generator's seed; None is evaluation


@both_norms
@given(data=st.data())
def test_a_later_token_does_not_change_earlier_outputs(norm, data):
    model, src_ids, tgt_in, _ = data.draw(translations(norm=norm))
    model.to(dtype=data.draw(st.sampled_from(["float32", "float64"])))
    dropout_seed, j = data.draw(DROPOUT), data.draw(st.integers(1, tgt_in.shape[1] - 1))
    changed = tgt_in.copy()
    changed[:, j] = (tgt_in[:, j] + 1) % model.config.tgt_vocab_size  # a word may turn into padding, and back
    before, after = (
        model.forward(src_ids, ids, dropout_seed and np.random.default_rng(dropout_seed))[0]
        for ids in (tgt_in, changed)
    )
    assert_same([after[:, :j]], [before[:, :j]])
    assert (before[:, j] != after[:, j]).any()


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_a_later_position_does_not_change_earlier_outputs(name, data):
    block = data.draw(causal_blocks(name))
    x, dropout_seed = block.x, data.draw(DROPOUT)
    j = data.draw(st.integers(1, x.shape[-2] - 1))
    changed = x.copy()
    changed[..., j:, :] = 1000 * block.rng.normal(size=x[..., j:, :].shape)
    before, after = (block.forward(z, dropout_seed)[0] for z in (x, changed))
    assert_same([after[..., :j, :]], [before[..., :j, :]])
    assert (before[..., j, :] != after[..., j, :]).any()


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_earlier_outputs_have_no_gradient_in_later_inputs(name, data):
    """The same law, transposed: dy before j alone gives dx before j alone."""
    block = data.draw(causal_blocks(name))
    y, cache = block.forward(block.x, data.draw(DROPOUT))
    j = data.draw(st.integers(1, y.shape[-2] - 1))
    dy = upstream(y, block.rng)
    dy[..., j:, :] = 0
    dx = block.backward(dy, cache)
    assert (dx[..., j:, :] == 0).all()
    assert (dx[..., :j, :] != 0).any()
