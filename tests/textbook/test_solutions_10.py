"""The solutions to the exercises of chapter 10 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.training.batching import make_batch

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "10_training.py"
spec = importlib.util.spec_from_file_location("solutions_10", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_parts_add_up_to_the_whole_batch():
    config = mt.TransformerConfig(11, 11, n_layers=1, d_model=6, n_heads=3, d_ff=7, max_len=9)
    model = mt.Transformer(config, seed=0, dtype="float64")
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.1, pad_id=0)
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(3, 11, 4).tolist(), rng.integers(3, 11, n).tolist()) for n in (1, 2, 5, 6, 8)]

    def gradient(*parts):
        model.zero_grad()
        loss = solutions.accumulate(model, loss_fn, [make_batch(part) for part in parts])
        return loss, model.flatten().grad.copy()

    loss, whole = gradient(pairs)
    loss_of_parts, sum_of_parts = gradient(pairs[:2], pairs[2:])
    assert loss_of_parts == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(sum_of_parts, whole, rtol=1e-9, atol=1e-14)

    # what the exercise warns of is another loss, and another gradient
    (loss_1, gradient_1), (loss_2, gradient_2) = gradient(pairs[:2]), gradient(pairs[2:])
    assert (loss_1 + loss_2) / 2 != pytest.approx(loss, rel=1e-3)
    assert not np.allclose((gradient_1 + gradient_2) / 2, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("d_model", "peak"), [(512, 1e-3), (64, 5e-3)])
def test_the_schedule_peaks_where_it_should(d_model, peak):
    warmup = solutions.warmup_for_peak(d_model, peak)
    rates = [mt.noam_schedule(step, d_model, warmup) for step in range(1, 3 * warmup)]
    assert np.argmax(rates) + 1 == warmup
    assert max(rates) == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize(("V", "eps_ls"), [(5, 0.1), (13, 0.3)])
def test_at_this_distance_the_loss_has_no_slope(V, eps_ls):
    logits = np.zeros((1, 1, V))
    logits[0, 0, 2] = solutions.best_distance(V, eps_ls)
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=eps_ls, pad_id=0)
    least, cache = loss_fn.forward(logits, np.array([[2]]))
    assert abs(loss_fn.backward(cache)).max() < 1e-14
    for change in (-0.1, 0.1):
        logits[0, 0, 2] = solutions.best_distance(V, eps_ls) + change
        assert loss_fn.forward(logits, np.array([[2]]))[0] > least
