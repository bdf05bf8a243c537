"""The whole model: sizes, ties, what the stacks keep, what it refuses. (Its laws: tests/laws.)"""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from support import T_K, T_Q, V_SRC, B, random_ids, randomise, tiny_config

import minitransformer as mt
from minitransformer.config import PRESETS


def model_and_ids(seed: int = 0, **changes):
    rng = np.random.default_rng(seed)
    model = randomise(mt.Transformer(tiny_config(**changes)), rng, spread=0.3)
    V = model.config.tgt_vocab_size
    return model, random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V), rng


def n_parameters(config: mt.TransformerConfig) -> int:
    """From the formulas of the paper."""
    c, d = config, config.d_model
    d_k, d_v = c.d_k or d // c.n_heads, c.d_v or d // c.n_heads
    attention = 2 * d * c.n_heads * d_k + 2 * d * c.n_heads * d_v
    feed_forward = d * c.d_ff + c.d_ff + c.d_ff * d + d
    encoder = attention + feed_forward + 2 * (2 * d)
    decoder = 2 * attention + feed_forward + 3 * (2 * d)
    learned = 2 * c.max_len * d if c.positions == "learned" else 0
    return c.src_vocab_size * d + c.n_layers * (encoder + decoder) + learned


class Zeros(np.random.Generator):
    """A generator whose numbers cost nothing."""

    def uniform(self, low, high, size):
        return np.zeros(size)

    def normal(self, mean, std, size):
        return np.zeros(size)


@pytest.mark.parametrize(("preset", "expected"), [("base", 63_045_632), ("big", 214_171_648)])
def test_parameter_counts_of_the_paper(preset, expected):
    config = mt.TransformerConfig.preset(preset)
    assert config == getattr(mt.TransformerConfig, preset)()
    assert n_parameters(config) == expected
    assert mt.Transformer(config, seed=Zeros(np.random.PCG64())).n_parameters() == expected


# Table 3, last column: the paper's own counts, in millions; it counts a larger vocabulary than 37,000
TABLE_3 = {
    "base": 65,
    "B d_k=16": 58,
    "B d_k=32": 60,
    "C N=2": 36,
    "C N=4": 50,
    "C N=8": 80,
    "C d_model=256": 28,
}
TABLE_3 |= {"C d_model=1024": 168, "C d_ff=1024": 53, "C d_ff=4096": 90, "big": 213}


@pytest.mark.parametrize("row", TABLE_3)
def test_rows_of_table_3_have_about_the_size_the_paper_prints(row):
    assert n_parameters(mt.TransformerConfig.preset(row)) / 1e6 == pytest.approx(TABLE_3[row], rel=0.07)


@pytest.mark.parametrize("row", PRESETS)
def test_every_preset_builds_a_model_of_the_size_the_formulas_give(row):
    config = mt.TransformerConfig.preset(row, vocab_size=11)
    small = {"d_model": config.d_model // 16, "d_ff": config.d_ff // 16, "max_len": 16}
    if config.d_k is None:
        small["n_heads"] = min(config.n_heads, 4)
    config = mt.TransformerConfig.preset(row, vocab_size=11, **small)
    assert mt.Transformer(config).n_parameters() == n_parameters(config)


@pytest.mark.parametrize(
    ("tie", "n_matrices", "first"),
    [(True, 1, "src"), ("source_target", 2, "src"), ("target_output", 2, "tgt"), (False, 3, "none")],
)
def test_each_tie_can_be_switched_off(tie, n_matrices, first):
    model = mt.Transformer(tiny_config(tgt_vocab_size=V_SRC, tie_embeddings=tie))
    src, tgt, out = model.src_embedding.embedding.E, model.tgt_embedding.embedding.E, model.output.E
    assert len({id(src), id(tgt), id(out)}) == n_matrices
    assert (src is tgt) == (tie in (True, "source_target")) and (tgt is out) == (
        tie in (True, "target_output")
    )
    assert sum(name.endswith(".E") for name in model.parameters()) == n_matrices


def test_parameters_are_named_by_their_path():
    names = list(mt.Transformer(tiny_config()).parameters())
    assert names[:2] == ["src_embedding.embedding.E", "tgt_embedding.embedding.E"]
    for name in ("encoder.layers.0.self_attention.W_Q", "decoder.layers.1.cross_attention.W_O",
                 "encoder.layers.1.feed_forward.b_2", "decoder.layers.0.add_norm_3.norm.gamma"):  # fmt: skip
        assert name in names


def test_a_seed_decides_the_weights_in_every_dtype():
    config = tiny_config()
    a, b = (
        mt.Transformer(config, seed=3).state_dict(),
        mt.Transformer(config, seed=3, dtype="float64").state_dict(),
    )
    other = mt.Transformer(config, seed=4).state_dict()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name].astype(np.float32))
    assert (a["encoder.layers.0.self_attention.W_Q"] != other["encoder.layers.0.self_attention.W_Q"]).all()


