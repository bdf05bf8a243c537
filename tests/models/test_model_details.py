"""Models in detail: initial weights draw by draw, what each setting reaches, every message, whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from first_weights import assert_first_weights
from support import T_K, T_Q, V_SRC, V_TGT, B, random_ids, tiny_config

import minitransformer as mt
from minitransformer import models
from minitransformer.layers.dropout import DropoutCache

# ---- the first weights

BUILT = {
    "EncoderLayer": models.EncoderLayer,
    "DecoderLayer": models.DecoderLayer,
    "PreNormEncoderLayer": models.PreNormEncoderLayer,
    "PreNormDecoderLayer": models.PreNormDecoderLayer,
    "Encoder": models.Encoder,
    "Decoder": models.Decoder,
    "Transformer": lambda config, rng, **dtype: mt.Transformer(config, rng, **dtype),
}


@pytest.mark.parametrize("changes", [{}, {"norm": "pre", "positions": "learned", "attention_bias": True}])
@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize("name", BUILT)
def test_the_seed_the_shapes_and_the_dtype_decide_the_first_weights(name, dtype, changes):
    config = tiny_config(tie_embeddings=False, **changes)
    model = BUILT[name](config, rng=3, **({} if dtype is None else {"dtype": dtype}))
    assert_first_weights(model, 3, dtype or "float32")


def test_a_model_without_a_seed_is_that_of_seed_0():
    assert_first_weights(mt.Transformer(tiny_config()), 0, "float32")


# ---- dropout


def masks_drawn(cache: Any, path: str = "") -> dict[str, np.ndarray]:
    """Path -> dropout mask, of all the masks in a cache."""
    if isinstance(cache, DropoutCache):
        return {} if cache.kept is None else {path: cache.kept}
    if isinstance(cache, list):
        children = {str(i): child for i, child in enumerate(cache)}
    else:
        children = cache._asdict() if hasattr(cache, "_asdict") else {}
    found: dict[str, np.ndarray] = {}
    for name, child in children.items():
        found |= masks_drawn(child, f"{path}.{name}" if path else name)
    return found


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


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_stacks_and_layers_pass_their_generator_on(norm):
    """Called by themselves, as in the model above."""
    rng = np.random.default_rng(2)
    config = tiny_config(norm=norm)
    x, memory = rng.normal(size=(B, T_Q, config.d_model)), rng.normal(size=(B, T_K, config.d_model))
    for stack, inputs, n_masks in (
        (models.Encoder(config), (memory,), 4),  # a layer: attention, two residuals, ReLU
        (models.Decoder(config), (x, memory), 6),
    ):
        assert len(masks_drawn(stack.forward(*inputs, rng=rng)[1])) == config.n_layers * n_masks
        assert len(masks_drawn(stack.layers[0].forward(*inputs, rng=rng)[1])) == n_masks


# ---- dtypes, caches and states


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decoding_keeps_the_dtype(dtype, norm):
    model = mt.Transformer(tiny_config(norm=norm), dtype=dtype)
    state = model.start_decoding([[3, 4, 2]], 5)
    assert model.decode_step([1], state).dtype == dtype
    for layer in state.layers:
        assert {x.dtype for x in (layer.K, layer.V, layer.memory_K, layer.memory_V)} == {np.dtype(dtype)}


def test_a_state_knows_its_room_and_how_much_of_it_is_used():
    model = mt.Transformer(tiny_config())
    state = model.start_decoding([[3, 4, 2]], 5)
    for length in range(5):
        assert (state.length, state.max_len) == (length, 5)
        model.decode_step([1], state)
    assert state.length == 5


@pytest.mark.parametrize("Stack", [models.Encoder, models.Decoder])
def test_a_cache_or_a_state_of_another_depth_is_refused(Stack):
    rng = np.random.default_rng(5)
    stack = Stack(tiny_config())
    x = rng.normal(size=(B, T_Q, 8)).astype("float32")
    inputs = (x,) if Stack is models.Encoder else (x, x)
    y, cache = stack.forward(*inputs)
    for layers in (cache.layers[1:], cache.layers * 2):
        with pytest.raises(ValueError, match="zip"):
            stack.backward(y, cache._replace(layers=layers))
    if Stack is models.Decoder:
        state = stack.start(x, None, 3)
        for layers in (state.layers[1:], state.layers * 2):
            state.layers = layers
            with pytest.raises(ValueError, match="zip"):
                stack.step(x[:, :1], state)


def test_caches_are_kept_unless_told_otherwise():
    rng = np.random.default_rng(6)
    model = mt.Transformer(tiny_config(dropout=0.0))
    ids = random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V_TGT)
    kinds = {type(kept).__name__ for stack in model.forward(*ids)[1][1:4:2] for kept in stack.layers}
    assert kinds == {"EncoderLayerCache", "DecoderLayerCache"}
    x = rng.normal(size=(B, T_Q, 8)).astype("float32")
    assert type(model.encoder.forward(x)[1].layers[0]).__name__ == "EncoderLayerCache"
    assert type(model.decoder.forward(x, x)[1].layers[0]).__name__ == "DecoderLayerCache"


# ---- messages, whole


def message_of(call: Any, *inputs: Any, **options: Any) -> str:
    with pytest.raises(mt.InputError) as raised:
        call(*inputs, **options)
    return str(raised.value)


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
        ([3, 4, 5], "ids: expected one for each of the 2 sentences, got 3"),
        ([3, 17], "ids: expected ids 0 … 16, got 17"),
        ([3.0, 4.0], "ids: expected integer ids, got float64"),
        ([], f"ids: {SHAPE} (0, 1)"),
        ([[3], [4, 5]], "ids: expected rows of one length; pad the shorter ones"),
    ):
        assert message_of(model.decode_step, ids, state) == expected
    model.decode_step([3, 4], state)
    model.decode_step([3, 4], state)
    assert message_of(model.decode_step, [3, 4], state) == "decoding: room for 2 tokens, all of them read"


def test_messages_of_what_a_model_is_made_of_and_run_with():
    with pytest.raises(mt.ConfigError) as raised:
        mt.Transformer({"d_model": 8})
    assert str(raised.value) == "config: expected a TransformerConfig, got {'d_model': 8}"
    expected = "rng: expected a random generator, or None for evaluation, got 3"
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


def test_messages_of_what_is_kept():
    model = mt.Transformer(tiny_config())
    expected = "keep: expected 'caches', 'inputs' or 'nothing', got 'all'"
    assert message_of(model.forward, GOOD, GOOD, keep="all") == expected
    logits, cache = model.forward(GOOD, GOOD, keep="nothing")
    expected = "backward: this forward kept nothing (keep='nothing'); use 'caches' or 'inputs'"
    assert message_of(model.backward, logits, cache) == expected
    x, cache = model.encoder.forward(np.ones((1, 2, 8), "float32"), keep="nothing")
    assert message_of(model.encoder.backward, x, cache) == expected


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
