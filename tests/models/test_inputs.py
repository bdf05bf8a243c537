"""§3.4, §3.5: what enters the stacks."""

from __future__ import annotations

import numpy as np
import pytest
from support import D_MODEL, T_Q, V_SRC, B, random_ids, randomise, tiny_config

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
    x, _ = model.src_embedding.forward(ids, at=2)
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
    src_at, tgt_at = model.positions(ids, ids)
    x, _ = embedding.forward(ids, at=src_at)
    words, _ = embedding.embedding.forward(ids)
    for b, t, n in ((0, 0, 4), (0, 2, 4), (0, 3, 4), (1, 0, 2), (1, 1, 2)):
        end = table[n - 1 - t]
        expected = end if count_from == "end" else np.concatenate([table[t], end])
        np.testing.assert_array_equal(x[b, t], words[b, t] + expected)
    plain, _ = model.tgt_embedding.forward(ids, at=tgt_at)  # the target is counted from its start
    tgt_words, _ = model.tgt_embedding.embedding.forward(ids)
    np.testing.assert_allclose((plain - tgt_words)[0], (plain - tgt_words)[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("count_from", ["start", "end", "both"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_padding_moves_no_answer_whatever_its_id(positions, count_from):
    config = tiny_config(positions=positions, count_source_from=count_from, pad_id=4)
    model = randomise(mt.Transformer(config, 3, "float64"), np.random.default_rng(1), 0.3)
    src, tgt = np.array([[7, 0, 9, 2]]), np.array([[1, 5, 6]])
    padded = np.pad(src, ((0, 0), (0, 3)), constant_values=4)
    expected, _ = model.forward(src, tgt)
    np.testing.assert_allclose(model.forward(padded, tgt)[0], expected, rtol=1e-10, atol=1e-12)


def test_positions_begin_at_a_random_number_in_training_and_at_0_in_evaluation():
    config = tiny_config(random_start=7, dropout=0.0)
    model = mt.Transformer(config, dtype="float64")
    ids = np.full((300, 3), 5)
    logits, _ = model.forward(ids, ids, np.random.default_rng(1))
    starts = {tuple(row) for row in logits[:, 0].round(9)}
    assert len(starts) == 8  # 0 … 7, the same for source and target
    evaluated, _ = model.forward(ids[:1], ids[:1])
    np.testing.assert_allclose(min(abs(logits - evaluated).max((1, 2))), 0, atol=1e-12)
    src_at, tgt_at = model.positions(ids, ids, np.random.default_rng(1))
    assert src_at.shape == (300, 3, 1) and set(src_at[:, 0, 0]) == set(range(8))
    np.testing.assert_array_equal(src_at, tgt_at)
    assert (np.diff(src_at, axis=1) == 1).all()
    assert model.positions(ids, ids)[0].ravel().tolist() == [0, 1, 2]


def test_source_and_target_stand_at_the_same_random_places():
    model = mt.Transformer(tiny_config(random_gaps=4, count_source_from="both", positions="rotary"))
    ids = np.array([[5, 6, 7, 8, 2], [5, 6, 2, 0, 0]] * 50)
    src_at, tgt_at = model.positions(ids, ids[:, :3], np.random.default_rng(1))
    assert src_at.shape == (100, 5, 2) and tgt_at.shape == (100, 3, 1)
    np.testing.assert_array_equal(src_at[:, :3, 0], tgt_at[..., 0])
    np.testing.assert_array_equal(
        src_at[::2, ::-1, 1], src_at[::2, :, 0]
    )  # the same places from the other end
    np.testing.assert_array_equal(src_at[1::2, 2::-1, 1], src_at[1::2, :3, 0])
    assert set(np.diff(tgt_at[..., 0]).ravel()) == {1, 2, 3, 4}
    assert (tgt_at[:, 0] == 0).all()


def test_a_model_without_a_random_start_draws_nothing():
    model, ids = mt.Transformer(tiny_config(dropout=0.0)), np.full((2, 3), 5)
    rng = np.random.default_rng(1)
    model.forward(ids, ids, rng)
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
@pytest.mark.parametrize("count_from", ["start", "end", "both"])
def test_decoding_step_by_step_is_forward_wherever_positions_are_counted_from(positions, count_from):
    config = tiny_config(positions=positions, count_source_from=count_from, random_start=9, random_gaps=3)
    model = randomise(mt.Transformer(config, 3, "float64"), np.random.default_rng(1), 0.3)
    rng = np.random.default_rng(2)
    src_ids, tgt_in = random_ids(rng, B, T_Q, V_SRC), rng.integers(3, model.config.tgt_vocab_size, (B, 4))
    logits, _ = model.forward(src_ids, tgt_in)
    state = model.start_decoding(src_ids, 4)
    for t in range(2):
        step = model.decode_step(tgt_in[:, t], state)
        np.testing.assert_allclose(step, logits[:, t], rtol=1e-9, atol=1e-12)
    # then the sentences in another order, with two rows for each, as beam search has them
    order = np.arange(B)[::-1]
    state.select(order.repeat(2), order)
    step = model.decode_step(tgt_in[order, 2].repeat(2), state)
    np.testing.assert_allclose(step, logits[order, 2].repeat(2, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count_source_from": "middle"}, "count_source_from: unknown 'middle'"),
        ({"random_start": -1}, "random_start: expected 0 or more, got -1"),
        ({"random_gaps": 0}, "random_gaps: expected 1 or more, got 0"),
        (
            {"d_k": 6, "positions": "rotary", "count_source_from": "both"},
            "d_k: expected a multiple of 4, for rotary positions from both ends, got 6",
        ),
        ({"d_k": 5, "positions": "rotary"}, "d_k: expected a multiple of 2, for rotary positions, got 5"),
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


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("count_from", ["start", "end", "both"])
def test_the_gradient_with_random_places_is_right(positions, count_from):
    config = tiny_config(positions=positions, count_source_from=count_from, random_start=5, random_gaps=3)
    rng = np.random.default_rng(2)
    model = randomise(mt.Transformer(config, 3, "float64"), rng, 0.3)
    src_ids, tgt_in = random_ids(rng, B, T_Q, V_SRC), rng.integers(3, config.tgt_vocab_size, (B, 4))
    report = mt.gradcheck(model, src_ids, tgt_in, method="complex", dropout_seed=1)
    assert report.ok, str(report)


def test_dropout_is_on_the_sum_of_embedding_and_position():
    config = tiny_config(dropout=0.5)
    model = randomise(mt.Transformer(config), np.random.default_rng(1))
    ids = random_ids(np.random.default_rng(8), B, T_Q, V_SRC)
    y, cache = model.src_embedding.forward(ids, np.random.default_rng(2))
    np.testing.assert_allclose(y, cache.dropout.kept * model.src_embedding.forward(ids)[0] / 0.5, rtol=1e-12)


def test_a_target_may_be_longer_than_its_source_at_random_places():
    model = mt.Transformer(tiny_config(random_gaps=4))
    ids = np.full((50, 5), 5)
    src_at, tgt_at = model.positions(ids[:, :2], ids, np.random.default_rng(1))
    assert src_at.shape == (50, 2, 1) and tgt_at.shape == (50, 5, 1)
    np.testing.assert_array_equal(src_at, tgt_at[:, :2])
