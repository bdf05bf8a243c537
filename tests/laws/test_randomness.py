"""Law 11: no global random state is read or written: what is random is a function of the generator passed in."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law_cases import both_norms, every_module, examples, few, translations

import minitransformer as mt
from minitransformer.runs.progress import Progress
from minitransformer.testing import arrays_in, assert_same, gradients

LEGACY = np.random  # the global state that nothing may touch


def everywhere_the_same(work):
    """Do `work` under two global states; it changes neither, and its arrays are the same. Returns them."""
    found = []
    outside = random.getstate(), LEGACY.get_state()
    try:
        for seed in (1, 2):
            random.seed(seed)
            LEGACY.seed(seed)
            before = pickle.dumps((random.getstate(), LEGACY.get_state()))
            found.append([a.copy() for a in arrays_in(work())])
            assert pickle.dumps((random.getstate(), LEGACY.get_state())) == before
    finally:
        random.setstate(outside[0])
        LEGACY.set_state(outside[1])
    assert_same(*found)
    return found[0]


@every_module
@few
@given(data=st.data())
def test_forward_and_backward_touch_no_global_random_state(case, data):
    layer, inputs, *_ = data.draw(examples(case))

    def work():
        y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
        return y, gradients(layer, np.cos(y), cache), layer.forward(*inputs)[0]

    assert everywhere_the_same(work)


@both_norms
@given(data=st.data())
def test_decoding_touches_no_global_random_state(norm, data):
    model, src_ids, *_ = data.draw(translations(norm=norm))
    assert everywhere_the_same(lambda: mt.greedy_decode(model, src_ids, max_len=7))


@pytest.mark.parametrize("Task", [mt.tasks.Copy, mt.tasks.Reverse, mt.tasks.Sort])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_run_is_a_function_of_its_seed_alone(Task, accumulate):
    """Initial weights, data, dropout, the updates, evaluation: one seed decides them, in one thread or two."""
    task = Task(n_symbols=5, min_length=2, max_length=5, longest=0, epoch_size=30, test_size=3)
    settings = {
        "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 10, "max_len": 11, "dropout": 0.3, "steps": 3,
        "batch_tokens": 30, "warmup_steps": 2, "accumulate": accumulate, "processes": accumulate, "dtype": "float64",
    }  # fmt: skip

    def run(seed):
        trainer = mt.Trainer(mt.RunSettings.of(task, settings, seed))
        result = trainer.run(Progress(3, quiet=True))
        return trainer.model.flatten().data, np.array([result["exact_match"], result["token_accuracy"]])

    weights, _ = everywhere_the_same(lambda: run(5))
    assert (weights != run(6)[0]).any()
