"""What minitransformer and PyTorch are both given: settings, inputs, weights and upstream gradients.

Knows neither of the two. The shapes are written down here from the paper, so that a layer whose parameters have
other names or shapes fails. A case is a kind ("multi_head_attention"), its settings, and the arrays `given`:
"input.*" in the order of forward's arguments, "weight.*", and "dy", the gradient of the output.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Settings = dict[str, Any]
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

N_GROUPS = 2  # of GroupNorm

GOLDEN = Path(__file__).parent

SIZES: Settings = {  # no two axes of one array have the same size
    "B": 3,
    "T_src": 7,
    "T_tgt": 5,
    "src_vocab_size": 13,
    "tgt_vocab_size": 17,
    "n_layers": 2,
    "d_model": 6,
    "n_heads": 2,
    "d_k": 5,
    "d_v": 7,
    "d_ff": 11,
    "max_len": 19,
    "positions": "sinusoidal",
    "norm": "post",
    "tie_embeddings": False,
    "attention_bias": False,
    "pad_id": 0,
    "eps": 1e-5,
    "eps_ls": 0.1,
    "warmup_steps": 40,  # steps of 0.005 to 0.015; far larger ones would multiply rounding errors
    "bias": True,  # of Linear
    "mask": "rows",  # of the attentions: see random_mask
}


# --- the weights, as the paper shapes them -------------------------------------------------------------------


def under(path: str, shapes: Shapes) -> Shapes:
    return {f"{path}.{name}": shape for name, shape in shapes.items()}


def linear_weights(s: Settings) -> Shapes:
    return {"W": (s["d_model"], s["d_ff"]), **({"b": (s["d_ff"],)} if s["bias"] else {})}


def rms_norm_weights(s: Settings) -> Shapes:
    return {"gamma": (s["d_model"],)}


def layer_norm_weights(s: Settings) -> Shapes:
    return {"gamma": (s["d_model"],), "beta": (s["d_model"],)}


def norm_weights(s: Settings) -> Shapes:
    return rms_norm_weights(s) if s.get("norm_layer") == "rms" else layer_norm_weights(s)


def feed_forward_weights(s: Settings) -> Shapes:
    d_model, d_ff = s["d_model"], s["d_ff"]
    return {"W_1": (d_model, d_ff), "b_1": (d_ff,), "W_2": (d_ff, d_model), "b_2": (d_model,)}


def attention_weights(s: Settings) -> Shapes:
    d_model, keys, values = s["d_model"], s["n_heads"] * s["d_k"], s["n_heads"] * s["d_v"]
    shapes = {
        "W_Q": (d_model, keys),
        "W_K": (d_model, keys),
        "W_V": (d_model, values),
        "W_O": (values, d_model),
    }
    biases = {"b_Q": (keys,), "b_K": (keys,), "b_V": (values,), "b_O": (d_model,)}
    return {**shapes, **biases} if s["attention_bias"] else shapes


def encoder_layer_weights(s: Settings) -> Shapes:
    norm = "add_norm_{}.norm" if s["norm"] == "post" else "norm_{}"
    return {
        **under("self_attention", attention_weights(s)),
        **under(norm.format(1), norm_weights(s)),
        **under("feed_forward", feed_forward_weights(s)),
        **under(norm.format(2), norm_weights(s)),
    }


def decoder_layer_weights(s: Settings) -> Shapes:
    norm = "add_norm_{}.norm" if s["norm"] == "post" else "norm_{}"
    return {
        **encoder_layer_weights(s),
        **under("cross_attention", attention_weights(s)),
        **under(norm.format(3), norm_weights(s)),
    }


def transformer_weights(s: Settings) -> Shapes:
    tie, d_model = s["tie_embeddings"], s["d_model"]
    shapes = {"src_embedding.embedding.E": (s["src_vocab_size"], d_model)}
    if tie in (False, "target_output"):
        shapes["tgt_embedding.embedding.E"] = (s["tgt_vocab_size"], d_model)
    if tie in (False, "source_target"):
        shapes["output.E"] = (s["tgt_vocab_size"], d_model)
    if s["positions"] == "learned":
        shapes["src_embedding.positions.P"] = (s["max_len"], d_model)
        shapes["tgt_embedding.positions.P"] = (s["max_len"], d_model)
    for n in range(s["n_layers"]):
        shapes |= under(f"encoder.layers.{n}", encoder_layer_weights(s))
        shapes |= under(f"decoder.layers.{n}", decoder_layer_weights(s))
    if s["norm"] == "pre":
        shapes |= under("encoder.norm", norm_weights(s)) | under("decoder.norm", norm_weights(s))
    return shapes


# --- the inputs -----------------------------------------------------------------------------------------------


def random_mask(rng: np.random.Generator, s: Settings) -> Arrays:
    """The mask of an attention from T_tgt queries to T_src keys: none, or one with queries that see nothing."""
    if s["mask"] == "none":
        return {}
    rows = 1 if s["mask"] == "keys" else s["T_tgt"]  # the same keys for all queries of a sentence, or not
    mask = rng.random((s["B"], 1, rows, s["T_src"])) > 0.3
    mask[0, 0, 0] = False
    mask[1, 0, :, :2] = True  # two keys at least, somewhere: over a single one the softmax is constant
    return {"mask": mask}


def causal_mask(length: int) -> np.ndarray:
    return np.tri(length, dtype=bool)[None, None]


def random_ids(rng: np.random.Generator, s: Settings, length: int, vocab_size: int) -> np.ndarray:
    """Ids with repetitions; the first sentence fills its row, the last is empty, the others end in padding."""
    words = np.delete(np.arange(vocab_size), s["pad_id"])
    ids = rng.choice(words, (s["B"], length))
    ids[:, 1] = ids[:, 0]
    for row in range(1, s["B"]):
        ids[row, rng.integers(1, length) :] = s["pad_id"]
    ids[-1] = s["pad_id"]
    return ids


def x_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    return {"x": rng.normal(size=(s["B"], s["T_tgt"], s["d_model"]))}


def add_norm_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    return {**x_inputs(rng, s), "s": x_inputs(rng, s)["x"]}


def scaled_dot_product_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    B, h, T_q, T_k = s["B"], s["n_heads"], s["T_tgt"], s["T_src"]
    Q, K = rng.normal(size=(B, h, T_q, s["d_k"])), rng.normal(size=(B, h, T_k, s["d_k"]))
    return {"Q": Q, "K": K, "V": rng.normal(size=(B, h, T_k, s["d_v"])), **random_mask(rng, s)}


def multi_head_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    key, value = rng.normal(size=(2, s["B"], s["T_src"], s["d_model"]))
    return {"query": x_inputs(rng, s)["x"], "key": key, "value": value, **random_mask(rng, s)}


def ids_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    return {"ids": random_ids(rng, s, s["T_tgt"], s["tgt_vocab_size"])}


def encoder_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    mask = random_mask(rng, {**s, "mask": "keys"})
    return {"x": rng.normal(size=(s["B"], s["T_src"], s["d_model"])), **mask}


def decoder_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    memory = encoder_inputs(rng, s)
    tgt_mask = causal_mask(s["T_tgt"])
    return {**x_inputs(rng, s), "memory": memory["x"], "tgt_mask": tgt_mask, "src_mask": memory["mask"]}


def loss_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    logits = 3 * rng.normal(size=(s["B"], s["T_tgt"], s["tgt_vocab_size"]))
    return {"logits": logits, "tgt_out": random_ids(rng, s, s["T_tgt"], s["tgt_vocab_size"])}


def transformer_inputs(rng: np.random.Generator, s: Settings) -> Arrays:
    target = random_ids(rng, s, s["T_tgt"] + 1, s["tgt_vocab_size"])
    src_ids = random_ids(rng, s, s["T_src"], s["src_vocab_size"])
    return {"src_ids": src_ids, "tgt_in": target[:, :-1], "tgt_out": target[:, 1:]}


# --- kinds and cases ------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What one kind of layer is given."""

    weights: Callable[[Settings], Shapes]
    inputs: Callable[[np.random.Generator, Settings], Arrays]
    output: str  # the axes of its output, as names of settings


