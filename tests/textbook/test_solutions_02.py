"""The solutions of chapter 2 solve its exercises."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "02_embedding.py"
spec = importlib.util.spec_from_file_location("solutions_02", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_scatter_add_by_sorting_is_the_gradient_of_the_embedding():
    class Sorted(mt.layers.Embedding):
        def backward(self, dy, cache):
            solutions.solution_2(self.E.grad, cache.ids, dy * np.sqrt(self.E.shape[1]))

    rng = np.random.default_rng(0)
    ids = rng.integers(1, 7, size=(3, 5))  # fifteen of six: duplicates, and row 0 is never taken
    assert mt.gradcheck(Sorted(8, 4, rng=0), ids, method="complex").ok
    target, rows = rng.normal(size=(8, 4)), rng.normal(size=(3, 5, 4))
    expected = target.copy()
    np.add.at(expected, ids, rows)
    solutions.solution_2(target, ids, rows)  # adds to what is there
    np.testing.assert_allclose(target, expected, rtol=1e-12)


def test_a_relation_between_two_rows_finds_the_fourth():
    rng = np.random.default_rng(0)
    E = rng.normal(size=(20, 8))
    E[3] = 2 * (E[7] - E[1] + E[12])  # twice as long, in the same direction
    assert solutions.solution_3(E, 7, 1, 12) == 3
    for a, b, c in rng.integers(20, size=(50, 3)):
        wanted = E[a] - E[b] + E[c]
        others = [i for i in range(20) if i not in (a, b, c)]
        by_definition = [E[i] @ wanted / np.linalg.norm(E[i]) / np.linalg.norm(wanted) for i in others]
        assert solutions.solution_3(E, a, b, c) == others[int(np.argmax(by_definition))]


@pytest.mark.parametrize("v", [0, 5])
def test_gradient_of_a_word_that_is_never_right(v):
    rng = np.random.default_rng(1)
    output = mt.layers.OutputProjection(6, 4, rng=2, dtype="float64")
    x, tgt_out = rng.normal(size=(2, 7, 4)), rng.integers(1, 5, size=(2, 7))
    logits, cache = output.forward(x)
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.0, pad_id=-1)  # no padding here: 0 is a word
    _, loss_cache = loss_fn.forward(logits, tgt_out)
    output.backward(loss_fn.backward(loss_cache), cache)
    found = solutions.solution_4(logits.reshape(-1, 6), x.reshape(-1, 4), v)
    np.testing.assert_allclose(found, output.E.grad[v], rtol=1e-10)


@pytest.mark.parametrize("d_model", [32, 64])
def test_the_factor_lets_the_word_be_told(d_model):
    def share(scaled):
        return solutions.solution_5(d_model, scaled, np.random.default_rng(0))

    assert share(True) > 0.7
    assert share(False) < 0.2
