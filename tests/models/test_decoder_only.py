"""A decoder alone: decoding token by token is forward, whatever was read before; its messages."""

from __future__ import annotations

from functools import partial
from typing import Any

import messages
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_stack_cases import DECODERS, MAX_LEN, V, random_model, random_prompts

import minitransformer as mt
from minitransformer.models import DecoderOnly, EncoderOnly
from minitransformer.one_stack_config import OneStackConfig

LENGTHS = st.lists(st.integers(1, 8), min_size=1, max_size=4)


def expected_logits(model: DecoderOnly, prompts: Any, lengths: list[int], written: np.ndarray) -> np.ndarray:
    """What forward says after each written token, (B, n, V): of each row alone, without any padding."""
    rows = []
    for prompt, length, row in zip(prompts, lengths, written, strict=True):
        logits, _ = model.forward([[*prompt[:length], *row]])
        rows.append(logits[0, length:])
    return np.stack(rows)


@pytest.mark.parametrize("name", DECODERS)
@given(seed=st.integers(0, 2**32 - 1), lengths=LENGTHS)
def test_each_step_has_the_logits_of_forward_after_prompts_of_unequal_length(name, seed, lengths):
    model = random_model("decoder-only", seed, **DECODERS[name])
    prompts, written = random_prompts(seed, lengths), random_prompts(seed + 1, [9] * len(lengths))
    state = model.start_decoding(prompts, 9)
    got = np.stack([model.decode_step(written[:, t], state) for t in range(9)], 1)
    expected = expected_logits(model, prompts, lengths, written)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DECODERS)
@given(seed=st.integers(0, 2**32 - 1), lengths=LENGTHS)
def test_the_last_token_of_each_prompt_may_be_read_as_the_first_one_written(name, seed, lengths):
    model = random_model("decoder-only", seed, **DECODERS[name])
    prompts = random_prompts(seed, lengths)
    tokens, state = model.start_after(prompts, 3)
    assert tokens.tolist() == [row[n - 1] for row, n in zip(prompts.tolist(), lengths, strict=True)]
    assert state.max_len - state.length == 3
    for row, n, got in zip(prompts, lengths, model.decode_step(tokens, state), strict=True):
        expected, _ = model.forward([row[:n]])
        np.testing.assert_allclose(got, expected[0, -1], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DECODERS)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 7), min_size=2, max_size=4),
    data=st.data(),
)
def test_rows_may_be_dropped_moved_and_repeated(name, seed, lengths, data):
    """As beam search does with its hypotheses."""
    model = random_model("decoder-only", seed, **DECODERS[name])
    prompts, written = random_prompts(seed, lengths), random_prompts(seed + 1, [4] * len(lengths))
    state = model.start_decoding(prompts, 9)
    for t in range(4):
        model.decode_step(written[:, t], state)
    B = len(lengths)
    rows = np.array(data.draw(st.lists(st.integers(0, B - 1), min_size=1, max_size=5)))
    state.select(rows)
    assert state.n_rows == len(rows) and state.max_len == max(lengths) + 9
    prompts, lengths = prompts[rows], [lengths[i] for i in rows]
    later = random_prompts(seed + 2, [5] * len(rows))
    got = np.stack([model.decode_step(later[:, t], state) for t in range(5)], 1)
    expected = expected_logits(model, prompts, lengths, np.concatenate([written[rows], later], 1))
    np.testing.assert_allclose(got, expected[:, 4:], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DECODERS)
