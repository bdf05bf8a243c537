"""Law 2: what is masked does not exist, for the outputs and for every gradient.

To the last bit where the shapes stay (other numbers behind the mask, other sentences in the batch). Up to rounding
where they change (more padding, a smaller batch): matrix products then add up in another order.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import (
    ENCODERS,
    SIZES,
    blocks,
    both_norms,
    translations,
)
from support import random_mask, randomise

import minitransformer as mt
from minitransformer.layers import ScaledDotProductAttention, causal_mask
from minitransformer.testing import assert_close, assert_ignores, assert_same, gradients
from minitransformer.testing.strategies import seeds

PADDED_DECODERS = ["DecoderLayer", "PreNormDecoderLayer", "Decoder-post", "Decoder-pre"]


def loss_and_gradients(model, src_ids, tgt_in, tgt_out):
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, model.config.pad_id)
    logits, cache = model.forward(src_ids, tgt_in)
    loss, loss_cache = loss_fn.forward(logits, tgt_out)
    return logits, loss, gradients(model, loss_fn.backward(loss_cache), cache)


# ---- up to rounding


@both_norms
@given(data=st.data())
def test_more_padding_changes_nothing(norm, data):
    model, src_ids, tgt_in, rng = data.draw(translations(norm=norm))
    tgt_out = np.where(tgt_in == 0, 0, rng.integers(1, model.config.tgt_vocab_size, tgt_in.shape))
    more_src, more_tgt = data.draw(st.sampled_from([(0, 1), (1, 0), (2, 5), (6, 3)]))
    longer_src = np.pad(src_ids, ((0, 0), (0, more_src)))
    longer_tgt = [np.pad(ids, ((0, 0), (0, more_tgt))) for ids in (tgt_in, tgt_out)]
    logits, loss, grads = loss_and_gradients(model, src_ids, tgt_in, tgt_out)
    logits_padded, loss_padded, grads_padded = loss_and_gradients(model, longer_src, *longer_tgt)
    assert_close([logits_padded[:, : tgt_in.shape[1]]], [logits])
    assert loss_padded == pytest.approx(loss, rel=1e-12)
    assert_close(grads_padded, grads)


@both_norms
@given(data=st.data())
def test_a_sentence_is_translated_alike_in_any_company(norm, data):
    """In a batch or alone, and then without its padding."""
    model, src_ids, tgt_in, _ = data.draw(translations(norm=norm))
    together, _ = model.forward(src_ids, tgt_in)
    for row in range(len(src_ids)):
        n_src, n_tgt = (max(1, np.count_nonzero(ids[row])) for ids in (src_ids, tgt_in))
        alone, _ = model.forward(src_ids[row : row + 1, :n_src], tgt_in[row : row + 1, :n_tgt])
        assert_close([alone[0]], [together[row, :n_tgt]])


# ---- to the last bit


@both_norms
@given(data=st.data())
def test_other_sentences_in_the_batch_change_no_bit(norm, data):
    model, src_ids, tgt_in, rng = data.draw(translations(norm=norm))
    row = data.draw(st.integers(0, len(src_ids) - 1))
    others = []
    for ids, vocab_size in ((src_ids, model.config.src_vocab_size), (tgt_in, model.config.tgt_vocab_size)):
        others.append(rng.integers(0, vocab_size, ids.shape))
        others[-1][row] = ids[row]
    before, after = model.forward(src_ids, tgt_in)[0], model.forward(*others)[0]
    assert_same([after[row]], [before[row]])
    assert (np.delete(before, row, 0) != np.delete(after, row, 0)).any()


@pytest.mark.parametrize("name", ENCODERS)
@given(data=st.data())
def test_what_stands_behind_the_mask_reaches_no_word(name, data):
    """Neither in outputs nor in gradients; a sentence without any word is among them."""
    sizes, rng = data.draw(SIZES), np.random.default_rng(data.draw(seeds))
    block = randomise(data.draw(blocks(name, sizes)), rng)
    x = rng.normal(size=(sizes.B, sizes.T_k, sizes.d_model))
    is_word = rng.random((sizes.B, sizes.T_k)) > 0.4
    is_word[0], is_word[1, 0], is_word[1, 1:] = False, True, False
    assert_ignores(block, (x, is_word[:, None, None]), 0, is_word, outputs=is_word)


@pytest.mark.parametrize("name", PADDED_DECODERS)
@given(data=st.data())
def test_a_decoder_reads_no_masked_source(name, data):
    sizes, rng = data.draw(SIZES), np.random.default_rng(data.draw(seeds))
    block = randomise(data.draw(blocks(name, sizes)), rng)
    x = rng.normal(size=(sizes.B, sizes.T_q, sizes.d_model))
    memory = rng.normal(size=(sizes.B, sizes.T_k, sizes.d_model))
    is_word = rng.random((sizes.B, sizes.T_k)) > 0.4
    is_word[0], is_word[1, 0], is_word[1, 1:] = False, True, False
    assert_ignores(block, (x, memory, causal_mask(x[..., 0]), is_word[:, None, None]), 1, is_word)


@given(sizes=SIZES, seed=seeds)
def test_a_masked_key_has_no_gradient_and_no_influence(sizes, seed):
    """Query by query: the mask may differ from row to row."""
    rng = np.random.default_rng(seed)
    B, T_q, T_k, h, d_k, d_v, *_ = sizes
    Q, K, V = (rng.normal(size=(B, h, *axes)) for axes in ((T_q, d_k), (T_k, d_k), (T_k, d_v)))
    mask = random_mask(rng, B, 1, T_q, T_k)
    query = rng.integers(T_q)
    hidden = ~mask[:, :, query, :, None]  # (B, 1, T_k, 1): what this query does not see
    others = [np.where(hidden, 1000 * rng.normal(size=z.shape), z) for z in (K, V)]
    layer = ScaledDotProductAttention()
    (before, cache), (after, _) = layer.forward(Q, K, V, mask), layer.forward(Q, *others, mask)
    assert_same([after[:, :, query]], [before[:, :, query]])
    dy = np.zeros_like(before)
    dy[:, :, query] = rng.normal(size=dy[:, :, query].shape)
    for dz in layer.backward(dy, cache)[1:]:
        assert (dz[np.broadcast_to(hidden, dz.shape)] == 0).all()


@given(data=st.data())
def test_the_source_reaches_the_logits_and_its_padding_does_not(data):
    """The padding symbol's own row of E, which the source alone would move: its gradient is 0."""
    model, src_ids, tgt_in, rng = data.draw(translations(tie_embeddings="target_output"))
    logits, cache = model.forward(src_ids, tgt_in)
    changed = src_ids.copy()
    changed[0, 0] = src_ids[0, 0] % (model.config.src_vocab_size - 1) + 1
    assert (model.forward(changed, tgt_in)[0][0] != logits[0]).any()
    model.zero_grad()
    model.backward(rng.normal(size=logits.shape), cache)
    E = model.src_embedding.embedding.E
    assert (E.grad[0] == 0).all() and (E.grad[src_ids[0]] != 0).any()