# ---- what the stacks keep


def test_nothing_kept_means_no_caches_and_no_backward():
    model, src_ids, tgt_in, rng = model_and_ids(6)
    logits, cache = model.forward(src_ids, tgt_in, keep="nothing")
    np.testing.assert_array_equal(logits, model.forward(src_ids, tgt_in)[0])
    assert cache.encoder.layers == [None, None] and cache.decoder.layers == [None, None]
    before = model.flatten().grad.copy()
    with pytest.raises(mt.InputError, match="kept nothing"):
        model.backward(rng.normal(size=logits.shape), cache)
    np.testing.assert_array_equal(model.flatten().grad, before)
    with pytest.raises(mt.InputError, match="keep: expected 'caches', 'inputs' or 'nothing', got 'all'"):
        model.forward(src_ids, tgt_in, keep="all")


# ---- decoding


def test_a_step_is_refused_when_there_is_no_more_room():
    model, src_ids, tgt_in, _ = model_and_ids(5)
    state = model.start_decoding(src_ids, max_len=T_Q)
    for position in range(T_Q):
        model.decode_step(tgt_in[:, position], state)
    assert state.length == state.max_len == T_Q
    with pytest.raises(mt.InputError, match=r"room for 5 tokens, all of them read"):
        model.decode_step(tgt_in[:, 0], state)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([3], "ids: expected one for each of the 2 sentences, got 1"),
        ([3, -1], "ids: expected ids 0 … 16, got -1"),
        ([3, 17], "ids: expected ids 0 … 16, got 17"),
        ([3.0, 4.0], "ids: expected integer ids, got float64"),
    ],
)
def test_a_step_refuses_ids_that_cannot_be_the_next(ids, message):
    model, src_ids, _, _ = model_and_ids(8)
    state = model.start_decoding(src_ids, max_len=3)
    with pytest.raises(mt.InputError, match=message):
        model.decode_step(ids, state)
    assert state.length == 0


# ---- what a model refuses


GOOD = np.array([[3, 4, 0], [5, 6, 7]])


@pytest.mark.parametrize(
    ("src_ids", "tgt_in", "message"),
    [
        (GOOD.astype(float), GOOD, "src_ids: expected integer ids, got float64"),
        (GOOD, GOOD > 3, "tgt_in: expected integer ids, got bool"),
        (GOOD - 1, GOOD, r"src_ids: expected ids 0 … 12, got -1"),
        (GOOD, GOOD + 10, r"tgt_in: expected ids 0 … 16, got 17"),
        (GOOD[:0], GOOD[:0], r"expected ids of shape \(B, T\).* got \(0, 3\)"),
        (GOOD[:, :0], GOOD, r"src_ids: expected ids of shape \(B, T\).* got \(2, 0\)"),
        (GOOD[0], GOOD, r"src_ids: expected ids of shape \(B, T\).* got \(3,\)"),
        (np.ones((2, 20), int), GOOD, "src_ids: expected at most max_len=19 tokens, got 20"),
        ([[3], [4, 5]], GOOD, "src_ids: expected rows of one length"),
        (GOOD, GOOD[:1], "expected one batch, got 2 and 1 rows"),
    ],
)
def test_input_is_checked_at_the_door(src_ids, tgt_in, message):
    with pytest.raises(mt.InputError, match=message):
        mt.Transformer(tiny_config()).forward(src_ids, tgt_in)


def test_decoding_longer_than_the_model_is_refused():
    model = mt.Transformer(tiny_config())
    for max_len in (0, 20):
        with pytest.raises(mt.InputError, match=rf"max_len: expected 1 … 19 .* got {max_len}"):
            model.start_decoding(GOOD, max_len)


def test_an_unknown_dtype_or_device_is_refused():
    with pytest.raises(mt.ConfigError, match=r"dtype: expected .* got 'int32'"):
        mt.Transformer(tiny_config(), dtype="int32")
    with pytest.raises(mt.ConfigError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        mt.Transformer(tiny_config(), device="gpu")


def test_a_model_can_be_copied_and_pickled():
    model, src_ids, tgt_in, _ = model_and_ids(7)
    logits, _ = model.forward(src_ids, tgt_in)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.forward(src_ids, tgt_in)[0], logits)
        twin.flatten().data[...] = 0
        assert (twin.forward(src_ids, tgt_in)[0] == 0).all()
    np.testing.assert_array_equal(model.forward(src_ids, tgt_in)[0], logits)