def no_weights(s: Settings) -> Shapes:
    return {}


def embedding_weights(s: Settings) -> Shapes:
    return {"E": (s["tgt_vocab_size"], s["d_model"])}


KINDS = {
    "linear": Kind(linear_weights, x_inputs, "B T_tgt d_ff"),
    "layer_norm": Kind(layer_norm_weights, x_inputs, "B T_tgt d_model"),
    "rms_norm": Kind(rms_norm_weights, x_inputs, "B T_tgt d_model"),
    "batch_norm": Kind(layer_norm_weights, x_inputs, "B T_tgt d_model"),
    "instance_norm": Kind(layer_norm_weights, x_inputs, "B T_tgt d_model"),
    "group_norm": Kind(layer_norm_weights, x_inputs, "B T_tgt d_model"),
    "add_norm": Kind(lambda s: under("norm", norm_weights(s)), add_norm_inputs, "B T_tgt d_model"),
    "feed_forward": Kind(feed_forward_weights, x_inputs, "B T_tgt d_model"),
    "scaled_dot_product_attention": Kind(no_weights, scaled_dot_product_inputs, "B n_heads T_tgt d_v"),
    "multi_head_attention": Kind(attention_weights, multi_head_inputs, "B T_tgt d_model"),
    "embedding": Kind(embedding_weights, ids_inputs, "B T_tgt d_model"),
    "output_projection": Kind(embedding_weights, x_inputs, "B T_tgt tgt_vocab_size"),
    "tied_embedding": Kind(embedding_weights, ids_inputs, "B T_tgt tgt_vocab_size"),
    "sinusoidal_positions": Kind(no_weights, x_inputs, "B T_tgt d_model"),
    "learned_positions": Kind(lambda s: {"P": (s["max_len"], s["d_model"])}, x_inputs, "B T_tgt d_model"),
    "encoder_layer": Kind(encoder_layer_weights, encoder_inputs, "B T_src d_model"),
    "decoder_layer": Kind(decoder_layer_weights, decoder_inputs, "B T_tgt d_model"),
    "loss": Kind(no_weights, loss_inputs, ""),
    "transformer": Kind(
        transformer_weights, transformer_inputs, ""
    ),  # with its loss, and three steps of Adam
}

