"""An encoder alone: padding is nothing to it, pooled or not; segments; its messages. (torch.nn: test_one_stack.py.)"""

from __future__ import annotations

from functools import partial
from typing import Any

import messages
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_stack_cases import PAD, V, random_model, random_prompts

import minitransformer as mt

CASES: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm, learned positions": {"norm": "pre", "positions": "learned", "attention_bias": True},
    "rotary positions from both ends": {"positions": "rotary", "count_source_from": "both"},
    "positions from the end": {"count_source_from": "end", "embedding_norm": True},
    "mean": {"pooling": "mean", "positions": "learned"},
    "mean, pre-norm, no head": {"pooling": "mean", "norm": "pre", "head": "none"},
    "first": {"pooling": "first", "tie_embeddings": False, "tgt_vocab_size": 5},
    "masked-lm head, segments": {"head": "masked-lm", "n_segments": 3, "activation": "gelu"},
}


@pytest.mark.parametrize("name", CASES)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_padding_and_neighbours_change_no_answer(name, seed, lengths):
    model = random_model("encoder-only", seed, **CASES[name])
    ids = random_prompts(seed, lengths)
    together, _ = model.forward(np.pad(ids, ((0, 0), (0, 3))))
    for row, n, got in zip(ids, lengths, together, strict=True):
        alone, _ = model.forward([row[:n]])
        np.testing.assert_allclose(got[: alone.shape[1]], alone[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_padding_changes_no_gradient(name):
    model = random_model("encoder-only", 3, **CASES[name])
    ids, found = random_prompts(3, [5, 2]), []
    for padding in (0, 4):
        model.flatten().grad[...] = 0
        y, cache = model.forward(np.pad(ids, ((0, 0), (0, padding))))
        dy = np.random.default_rng(4).normal(size=(2, min(5, y.shape[1]), y.shape[2]))
        dy[1, 2:] = 0
        model.backward(np.pad(dy, ((0, 0), (0, y.shape[1] - dy.shape[1]), (0, 0))), cache)
        found.append(model.flatten().grad.copy())
    assert np.abs(found[0]).max() > 0.1
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9, atol=1e-11)


def test_each_position_sees_all_tokens_before_and_after_it():
    model = random_model("encoder-only", 4)
    ids = random_prompts(4, [7])
    logits, _ = model.forward(ids)
    for t in range(7):
        changed = ids.copy()
        changed[0, t] = ids[0, t] % (V - 1) + 1
        assert (model.forward(changed)[0] != logits).any(-1).all()


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_pooled_answer_is_made_of_the_tokens_alone(pooling):
    ids, lengths = random_prompts(5, [6, 1, 4]), [6, 1, 4]
    pooled = random_model("encoder-only", 5, pooling=pooling, head="none")
    each = random_model("encoder-only", 5, head="none")
    x, _ = each.forward(ids)
    y, _ = pooled.forward(ids)
    assert y.shape == (3, 1, 12)
    for row, n, got in zip(x, lengths, y[:, 0], strict=True):
        np.testing.assert_allclose(got, row[:n].mean(0) if pooling == "mean" else row[0], rtol=1e-12)


def test_the_first_token_is_the_first_even_if_it_is_padding_and_a_row_without_tokens_is_finite():
    ids = np.array([[PAD, 3, 4], [PAD, PAD, PAD]])
    for pooling in ("mean", "first"):
        model = random_model("encoder-only", 6, pooling=pooling, head="none")
        y, cache = model.forward(ids)
        assert np.isfinite(y).all()
        if pooling == "mean":
            assert not y[1].any()
        model.backward(np.ones_like(y), cache)
        assert np.isfinite(model.flatten().grad).all()


def test_segments_are_those_given_or_else_the_first():
    model = random_model("encoder-only", 7, n_segments=2)
    ids = random_prompts(7, [5, 3])
    zeros, ones = np.zeros_like(ids), np.ones_like(ids)
    np.testing.assert_array_equal(model.forward(ids)[0], model.forward(ids, zeros)[0])
    halves = np.where(np.arange(5) < 2, zeros, ones)
    answers = [model.forward(ids, s.tolist())[0] for s in (zeros, ones, halves)]
    assert all((answers[i] != answers[j]).any(-1).all() for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_segment_is_one_of_the_vocabularys_vectors_moved():
    """With one segment whose vector is v, the model is the one without, with v added to each position."""
    model = random_model("encoder-only", 8, n_segments=1, positions="learned")
    plain = random_model("encoder-only", 8, positions="learned")
    weights = model.state_dict()
    S = weights.pop("embedding.segments.E")
    weights["embedding.positions.P"] = weights["embedding.positions.P"] + S[0]
    plain.load_state_dict(weights)
    ids = random_prompts(8, [5, 3])
    np.testing.assert_allclose(plain.forward(ids)[0], model.forward(ids)[0], rtol=1e-10, atol=1e-12)


message_of = partial(messages.message_of, mt.InputError)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([[0, 2]], "segments: expected ids 0 … 1, got 2"),
        ([[0, -1]], "segments: expected ids 0 … 1, got -1"),
        ([[0]], "segments: expected one for each id, (1, 2), got (1, 1)"),
        ([[0, 1], [0, 1]], "segments: expected one for each id, (1, 2), got (2, 2)"),
        ([[0.0, 1.0]], "segments: expected integer ids, got float64"),
    ],
)
def test_messages_of_segments(segments, message):
    assert message_of(random_model("encoder-only", 9, n_segments=2).forward, [[3, 4]], segments) == message


def test_messages():
    model = random_model("encoder-only", 9, pooling="mean")
    expected = "segments: expected None, since this model has none (n_segments=0)"
    assert message_of(model.forward, [[3, 4]], [[0, 0]]) == expected
    assert message_of(model.forward, [[3] * 18]) == "ids: expected at most max_len=17 tokens, got 18"
    y, cache = model.forward([[3, 4], [5, 0]])
    expected = "dy: expected numbers of shape (2, 1, 13), like the logits, got float64 of shape (2, 2, 13)"
    assert message_of(model.backward, np.zeros((2, 2, V)), cache) == expected
    y, cache = model.forward([[3, 4]], keep="nothing")
    expected = "backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'"
    assert message_of(model.backward, y, cache) == expected
