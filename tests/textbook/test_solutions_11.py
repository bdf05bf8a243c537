"""The solutions to the exercises of chapter 11 solve them."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "11_decoding.py"
spec = importlib.util.spec_from_file_location("solutions_11", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def best_probability(table, beam):
    """Of the sentence that a beam of this width finds."""
    alive, finished = [(1.0, "<s>")], []
    while alive:
        longer = [(p * q, word) for p, last in alive for word, q in table[last].items()]
        longer = sorted(longer, reverse=True)[:beam]
        finished += [p for p, word in longer if word == "</s>"]
        alive = [(p, word) for p, word in longer if word != "</s>"]
    return max(finished)


def test_a_wider_beam_finds_a_worse_sentence():
    table = solutions.crowding_table()
    assert all(math.isclose(sum(choices.values()), 1) for choices in table.values())
    assert best_probability(table, beam=2) < best_probability(table, beam=1)
    assert best_probability(table, beam=100) == pytest.approx(best_probability(table, beam=1))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 1.0])
def test_the_nucleus_is_the_smallest_set_that_reaches_p(p):
    logits = np.random.default_rng(0).normal(size=(20, 9)) * 2
    full, nucleus = mt.layers.softmax(logits), solutions.nucleus(logits, p)
    np.testing.assert_allclose(nucleus.sum(-1), 1, rtol=1e-12)
    for whole, part in zip(full, nucleus, strict=True):
        kept = part > 0
        assert whole[kept].sum() >= p - 1e-12
        assert whole[kept].sum() - whole[kept].min() < p  # one word less would not do
        assert kept.all() or whole[kept].min() >= whole[~kept].max()
        np.testing.assert_allclose(part[kept], whole[kept] / whole[kept].sum(), rtol=1e-12)


def test_the_size_of_the_state():
    config = mt.TransformerConfig(9, 9, n_layers=3, d_model=10, n_heads=5, d_ff=7, max_len=20)
    model = mt.Transformer(config, seed=0)
    B, T_src, max_len = 2, 7, 11
    state = model.start_decoding(np.full((B, T_src), 3), max_len)

    def numbers():
        return sum(x.size for s in state.layers for x in (s.K, s.V, s.memory_K, s.memory_V))

    assert numbers() == solutions.state_size(config, B, T_src, max_len)
    state.select(np.array([0, 0, 0, 1, 1, 1]))  # three hypotheses of each sentence
    assert numbers() == solutions.state_size(config, B, T_src, max_len, beam=3)
