"""The solutions of chapter 5 solve its exercises."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "05_heads.py"
spec = importlib.util.spec_from_file_location("solutions_05", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_keys_that_share_the_weight_evenly_count_as_n(n):
    weights = np.zeros((2, 3, 7))
    weights[..., 7 - n :] = 1 / n
    np.testing.assert_allclose(solutions.solution_2(weights), np.full((2, 3), n), rtol=1e-12)


def test_the_effective_number_of_keys_is_between_one_and_all():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 6, 5)) * 3
    effective = solutions.solution_2(mt.layers.softmax(scores))
    assert effective.shape == (4, 6)
    assert (effective > 1).all()
    assert (effective < 5).all()
    by_definition = [
        np.exp(-sum(w * np.log(w) for w in row)) for row in mt.layers.softmax(scores).reshape(-1, 5)
    ]
    np.testing.assert_allclose(effective.ravel(), by_definition, rtol=1e-12)


@pytest.fixture(scope="module")
def model_and_pairs():
    """A model that has learned a few sentences by heart, and these."""
    config = mt.TransformerConfig.preset(
        "toy", vocab_size=13, n_layers=1, d_model=16, n_heads=2, d_ff=32, dropout=0.0
    )
    model = mt.Transformer(config, seed=0)
    symbols = np.random.default_rng(1).integers(3, 13, (16, 4))
    start, end = np.full((16, 1), 1), np.full((16, 1), 2)
    loss_fn, optimizer = mt.LabelSmoothedCrossEntropy(eps_ls=0.0, pad_id=0), mt.Adam(model)
    for _ in range(150):
        model.zero_grad()
        logits, cache = model.forward(np.hstack([symbols, end]), np.hstack([start, symbols]))
        _, loss_cache = loss_fn.forward(logits, np.hstack([symbols, end]))
        model.backward(loss_fn.backward(loss_cache), cache)
        optimizer.step(lr=5e-3)
    pairs = [(row, row) for row in symbols.tolist()]
    assert mt.evaluate(model, pairs)["exact_match"] > 0.9
    return model, pairs


NAMES = [
    "encoder.layers.0.self_attention",
    "decoder.layers.0.self_attention",
    "decoder.layers.0.cross_attention",
]


def test_switching_off_heads_is_scored_on_a_model_without_them(model_and_pairs):
    model, pairs = model_and_pairs
    before = model.state_dict()
    everything = [(name, head) for name in NAMES for head in (0, 1)]
    results = {}
    for heads in ([], *([one] for one in everything), everything):
        twin = mt.Transformer(model.config)
        twin.load_state_dict(before)
        for path, head in heads:
            twin.parameters()[path + ".W_O"].data.reshape(2, 8, 16)[head] = 0.0
        results[str(heads)] = solutions.solution_3(model, pairs, heads)
        assert results[str(heads)] == mt.evaluate(twin, pairs)["exact_match"]
    assert len(set(results.values())) > 2  # it makes a difference which heads are off
    assert results[str(everything)] < 0.1 < 0.9 < results["[]"]
    for path, x in model.state_dict().items():
        np.testing.assert_array_equal(x, before[path])  # the model itself keeps its heads


@pytest.mark.parametrize("seed", range(20))
def test_other_weights_give_the_same_output(seed):
    rng = np.random.default_rng(seed)
    w = mt.layers.softmax(rng.normal(size=7))
    V = rng.normal(size=(7, rng.integers(1, 6)))
    other = solutions.solution_4(w, V)
    assert (other >= 0).all()
    assert abs(other - w).max() > 1e-3
    np.testing.assert_allclose(other.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(other @ V, w @ V, rtol=1e-10, atol=1e-12)