def test_what_comes_later_and_padding_after_the_end_change_nothing(name):
    model = random_model("decoder-only", 5, **DECODERS[name])
    ids = random_prompts(5, [7, 7, 7])
    logits, _ = model.forward(ids)
    for t in (1, 4, 6):
        changed = ids.copy()
        changed[:, t:] = 0
        np.testing.assert_allclose(model.forward(changed)[0][:, :t], logits[:, :t], rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(model.forward(ids[:, :t])[0], logits[:, :t], rtol=1e-10, atol=1e-12)
        assert (model.forward(changed)[0][:, t] != logits[:, t]).all()


def test_a_prompt_may_fill_all_of_max_len():
    """One token less where another one is still to be read."""
    model = random_model("decoder-only", 3)
    full = random_prompts(3, [MAX_LEN, 4])
    tokens, state = model.start_after(full, 1)
    assert state.max_len == MAX_LEN
    expected, _ = model.forward(full[:1])
    np.testing.assert_allclose(model.decode_step(tokens, state)[0], expected[0, -1], rtol=1e-9)
    state = model.start_decoding(full[:, :-1], 1)
    np.testing.assert_allclose(model.decode_step(full[:, -1], state)[0], expected[0, -1], rtol=1e-9)


def test_decoding_writes_neither_to_the_model_nor_to_the_prompts():
    model, prompts = random_model("decoder-only", 6, norm="pre"), random_prompts(6, [3, 5])
    before = model.flatten().data.copy(), model.flatten().grad.copy(), prompts.copy()
    prompts.flags.writeable = False
    _, state = model.start_after(prompts, 3)
    model.decode_step([3, 4], state)
    for now, then in zip((model.flatten().data, model.flatten().grad, prompts), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_dtype_throughout(dtype):
    model = random_model("decoder-only", 7, dtype, embedding_norm=True, positions="learned")
    logits, cache = model.forward(random_prompts(7, [5, 2]))
    model.backward(logits, cache)
    _, state = model.start_after(random_prompts(7, [5, 2]), 2)
    arrays = [logits, model.decode_step([3, 4], state), model.flatten().grad, state.layers[0].K]
    assert {x.dtype for x in arrays} == {np.dtype(dtype)}


# ---- what it refuses: messages, whole


message_of = partial(messages.message_of, mt.InputError)
SHAPE = "expected ids of shape (B, T), B and T at least 1, got"


@pytest.mark.parametrize(
    ("prompts", "max_len", "message"),
    [
        ([[3] * 17], 1, "prompts: expected at most 16 tokens, to leave room for one (max_len=17), got 17"),
        ([[3] * 18], 1, "prompts: expected at most max_len=17 tokens, got 18"),
        ([[3] * 9], 9, "max_len: expected 1 … 8 (the model's max_len=17, less the length of the prompts), got 9"),
        ([[3, 4]], 0, "max_len: expected 1 … 15 (the model's max_len=17, less the length of the prompts), got 0"),
        ([[3, 4]], 2.0, "max_len: expected 1 … 15 (the model's max_len=17, less the length of the prompts), got 2.0"),
        ([[3.0]], 1, "prompts: expected integer ids, got float64"),
        ([[3, 13]], 1, "prompts: expected ids 0 … 12, got 13"),
        ([[-1]], 1, "prompts: expected ids 0 … 12, got -1"),
        ([3, 4], 1, f"prompts: {SHAPE} (2,)"),
        ([[]], 1, f"prompts: {SHAPE} (1, 0)"),
        ([[3], [3, 4]], 1, "prompts: expected rows of one length; pad the shorter ones"),
    ],
)  # fmt: skip
def test_messages_of_prompts(prompts, max_len, message):
    model = random_model("decoder-only", 8)
    assert message_of(model.start_decoding, prompts, max_len) == message


def test_messages_of_prompts_whose_last_token_is_still_to_be_read():
    model = random_model("decoder-only", 8)
    expected = "max_len: expected 1 … 1 (the model's max_len=17, less the length of the prompts), got 2"
    assert message_of(model.start_after, [[3] * 17], 2) == expected


def test_messages_of_the_next_token():
    model = random_model("decoder-only", 8)
    state = model.start_decoding([[3, 4], [5, 0]], 1)
    for ids, message in (
        ([3], "ids: expected one for each of the 2 sentences, got 1"),
        ([3, 13], "ids: expected ids 0 … 12, got 13"),
        ([3.0, 4.0], "ids: expected integer ids, got float64"),
    ):
        assert message_of(model.decode_step, ids, state) == message
        assert state.length == 2
    model.decode_step([3, 4], state)
    assert (
        message_of(model.decode_step, [3, 4], state)
        == "decoding: expected at most 3 tokens, got more; start with a larger max_len"
    )


def test_messages_of_forward_and_backward():
    model = random_model("decoder-only", 8)
    assert message_of(model.forward, [[3] * 18]) == "ids: expected at most max_len=17 tokens, got 18"
    assert message_of(model.forward, [[3, 13]]) == "ids: expected ids 0 … 12, got 13"
    assert "rng: expected a random generator" in message_of(model.forward, [[3]], rng=3)
    logits, cache = model.forward([[3, 4]], keep="nothing")
    expected = "backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'"
    assert message_of(model.backward, logits, cache) == expected
    logits, cache = model.forward([[3, 4]])
    expected = "dy: expected numbers of shape (1, 2, 13), like the logits, got float64 of shape (1, 1, 13)"
    assert message_of(model.backward, logits[:, :1], cache) == expected


@pytest.mark.parametrize("Model", [DecoderOnly, EncoderOnly])
def test_a_config_of_another_family_is_refused(Model):
    other = {DecoderOnly: "encoder-only", EncoderOnly: "decoder-only"}[Model]
    for config in (OneStackConfig(V, V, family=other), mt.TransformerConfig(V, V), {"d_model": 8}):
        with pytest.raises(
            mt.ConfigError, match=r"config: expected one with family='(de|en)coder-only', got "
        ):
            Model(config)