ONE_VOCABULARY = {"src_vocab_size": 13, "tgt_vocab_size": 13}
# In the two models with warmup_steps=2, three steps see the schedule's rise, its peak and its fall.
GOLDEN_CASES: dict[str, tuple[str, Settings]] = {
    "linear": ("linear", {}),
    "linear_without_bias": ("linear", {"bias": False}),
    "layer_norm": ("layer_norm", {}),
    "layer_norm_large_eps": ("layer_norm", {"eps": 0.5}),
    "rms_norm": ("rms_norm", {}),
    "batch_norm": ("batch_norm", {}),
    "instance_norm": ("instance_norm", {"eps": 0.5}),
    "group_norm": ("group_norm", {}),
    "add_norm": ("add_norm", {}),
    "add_rms_norm": ("add_norm", {"norm_layer": "rms"}),
    "feed_forward": ("feed_forward", {}),
    "feed_forward_gelu": ("feed_forward", {"activation": "gelu"}),
    "feed_forward_gelu_tanh": ("feed_forward", {"activation": "gelu_tanh"}),
    "scaled_dot_product_attention": ("scaled_dot_product_attention", {}),
    "scaled_dot_product_attention_without_mask": ("scaled_dot_product_attention", {"mask": "none"}),
    "multi_head_attention": ("multi_head_attention", {}),
    "multi_head_attention_bias": ("multi_head_attention", {"attention_bias": True, "mask": "keys"}),
    "multi_head_attention_paper_widths": ("multi_head_attention", {"d_k": 3, "d_v": 3, "mask": "none"}),
    "embedding": ("embedding", {}),
    "output_projection": ("output_projection", {}),
    "tied_embedding": ("tied_embedding", {}),
    "sinusoidal_positions": ("sinusoidal_positions", {}),
    "learned_positions": ("learned_positions", {}),
    "encoder_layer_post": ("encoder_layer", {}),
    "encoder_layer_pre": ("encoder_layer", {"norm": "pre"}),
    "decoder_layer_post": ("decoder_layer", {}),
    "decoder_layer_pre": ("decoder_layer", {"norm": "pre", "attention_bias": True}),
    "loss": ("loss", {}),
    "loss_without_smoothing": ("loss", {"eps_ls": 0.0, "pad_id": 4}),
    "model_post_tied": ("transformer", {"tie_embeddings": True, **ONE_VOCABULARY}),
    "model_post_untied_learned": ("transformer", {"positions": "learned", "pad_id": 3, "n_layers": 1}),
    "model_pre_tied_learned": (
        "transformer",
        {"norm": "pre", "tie_embeddings": True, "positions": "learned", "n_layers": 1, **ONE_VOCABULARY},
    ),
    "model_pre_rms": ("transformer", {"norm": "pre", "norm_layer": "rms", "n_layers": 1}),
    "model_pre_untied_bias": ("transformer", {"norm": "pre", "attention_bias": True, "eps_ls": 0.3}),
    "model_pre_target_output": (
        "transformer",
        {"norm": "pre", "tie_embeddings": "target_output", "n_layers": 1, "warmup_steps": 2},
    ),
    "model_post_source_target": (
        "transformer",
        {
            "tie_embeddings": "source_target",
            "n_layers": 1,
            "eps_ls": 0.0,
            "warmup_steps": 2,
            **ONE_VOCABULARY,
        },
    ),
}


