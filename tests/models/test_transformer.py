"""The whole model: its sizes, ties, seed and dropout; copies; every message, whole. (Its laws: tests/laws.)"""

from __future__ import annotations

import copy
import pickle
from functools import partial

import messages
import numpy as np
import pytest
from dropout_masks import masks_drawn
from first_weights import assert_first_weights
from small_models import model_and_ids
from support import T_K, T_Q, V_SRC, V_TGT, B, random_ids, tiny_config

import minitransformer as mt
from minitransformer.config import PRESETS


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


def test_a_model_without_a_seed_is_that_of_seed_0():
    assert_first_weights(mt.Transformer(tiny_config()), 0, "float32")


def test_a_model_can_be_copied_and_pickled():
    model, src_ids, tgt_in, _ = model_and_ids(7)
    logits, _ = model.forward(src_ids, tgt_in)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.forward(src_ids, tgt_in)[0], logits)
        twin.flatten().data[...] = 0
        assert (twin.forward(src_ids, tgt_in)[0] == 0).all()
    np.testing.assert_array_equal(model.forward(src_ids, tgt_in)[0], logits)


# ---- dropout


ENCODER, DECODER = ("encoder.layers.0.", "encoder.layers.1."), ("decoder.layers.0.", "decoder.layers.1.")
BOTH = (*ENCODER, *DECODER)
PLACES = {  # §5.4: "to the output of each sub-layer [...] to the sums of the embeddings and the positional encodings"
    ("embedding", "post"): ["src_embedding.dropout", "tgt_embedding.dropout"],
    ("residual", "post"): [f"{layer}add_norm_{i}.dropout" for layer in BOTH for i in (1, 2)]
    + [f"{layer}add_norm_3.dropout" for layer in DECODER],
    ("attention", "post"): [f"{layer}self_attention.attention.dropout" for layer in BOTH]
    + [f"{layer}cross_attention.attention.dropout" for layer in DECODER],
    ("relu", "post"): [f"{layer}feed_forward.dropout" for layer in BOTH],
    ("residual", "pre"): [f"{layer}dropout_{i}" for layer in BOTH for i in (1, 2)]
    + [f"{layer}dropout_3" for layer in DECODER],
}
PLACES |= {(place, "pre"): PLACES[place, "post"] for place in ("embedding", "attention", "relu")}


@pytest.mark.parametrize(("place", "norm"), PLACES)
def test_dropout_acts_at_every_place_of_its_kind_and_at_no_other(place, norm):
    rng = np.random.default_rng(1)
    model = mt.Transformer(tiny_config(dropout=0.5, dropout_on=(place,), norm=norm))
    ids = random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V_TGT)
    assert masks_drawn(model.forward(*ids)[1]) == {}
    logits, cache = model.forward(*ids, rng=rng)
    masks = masks_drawn(cache)
    assert sorted(masks) == sorted(PLACES[place, norm])
    for path, mask in masks.items():
        assert set(np.unique(mask)) == {False, True}, path
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)  # each drawn for itself
    assert (logits != model.forward(*ids)[0]).any()


# ---- what a model refuses: messages, whole


message_of = partial(messages.message_of, mt.InputError)
GOOD = np.array([[3, 4, 0], [5, 6, 7]])


def with_id(i: int) -> np.ndarray:
    ids = GOOD.copy()
    ids[1, 1] = i
    return ids


SHAPE = "expected ids of shape (B, T), B and T at least 1, got"


@pytest.mark.parametrize(
    ("src_ids", "tgt_in", "message"),
    [
        (GOOD.astype(float), GOOD, "src_ids: expected integer ids, got float64"),
        (GOOD, GOOD > 3, "tgt_in: expected integer ids, got bool"),
        (with_id(-1), GOOD, "src_ids: expected ids 0 … 12, got -1"),
        (with_id(13), GOOD, "src_ids: expected ids 0 … 12, got 13"),
        (GOOD, with_id(-2), "tgt_in: expected ids 0 … 16, got -2"),
        (GOOD, with_id(17), "tgt_in: expected ids 0 … 16, got 17"),
        (GOOD[:0], GOOD, f"src_ids: {SHAPE} (0, 3)"),
        (GOOD, GOOD[:, :0], f"tgt_in: {SHAPE} (2, 0)"),
        (GOOD[0], GOOD, f"src_ids: {SHAPE} (3,)"),
        (GOOD, [GOOD], f"tgt_in: {SHAPE} (1, 2, 3)"),
        (np.ones((2, 20), int), GOOD, "src_ids: expected at most max_len=19 tokens, got 20"),
        ([[3], [4, 5]], GOOD, "src_ids: expected rows of one length; pad the shorter ones"),
        (GOOD, [[3], [4, 5]], "tgt_in: expected rows of one length; pad the shorter ones"),
        (GOOD, GOOD[:1], "src_ids and tgt_in: expected one batch, got 2 and 1 rows"),
    ],
)
def test_messages_of_ids(src_ids, tgt_in, message):
    assert message_of(mt.Transformer(tiny_config()).forward, src_ids, tgt_in) == message


