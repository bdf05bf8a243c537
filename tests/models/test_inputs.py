"""§3.4, §3.5: what enters the stacks."""

from __future__ import annotations

import numpy as np
import pytest
from support import D_MODEL, T_Q, V_SRC, B, random_ids, tiny_config

import minitransformer as mt
from minitransformer import layers


@pytest.mark.parametrize(
    ("positions", "table"),
    [("sinusoidal", "sinusoids"), ("none", "no_positions")]
    + [(x, x) for x in ("integers", "fractions", "binary")],
)
def test_a_model_adds_the_table_its_config_names(positions, table):
    model = mt.Transformer(tiny_config(positions=positions), dtype="float64")
    ids = random_ids(np.random.default_rng(8), B, T_Q, V_SRC)
    x, _ = model.src_embedding.forward(ids, start=2)
    words, _ = model.src_embedding.embedding.forward(ids)
    PE = getattr(layers, table)(model.config.max_len, D_MODEL)[2 : 2 + T_Q]
    np.testing.assert_array_equal(x, words + PE)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("count_from", ["end", "both"])
def test_the_source_is_counted_from_where_its_config_says(positions, count_from):
    model = mt.Transformer(tiny_config(positions=positions, count_source_from=count_from), dtype="float64")
    embedding = model.src_embedding
    table = embedding.positions.P.data if positions == "learned" else embedding.positions.PE.data
    ids = np.array([[5, 6, 7, 2], [5, 2, 0, 0]])
    x, _ = embedding.forward(ids)
    words, _ = embedding.embedding.forward(ids)
    for b, t, n in ((0, 0, 4), (0, 2, 4), (0, 3, 4), (1, 0, 2), (1, 1, 2)):
        end = table[n - 1 - t]
        expected = end if count_from == "end" else np.concatenate([table[t], end])
        np.testing.assert_array_equal(x[b, t], words[b, t] + expected)
    plain, _ = model.tgt_embedding.forward(ids)  # the target is counted from its start
    tgt_words, _ = model.tgt_embedding.embedding.forward(ids)
    np.testing.assert_allclose((plain - tgt_words)[0], (plain - tgt_words)[1], rtol=0, atol=1e-15)


def test_positions_begin_at_a_random_number_in_training_and_at_0_in_evaluation():
    config = tiny_config(random_start=7, dropout=0.0)
    model = mt.Transformer(config, dtype="float64")
    ids = np.full((300, 3), 5)
    logits, _ = model.forward(ids, ids, np.random.default_rng(1))
    starts = {tuple(row) for row in logits[:, 0].round(9)}
    assert len(starts) == 8  # 0 … 7, the same for source and target
    evaluated, _ = model.forward(ids[:1], ids[:1])
    np.testing.assert_allclose(min(abs(logits - evaluated).max((1, 2))), 0, atol=1e-12)
    start = model.random_start(ids, np.random.default_rng(1))
    assert start.shape == (300, 1) and start.min() == 0 and start.max() == 7
    x, _ = model.src_embedding.forward(ids, start=start)
    y, _ = model.tgt_embedding.forward(ids, start=start)
    by_start = {int(s): (row, other) for s, row, other in zip(start[:, 0], x, y, strict=True)}
    np.testing.assert_array_equal(by_start[3][0][1:], by_start[4][0][:2])  # a position later
    np.testing.assert_array_equal(by_start[3][1][1:], by_start[4][1][:2])
    assert model.random_start(ids, None) == 0


def test_a_model_without_a_random_start_draws_nothing():
    model, ids = mt.Transformer(tiny_config(dropout=0.0)), np.full((2, 3), 5)
    rng = np.random.default_rng(1)
    model.forward(ids, ids, rng)
    assert rng.random() == np.random.default_rng(1).random()


def test_decoding_step_by_step_is_forward_when_counted_from_both_ends():
    model = mt.Transformer(tiny_config(count_source_from="both", random_start=9), 3, "float64")
    rng = np.random.default_rng(2)
    src_ids, tgt_in = random_ids(rng, B, T_Q, V_SRC), rng.integers(3, model.config.tgt_vocab_size, (B, 4))
    logits, _ = model.forward(src_ids, tgt_in)
    state = model.start_decoding(src_ids, 4)
    for t in range(4):
        np.testing.assert_allclose(
            model.decode_step(tgt_in[:, t], state), logits[:, t], rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count_source_from": "middle"}, "count_source_from: unknown 'middle'"),
        ({"random_start": -1}, "random_start: expected 0 or more, got -1"),
        (
            {"d_model": 6, "n_heads": 2, "count_source_from": "both"},
            "d_model: expected a multiple of 4, for sinusoids from both ends, got 6",
        ),
        (
            {"d_model": 5, "n_heads": 1, "count_source_from": "both", "positions": "none"},
            "d_model: expected a multiple of 2, for positions from both ends, got 5",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused(changes, message):
    with pytest.raises(mt.ConfigError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize("count_from", ["start", "end", "both"])
def test_the_gradient_with_random_starts_is_right(count_from):
    config = tiny_config(positions="learned", count_source_from=count_from, random_start=5)
    model, rng = mt.Transformer(config, 3, "float64"), np.random.default_rng(2)
    src_ids, tgt_in = random_ids(rng, B, T_Q, V_SRC), rng.integers(3, config.tgt_vocab_size, (B, 4))
    report = mt.gradcheck(model, src_ids, tgt_in, method="complex", dropout_seed=1)
    assert report.ok, str(report)
