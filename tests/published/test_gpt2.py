"""GPT-2 from its published files, against the library transformers, and against a file for those who lack it."""

from __future__ import annotations

import numpy as np
import pytest
from published_models import (
    SIZES,
    golden,
    gradients_of,
    largest_difference,
    logits_and_gradients,
    random_model,
)
from safetensors_files import write_safetensors

import minitransformer as mt
from minitransformer.published.gpt2 import LAYOUT, config
from minitransformer.published.loading import load_published
from minitransformer.published.safetensors import read_safetensors

RNG = np.random.default_rng(0)


def written(model, prompts, n):
    """What the model writes after each prompt, the likeliest token at each position: (B, n)."""
    return mt.greedy_decode(model, prompts, bos_id=None, eos_id=None, max_len=n)


def test_logits_gradients_and_text_are_those_in_the_file():
    folder, given, gradients = golden("gpt2")
    model = load_published(folder, "float64")
    logits, cache = model.forward(given["input_ids"])
    model.backward(given["dlogits"], cache)
    assert np.abs(logits - given["logits"]).max() < 1e-13
    assert largest_difference(gradients_of(model), LAYOUT.state(gradients)) < 1e-13
    assert written(model, given["input_ids"], 6).tolist() == given["written"].tolist()


@pytest.mark.parametrize(
    "changes", [{}, {"activation_function": "gelu"}, {"n_inner": None}, {"layer_norm_epsilon": 0.1}]
)
def test_logits_and_every_gradient_are_those_of_transformers(tmp_path, changes):
    pytest.importorskip("transformers")
    theirs = random_model("gpt2", tmp_path, **changes)
    ours = load_published(tmp_path, "float64")
    ids, dlogits = RNG.integers(0, 28, (3, 11)), RNG.normal(size=(3, 11, 29))
    expected, gradients = logits_and_gradients(theirs, dlogits, input_ids=ids)
    logits, cache = ours.forward(ids)
    ours.backward(dlogits, cache)
    assert np.abs(logits - expected).max() < 1e-13
    assert largest_difference(gradients_of(ours), LAYOUT.state(gradients)) < 1e-13
    assert largest_difference({"x": load_published(tmp_path).forward(ids)[0]}, {"x": expected}) < 1e-6


def test_it_writes_what_transformers_writes(tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    theirs = random_model("gpt2", tmp_path)
    ours = load_published(tmp_path, "float64")
    prompts = RNG.integers(0, 28, (8, 6))
    with torch.no_grad():
        expected = theirs.generate(
            torch.from_numpy(prompts),
            attention_mask=torch.ones(8, 6, dtype=torch.long),
            generation_config=transformers.GenerationConfig(
                max_new_tokens=17, do_sample=False, pad_token_id=28
            ),
        ).numpy()[:, 6:]
    found = written(ours, prompts, expected.shape[1])
    for row, other in zip(
        found, expected, strict=True
    ):  # after its end symbol, transformers has written padding
        n = [*other, 28].index(28) + 1
        assert row[:n].tolist() == other[:n].tolist()
    assert len({tuple(row) for row in expected}) > 4


def test_prompts_of_unequal_length_in_one_batch():
    model = load_published(golden("gpt2")[0], "float64")
    prompts = [RNG.integers(0, 10, n) for n in (4, 1, 3)]
    together = np.full((3, 4), model.config.pad_id)
    for row, prompt in zip(together, prompts, strict=True):
        row[: len(prompt)] = prompt
    for row, prompt in zip(written(model, together, 9), prompts, strict=True):
        assert row.tolist() == written(model, prompt[None], 9)[0].tolist()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"activation_function": "silu"}, "activation_function: expected 'gelu_new', "),
        (
            {"scale_attn_weights": False},
            "scale_attn_weights: expected True (others are not supported), got False",
        ),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: expected False"),
        ({"add_cross_attention": True}, "add_cross_attention: expected False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings: expected True"),
        (
            {"architectures": ["GPT2ForSequenceClassification"]},
            "architectures: expected ['GPT2LMHeadModel'], ",
        ),
        ({"n_embd": "15"}, "n_embd: expected a number, got '15'"),
        ({"n_head": None}, "n_head: expected a number, got None"),
        ({"n_head": 4}, "n_heads: expected a divisor of d_model=15"),
        ({"eos_token_id": 29}, "pad_id: expected an id 0 … 28, got 29"),
    ],
)
def test_what_changes_the_mathematics_and_is_not_supported_is_named(changes, expected):
    assert config(SIZES["gpt2"]).activation == "gelu_tanh"
    with pytest.raises(mt.ConfigError) as error:
        config(SIZES["gpt2"] | changes)
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("published", "ours"),
    [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("relu", "relu")],
)
def test_activations_are_known_by_their_published_names(published, ours):
    assert config(SIZES["gpt2"] | {"activation_function": published}).activation == ours


def test_without_n_inner_d_ff_is_four_times_d_model():
    assert config(SIZES["gpt2"] | {"n_inner": None}).d_ff == 4 * 15


def test_the_names_of_older_files_do_not_matter_and_a_tied_weight_has_to_be_the_same(tmp_path):
    folder, given, _ = golden("gpt2")
    arrays = read_safetensors(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    more = {"transformer.h.0.attn.masked_bias": np.array(-1e4, "float32")}
    write_safetensors(tmp_path / "model.safetensors", arrays | more)
    found, expected = (load_published(path).forward(given["input_ids"])[0] for path in (tmp_path, folder))
    np.testing.assert_array_equal(found, expected)
    more = {"lm_head.weight": arrays["transformer.wte.weight"] + 1}
    write_safetensors(tmp_path / "model.safetensors", arrays | more)
    with pytest.raises(
        mt.CheckpointError, match=r"'lm_head\.weight': expected the numbers of its tied weight"
    ):
        load_published(tmp_path)