def random_given(rng: np.random.Generator, kind: str, s: Settings) -> Arrays:
    """Random inputs, weights away from where they start, and a random upstream gradient."""
    weights, inputs, output = KINDS[kind]
    given = {f"input.{name}": x for name, x in inputs(rng, s).items()}
    for name, shape in weights(s).items():
        given[f"weight.{name}"] = name.endswith("gamma") + 0.4 * rng.normal(size=shape)
    given["dy"] = np.asarray(rng.normal(size=[s[axis] for axis in output.split()]))
    return given


def starting_with(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays called prefix + name, by name, in their order."""
    return {name.removeprefix(prefix): x for name, x in arrays.items() if name.startswith(prefix)}


# --- files ----------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A golden file."""

    kind: str
    settings: Settings
    given: Arrays
    expected: (
        Arrays  # y, the gradients "d.*" of the inputs and "grad.*" of the weights; see torch_reference.py
    )


def save(path: Path, case: Case) -> None:
    """Write a case: all its floats in two vectors (an .npz spends 300 bytes on every array), ids and masks apart."""
    stored: Arrays = {}
    layout = {}
    for group in ("given", "expected"):
        arrays = getattr(case, group)
        floats = {name: x for name, x in arrays.items() if x.dtype == np.float64}
        layout[group] = {name: x.shape if name in floats else None for name, x in arrays.items()}
        stored[group] = np.concatenate([x.ravel() for x in floats.values()])
        stored |= {f"{group}.{name}": x for name, x in arrays.items() if name not in floats}
    about = {"kind": case.kind, "settings": case.settings, "layout": layout}
    np.savez_compressed(path, about=np.array(json.dumps(about)), **stored)


def load(path: Path) -> Case:
    """Read what `save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(str(stored["about"]))
        groups = []
        for group, layout in about["layout"].items():
            numbers, start, arrays = stored[group], 0, {}
            for name, shape in layout.items():
                if shape is None:
                    arrays[name] = stored[f"{group}.{name}"]
                else:
                    stop = start + int(np.prod(shape))
                    arrays[name] = numbers[start:stop].reshape(shape)
                    start = stop
            assert start == numbers.size, f"{path.name}: {group} has numbers that its layout does not name"
            groups.append(arrays)
    return Case(about["kind"], about["settings"], *groups)


# --- comparison -----------------------------------------------------------------------------------------------


def relative_errors(ours: Arrays, expected: Arrays) -> dict[str, float]:
    """For each array the largest difference, relative to the largest entry of that array.

    Not entry by entry: an entry is a sum whose terms may cancel, and its rounding error has the size of the
    terms. Wrong formulas are wrong by far more. An array that should be all 0 has to be, and NaN is infinitely
    wrong.
    """
    assert list(ours) == list(expected), f"{sorted(set(ours) ^ set(expected))}: on one side only"
    errors = {}
    for name, y in expected.items():
        assert ours[name].shape == y.shape, f"{name}: {ours[name].shape}, not {y.shape}"
        assert ours[name].dtype == y.dtype, f"{name}: {ours[name].dtype}, not {y.dtype}"
        difference, scale = np.abs(ours[name] - y).max(), np.abs(y).max()
        if name.startswith("grad.") and name.endswith("b_K"):
            # b_K adds the same number to all scores of a query, so its gradient is 0 but for rounding
            scale = np.abs(expected[name.replace("b_K", "W_K")]).max()
        elif name.startswith("updated.") and name.endswith("b_K"):
            scale = scale * 1e6  # and Adam divides that rounding error by little more than adam_eps
        error = (
            difference / scale if difference > 0 and scale > 0 else difference * np.inf if difference else 0.0
        )
        errors[name] = float(error) if np.isfinite(ours[name]).all() else np.inf
    return errors


def assert_equal_to_12_digits(ours: Arrays, expected: Arrays, tolerance: float = 1e-12) -> None:
    wrong = {name: error for name, error in relative_errors(ours, expected).items() if not error <= tolerance}
    assert not wrong, f"relative error above {tolerance}: {wrong}"
