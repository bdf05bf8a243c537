"""Folders of published models: what is read, and one line for each that is not."""

from __future__ import annotations

import builtins
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_models import GOLDEN
from safetensors_files import write_safetensors

import minitransformer as mt
from minitransformer.published.loading import load_published, load_tokenizer
from minitransformer.published.safetensors import read_safetensors

IDS = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])


def weights(kind):
    return read_safetensors(GOLDEN / kind / "model.safetensors")


def settings(kind):
    return json.loads((GOLDEN / kind / "config.json").read_text())


def write(folder, kind, arrays=None, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", weights(kind) if arrays is None else arrays)
    (folder / "config.json").write_text(json.dumps({**settings(kind), **changes}))
    return folder


@pytest.fixture
def sentence_model(tmp_path):
    """A folder of sentence-transformers: BERT without a head, and pooling."""
    body = {
        name.removeprefix("bert."): x for name, x in weights("bert").items() if not name.startswith("cls.")
    }
    write(tmp_path, "bert", body, architectures=["BertModel"])
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in types.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False, "word_embedding_dimension": 6}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    return tmp_path


def refusal(load, folder):
    with pytest.raises((mt.CheckpointError, mt.ConfigError)) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weights_are_those_of_the_file_and_the_dtype_is_as_asked(kind, dtype):
    model = mt.load_published(str(GOLDEN / kind), dtype)
    assert {p.data.dtype for p in model.parameters().values()} == {np.dtype(dtype)}
    assert model.n_parameters() == sum(x.size for x in weights(kind).values())
    assert model.config.dropout == 0 and not model.config.scale_embedding
    assert not any(p.grad.any() for p in model.parameters().values())


def test_half_precision_is_read(tmp_path):
    halves = {name: x.astype("float16") for name, x in weights("gpt2").items()}
    model = load_published(write(tmp_path, "gpt2", halves))
    np.testing.assert_array_equal(
        model.embedding.positions.P.data, halves["transformer.wpe.weight"].astype("float32")
    )


def test_names_with_and_without_a_prefix_and_what_the_model_does_not_use(tmp_path):
    expected = load_published(GOLDEN / "gpt2").forward(IDS)[0]
    bare = {name.removeprefix("transformer."): x for name, x in weights("gpt2").items()}
    more = {"h.0.attn.bias": np.ones((1, 1, 13, 13), "uint8"), "lm_head.weight": bare["wte.weight"]}
    found = load_published(write(tmp_path, "gpt2", bare | more, architectures=["GPT2Model"])).forward(IDS)[0]
    np.testing.assert_array_equal(found, expected)


def test_a_model_for_sentences_gives_the_mean_of_its_states(sentence_model):
    pooled = load_published(sentence_model, "float64").forward(IDS)[0]
    (sentence_model / "modules.json").unlink()
    states = load_published(sentence_model, "float64").forward(IDS)[0]
    np.testing.assert_allclose(pooled[:, 0], [states[0].mean(0), states[1, :3].mean(0)], rtol=1e-13)


def test_a_model_for_sentences_has_no_head(sentence_model):
    pooled = load_published(sentence_model).forward(IDS)[0]
    settings = json.loads((sentence_model / "config.json").read_text())
    settings["architectures"] = ["BertForMaskedLM"]
    (sentence_model / "config.json").write_text(json.dumps(settings))
    np.testing.assert_array_equal(load_published(sentence_model).forward(IDS)[0], pooled)


def test_the_device_is_passed_on():
    with pytest.raises(mt.ConfigError, match="abacus"):
        load_published(GOLDEN / "gpt2", device="abacus")


def test_as_many_kinds_of_segments_as_the_config_says(tmp_path):
    folder = write(tmp_path / "model", "bert", type_vocab_size=10**6)
    assert "embedding.segments.E: expected shape (1000000, 6), as config.json says" in refusal(
        load_published, folder
    )


