"""What a forward keeps for the way back."""

from __future__ import annotations

from functools import partial

import messages
import numpy as np
import pytest
from small_models import model_and_ids
from support import T_K, T_Q, V_SRC, V_TGT, B, random_ids, tiny_config

import minitransformer as mt


def test_caches_are_kept_unless_told_otherwise():
    rng = np.random.default_rng(6)
    model = mt.Transformer(tiny_config(dropout=0.0))
    ids = random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V_TGT)
    kinds = {type(kept).__name__ for stack in model.forward(*ids)[1][1:4:2] for kept in stack.layers}
    assert kinds == {"EncoderLayerCache", "DecoderLayerCache"}
    x = rng.normal(size=(B, T_Q, 8)).astype("float32")
    assert type(model.encoder.forward(x)[1].layers[0]).__name__ == "EncoderLayerCache"
    assert type(model.decoder.forward(x, x)[1].layers[0]).__name__ == "DecoderLayerCache"


message_of = partial(messages.message_of, mt.InputError)
GOOD = np.array([[3, 4, 0], [5, 6, 7]])


def test_messages_of_what_is_kept():
    model = mt.Transformer(tiny_config())
    expected = "keep: expected 'caches', 'inputs' or 'nothing', got 'all'"
    assert message_of(model.forward, GOOD, GOOD, keep="all") == expected
    logits, cache = model.forward(GOOD, GOOD, keep="nothing")
    expected = "backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'"
    assert message_of(model.backward, logits, cache) == expected
    x, cache = model.encoder.forward(np.ones((1, 2, 8), "float32"), keep="nothing")
    assert message_of(model.encoder.backward, x, cache) == expected


def test_nothing_kept_means_no_caches_and_no_backward():
    model, src_ids, tgt_in, rng = model_and_ids(6)
    logits, cache = model.forward(src_ids, tgt_in, keep="nothing")
    np.testing.assert_array_equal(logits, model.forward(src_ids, tgt_in)[0])
    assert cache.encoder.layers == [None, None] and cache.decoder.layers == [None, None]
    before = model.flatten().grad.copy()
    with pytest.raises(mt.InputError, match="kept nothing"):
        model.backward(rng.normal(size=logits.shape), cache)
    np.testing.assert_array_equal(model.flatten().grad, before)
