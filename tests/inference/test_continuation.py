"""Writing on without end: the same as the model on its window, and a new window when that is full."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from one_stack_cases import DECODERS, random_model, random_prompts

import minitransformer as mt
from minitransformer.inference.continuation import continuation
from minitransformer.inference.sampling import sampler


def greedy(logits):
    return logits.argmax(-1)


def words(seed):
    """Draws tokens, but never padding, as no text has any."""
    choose = sampler(np.random.default_rng(seed), 5.0)

    def words_alone(logits):
        logits[:, 0] = -np.inf
        return choose(logits)

    return words_alone


def by_windows(model, prompt, choose, n):
    """Each token from all of its window: as that was when it began, and what was written since."""
    text, max_len = list(prompt), model.config.max_len
    start = 0 if len(text) < max_len else len(text) - max(1, max_len // 2)
    while len(text) < len(prompt) + n:
        if len(text) - start > max_len:
            start = len(text) - max(1, max_len // 2)
        text.append(int(choose(model.forward([text[start:]])[0][:, -1])[0]))
    return text[len(prompt) :]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("max_len", [1, 2, 5, 11])
def test_each_token_is_the_one_after_its_window(name, max_len):
    for length in {1, max_len - 1, max_len, 2 * max_len + 1} - {0}:
        model = random_model("decoder-only", length, **{**DECODERS[name], "max_len": max_len})
        prompt = random_prompts(length, [length])[0].tolist()
        given = list(prompt)
        got = list(islice(continuation(model, prompt, words(length)), 20))
        assert got == by_windows(model, prompt, words(length), 20)
        assert len(set(got)) > 4 and prompt == given


def test_within_max_len_it_writes_what_the_other_functions_write():
    model, prompt = random_model("decoder-only", 3, norm="pre"), [3, 4, 5]
    expected = mt.greedy_decode(model, [prompt], None, None, 15)[0].tolist()
    assert list(islice(continuation(model, prompt, greedy), 15)) == expected
    drawn = mt.sample(model, [prompt], np.random.default_rng(7), 1.5, 5, bos_id=None, eos_id=None, max_len=15)
    choose = sampler(np.random.default_rng(7), 1.5, 5)
    assert list(islice(continuation(model, prompt, choose), 15)) == drawn[0].tolist()
    assert drawn[0].tolist() != expected


def test_nothing_is_computed_before_somebody_reads():
    model = random_model("decoder-only", 3)
    model.start_after = None
    assert list(islice(continuation(model, [3], greedy), 0)) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompts: expected ids of shape (B, T), B and T at least 1, got (1, 0)"),
        ([3, 13], "prompts: expected ids 0 … 12, got 13"),
        ([3.5], "prompts: expected integer ids, got float64"),
    ],
)
def test_a_prompt_that_the_model_cannot_read_is_refused(prompt, message):
    with pytest.raises(mt.InputError) as raised:
        next(continuation(random_model("decoder-only", 3), prompt, greedy))
    assert str(raised.value) == message