def test_a_model_for_sentences_may_take_the_first_state_and_lie_in_a_folder_of_its_own(sentence_model):
    (sentence_model / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    modules = json.loads((sentence_model / "modules.json").read_text())[:2]
    modules[0]["path"] = "0_BERT"
    (sentence_model / "0_BERT").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(sentence_model / name, sentence_model / "0_BERT" / name)
    (sentence_model / "modules.json").write_text(json.dumps(modules))
    pooled = load_published(sentence_model, "float64").forward(IDS)[0]
    states = load_published(sentence_model / "0_BERT", "float64").forward(IDS)[0]
    np.testing.assert_array_equal(pooled, states[:, :1])


def wrong_modules(**changes):
    return [{"path": "", "type": "a.Transformer"}, {"path": "1_Pooling", "type": "a.Pooling", **changes}]


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("modules.json", {}, "damaged or not a file of a published model (expected a list, got {})"),
        ("modules.json", [], "expected Transformer, Pooling, perhaps Normalize, got []"),
        ("modules.json", [3], "expected Transformer, Pooling, perhaps Normalize, got ['None']"),
        ("modules.json", wrong_modules(type="a.Dense"), "got ['Transformer', 'Dense']"),
        ("modules.json", wrong_modules(path="../1_Elsewhere"), "/1_Elsewhere/config.json: cannot be read"),
        ("modules.json", wrong_modules(path="/etc"), "/etc/config.json: cannot be read"),
        ("modules.json", wrong_modules(path=["1_Pooling"]), "cannot be read"),
        (
            "modules.json",
            wrong_modules(path="2_Pooling"),
            "/2_Pooling/config.json: cannot be read (No such file or directory)",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_max_tokens": True},
            "expected one of pooling_mode_mean_tokens, ",
        ),
        (
            "1_Pooling/config.json",
            {},
            "expected one of pooling_mode_mean_tokens, pooling_mode_cls_token, got []",
        ),
        ("1_Pooling/config.json", [], "expected a dict, got []"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "expected one of pooling_mode_mean_tokens, pooling_mode_cls_token, got ['pooling_mode_mean_tokens', ",
        ),
    ],
)
def test_a_model_for_sentences_that_is_not_supported_is_refused(sentence_model, file, content, expected):
    (sentence_model / file).write_text(json.dumps(content))
    assert expected in refusal(load_published, sentence_model)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "t5"}, "config.json: model_type: expected 'bert', 'gpt2' (others are not supported), got"),
        ({"model_type": None}, "got None"),
        ({"n_layer": 3}, "model.safetensors: stack.layers.2.feed_forward.W_1: expected shape (6, 7), as config"),
        ({"n_layer": 900}, "model.safetensors: stack.layers.899.feed_forward.W_1: expected shape (6, 7), as config"),
        ({"n_layer": 10**6}, "config.json: n_layers: expected at most 1,000, got 1000000"),
        ({"n_inner": 10**6}, "stack.layers.1.feed_forward.W_1: expected shape (6, 1000000), as config.json says"),
        ({"n_positions": 10**6}, "embedding.positions.P: expected shape (1000000, 6), as config.json says, got"),
        ({"n_layer": 1}, "model.safetensors: state has 16 name(s) the model lacks, e.g. 'stack.layers.1."),
        ({"n_embd": 8}, "embedding.embedding.E: expected shape (11, 8), as config.json says, got (11, 6)"),
        ({"n_embd": "8"}, "config.json: n_embd: expected a number, got '8'"),
        ({"n_layer": 10**9}, "config.json: n_layers: expected less than 1,048,576, got 1000000000"),
    ],
)  # fmt: skip
def test_settings_of_another_model_are_refused(tmp_path, changes, expected):
    assert expected in refusal(load_published, write(tmp_path / "model", "gpt2", **changes))


def test_weights_that_are_missing_or_of_another_shape_are_refused(tmp_path):
    few = weights("gpt2")
    del few["transformer.h.1.ln_1.bias"]
    expected = "model.safetensors: state lacks 1 parameter(s) of the model, e.g. 'stack.layers.1.norm_1.beta'"
    assert expected in refusal(load_published, write(tmp_path / "model", "gpt2", few))
    few["transformer.h.1.ln_1.bias"] = np.zeros(7, "float32")
    expected = (
        "model.safetensors: stack.layers.1.norm_1.beta: expected float32 of shape (6,), got float32 of shape"
    )
    assert expected in refusal(load_published, write(tmp_path / "model", "gpt2", few))


HOSTILE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 13)
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@given(data=st.data())
def test_hostile_settings_are_used_or_refused_in_a_line(tmp_path_factory, kind, data):
    names = st.sampled_from(sorted(settings(kind)))
    changes = data.draw(st.dictionaries(names, HOSTILE, min_size=1, max_size=3))
    folder = write(tmp_path_factory.mktemp("hostile"), kind, **changes)
    try:
        load_published(folder)
    except (mt.CheckpointError, mt.ConfigError) as error:
        assert (
            "\n" not in str(error) and str(folder) in str(error) and len(str(error)) < len(str(folder)) + 400
        )