def test_ids_at_the_limits_are_read():
    model = mt.Transformer(tiny_config())
    src_ids, tgt_in = np.full((1, 19), 12), np.full((1, 19), 16)
    src_ids[0, 0] = tgt_in[0, 0] = 0
    for kind in ("int8", "uint16", "int64"):
        assert model.forward(src_ids.astype(kind), tgt_in.astype(kind))[0].shape == (1, 19, 17)
    assert model.start_decoding(src_ids, 19).max_len == 19
    assert model.start_decoding(src_ids, 1).max_len == 1


def test_messages_of_decoding():
    model = mt.Transformer(tiny_config())
    for max_len in (0, 20):
        expected = f"max_len: expected 1 … 19 (the model's max_len), got {max_len}"
        assert message_of(model.start_decoding, GOOD, max_len) == expected
    assert message_of(model.start_decoding, GOOD + 9, 3) == "src_ids: expected ids 0 … 12, got 16"
    state = model.start_decoding(GOOD, 2)
    for ids, expected in (
        ([3], "ids: expected one for each of the 2 sentences, got 1"),
        ([3, 4, 5], "ids: expected one for each of the 2 sentences, got 3"),
        ([3, -1], "ids: expected ids 0 … 16, got -1"),
        ([3, 17], "ids: expected ids 0 … 16, got 17"),
        ([3.0, 4.0], "ids: expected integer ids, got float64"),
        ([], f"ids: {SHAPE} (0, 1)"),
        ([[3], [4, 5]], "ids: expected rows of one length; pad the shorter ones"),
    ):
        assert message_of(model.decode_step, ids, state) == expected
        assert state.length == 0
    model.decode_step([3, 4], state)
    model.decode_step([3, 4], state)
    assert (
        message_of(model.decode_step, [3, 4], state)
        == "decoding: expected at most 2 tokens, got more; start with a larger max_len"
    )


def test_messages_of_what_a_model_is_made_of_and_run_with():
    with pytest.raises(mt.ConfigError) as raised:
        mt.Transformer({"d_model": 8})
    assert str(raised.value) == "config: expected a TransformerConfig, got {'d_model': 8}"
    expected = (
        "rng: expected a random generator, such as numpy.random.default_rng(0), or None for evaluation, got 3"
    )
    assert message_of(mt.Transformer(tiny_config()).forward, GOOD, GOOD, rng=3) == expected


def test_messages_of_gradients_that_do_not_fit():
    model = mt.Transformer(tiny_config())
    logits, cache = model.forward(GOOD, GOOD[:, :2])
    expected = "dlogits: expected numbers of shape (2, 2, 17), like the logits, got"
    for dlogits, got in (
        (logits[:, :1], "float32 of shape (2, 1, 17)"),
        (logits * 1j, "complex64 of shape (2, 2, 17)"),
        (None, "None"),
    ):
        assert message_of(model.backward, dlogits, cache) == f"{expected} {got}"
    assert not model.flatten().grad.any()


def test_dlogits_of_a_loss_in_float64_are_taken_in_the_models_own_dtype():
    """On a GPU the layers' kernels need one dtype."""
    model, dlogits = mt.Transformer(tiny_config()), np.random.default_rng(0).normal(size=(*GOOD.shape, V_TGT))
    found = []
    for given in (dlogits, dlogits.astype("float32")):
        _, cache = model.forward(GOOD, GOOD)
        model.flatten().grad[...] = 0
        model.backward(given, cache)
        found.append(model.flatten().grad.copy())
    assert found[0].any() and (found[0] == found[1]).all()


def test_an_unknown_dtype_or_device_is_refused():
    with pytest.raises(mt.ConfigError, match=r"dtype: expected .* got 'int32'"):
        mt.Transformer(tiny_config(), dtype="int32")
    with pytest.raises(mt.ConfigError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        mt.Transformer(tiny_config(), device="gpu")
