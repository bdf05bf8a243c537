"""Law 1: the future is invisible, forward and backward, to the last bit; with the masks of dropout frozen too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import READERS, both_norms, causal_blocks, translations

from minitransformer.testing import assert_causal, assert_same
from minitransformer.testing.strategies import dtypes

DROPOUT = st.sampled_from([None, 1])  # a generator's seed; None is evaluation


@both_norms
@given(data=st.data())
def test_a_later_token_does_not_change_earlier_outputs(norm, data):
    model, src_ids, tgt_in, _ = data.draw(translations(norm=norm))
    model.to(dtype=data.draw(dtypes))
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
def test_outputs_depend_on_no_later_position_and_have_no_gradient_there(name, data):
    block = data.draw(causal_blocks(name))
    assert_causal(block, block.x, data.draw(st.integers(1, block.x.shape[-2] - 1)), data.draw(DROPOUT))