def test_weights_of_another_model_or_not_finite_are_refused(tmp_path):
    folder = write(tmp_path / "model", "gpt2", weights("bert"))
    assert "model.safetensors: expected the weights of a supported model, got 'bert." in refusal(
        load_published, folder
    )
    odd = weights("gpt2")
    odd["transformer.wpe.weight"][0, 0] = np.nan
    assert "all finite" in refusal(load_published, write(folder, "gpt2", odd))
    odd["transformer.wpe.weight"] = odd["transformer.wpe.weight"] > 0
    assert "wpe.weight': expected floating-point numbers, got bool" in refusal(
        load_published, write(folder, "gpt2", odd)
    )


def test_missing_and_damaged_files_are_refused(tmp_path):
    folder = tmp_path / "model"
    assert "config.json: cannot be read (No such file or directory)" in refusal(load_published, folder)
    write(folder, "gpt2")
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: cannot be read (No such file or directory)" in refusal(load_published, folder)
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"3"):
        (folder / "config.json").write_bytes(content)
        assert "config.json: " in refusal(load_published, folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert "cannot be read" in refusal(load_published, folder)


TOKENS = ["[PAD]", "the", "cat", "sat", "on", "a", "mat", "dog", "ran", "up", "[UNK]"]


@pytest.fixture
def with_tokenizer(sentence_model):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=12)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(sentence_model / "tokenizer.json"))
    return sentence_model


def test_the_tokenizer_pads_to_the_longest_of_a_batch_and_cuts_where_the_folder_says(with_tokenizer):
    texts = ["the cat sat on a mat", "a dog"]
    ids = [encoding.ids for encoding in load_tokenizer(with_tokenizer).encode_batch(texts)]
    assert ids == [[1, 2, 3, 4, 5, 6], [5, 7, 0, 0, 0, 0]]
    assert load_published(with_tokenizer).forward(np.array(ids))[0].shape == (2, 1, 6)
    (with_tokenizer / "sentence_bert_config.json").write_text('{"max_seq_length": 3}')
    ids = [encoding.ids for encoding in load_tokenizer(with_tokenizer).encode_batch(texts)]
    assert ids == [[1, 2, 3], [5, 7, 0]]


def test_a_tokenizer_in_a_folder_of_the_model_pads_with_the_models_symbol(with_tokenizer):
    (with_tokenizer / "0_BERT").mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.move(with_tokenizer / name, with_tokenizer / "0_BERT" / name)
    changed = json.loads((with_tokenizer / "0_BERT/config.json").read_text()) | {"pad_token_id": 10}
    (with_tokenizer / "0_BERT/config.json").write_text(json.dumps(changed))
    (with_tokenizer / "0_BERT/sentence_bert_config.json").write_text('{"max_seq_length": 3}')
    modules = json.loads((with_tokenizer / "modules.json").read_text())
    modules[0]["path"] = "0_BERT"
    (with_tokenizer / "modules.json").write_text(json.dumps(modules))
    encoded = load_tokenizer(with_tokenizer).encode_batch(["the cat sat on a mat", "a dog"])
    assert [encoding.ids for encoding in encoded] == [[1, 2, 3], [5, 7, 10]]


def test_a_tokenizer_that_would_have_to_lower_the_case_is_refused(with_tokenizer):
    (with_tokenizer / "sentence_bert_config.json").write_text('{"max_seq_length": 3, "do_lower_case": true}')
    with pytest.raises(mt.ConfigError, match="do_lower_case: expected False"):
        load_tokenizer(with_tokenizer)


def test_a_missing_or_damaged_tokenizer_is_refused(with_tokenizer):
    limits = with_tokenizer / "sentence_bert_config.json"
    limits.write_text('{"max_seq_length": "many"}')
    assert "tokenizer.json: damaged or not a tokenizer" in refusal(load_tokenizer, with_tokenizer)
    limits.unlink()
    for content in (b"", b"{}", b"\xff", b'{"version": "1.0", "model": {"type": "none"}}'):
        (with_tokenizer / "tokenizer.json").write_bytes(content)
        assert "tokenizer.json: " in refusal(load_tokenizer, with_tokenizer)
    (with_tokenizer / "tokenizer.json").unlink()
    assert "tokenizer.json: damaged or not a tokenizer (No such file" in refusal(
        load_tokenizer, with_tokenizer
    )


def test_without_tokenizers_it_says_what_to_install(monkeypatch):
    import_module = builtins.__import__

    def without(name, *arguments):
        if name == "tokenizers":
            raise ImportError(name)
        return import_module(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(mt.ConfigError, match=r"pip install 'minitransformer\[text\]'"):
        load_tokenizer(GOLDEN / "gpt2")
