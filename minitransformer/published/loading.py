"""Models and tokenizers from the folders in which others publish them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from minitransformer.backend import DTypeLike, NoDraws
from minitransformer.errors import CheckpointError, ConfigError, describe
from minitransformer.files import read_text
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.models.encoder_only import EncoderOnly
from minitransformer.models.families import build
from minitransformer.one_stack_config import OneStackConfig
from minitransformer.published import bert, gpt2
from minitransformer.published.layout import Layout, supported
from minitransformer.published.safetensors import read_safetensors

LAYOUTS = {"bert": bert.LAYOUT, "gpt2": gpt2.LAYOUT}  # by the model_type in config.json
POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}  # of sentence-transformers
J = TypeVar("J")


def load_published(
    folder: str | Path, dtype: DTypeLike = "float32", device: str = "cpu"
) -> EncoderOnly | DecoderOnly:
    """The model in a folder of Hugging Face's layout: config.json and model.safetensors, of BERT or of GPT-2.

    A BERT answers with its last hidden states, (B, T, d_model), or, with a head for masked words, with logits. In a
    folder of sentence-transformers it answers with a vector for each sentence, (B, 1, d_model), whose length is not
    made 1. A GPT-2 answers with the logits of each next token. It has no symbol for padding, so its end-of-text symbol
    counts as padding where a prompt ends with it. Dropout is 0. Files with pickles are never read.
    Raises ConfigError for another architecture, or a setting that changes the mathematics and is not supported;
    CheckpointError for files that are missing, damaged, or of another model.
    """
    path, layout, config = _look_into(Path(folder))
    path = path / "model.safetensors"
    arrays = read_safetensors(path)
    try:
        state = layout.state(arrays)
        _check_sizes(config, state)
        model: Any = build(config, NoDraws(), dtype, device)
        model.load_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return model


def load_tokenizer(folder: str | Path) -> Any:
    """The `tokenizers.Tokenizer` in tokenizer.json, which pads a batch to its longest text with the model's pad_id.

    Texts are cut only where a sentence-transformers folder says so (max_seq_length). Raises ConfigError without
    the package tokenizers (the `text` extra) and for models that are not supported, CheckpointError for files that are
    missing or damaged.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise ConfigError("tokenizer.json needs tokenizers: pip install 'minitransformer[text]'") from None
    path, _, config = _look_into(Path(folder))
    limits = path / "sentence_bert_config.json"
    sentences = _read_json(limits, dict) if limits.exists() else {}
    supported(sentences, "do_lower_case", False)
    longest = sentences.get("max_seq_length")
    path = path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        if longest is not None:
            tokenizer.enable_truncation(longest)
        tokenizer.enable_padding(pad_id=config.pad_id)
    except Exception as error:  # tokenizers raises nothing more specific
        raise CheckpointError(f"{path}: damaged or not a tokenizer ({error})") from None
    return tokenizer


def _check_sizes(config: OneStackConfig, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError if the weights have other sizes than the config, whose model could take all the memory."""
    d_model, last = config.d_model, f"stack.layers.{config.n_layers - 1}"
    expected = {"embedding.embedding.E": (config.src_vocab_size, d_model)}
    expected |= {"embedding.positions.P": (config.max_len, d_model)}
    expected |= {"embedding.segments.E": (config.n_segments, d_model)} if config.n_segments else {}
    expected |= {f"{last}.feed_forward.W_1": (d_model, config.d_ff)}
    for name, shape in expected.items():
        found = state[name].shape if name in state else None
        if found != shape:
            raise CheckpointError(f"{name}: expected shape {shape}, as config.json says, got {found}")


def _look_into(folder: Path) -> tuple[Path, Layout, OneStackConfig]:
    """Where config.json is, and what it describes. Raises ConfigError if that is not supported."""
    changes: dict[str, Any] = {}
    if (folder / "modules.json").exists():
        folder, pooling = _sentence_model(folder)
        changes = {"pooling": pooling, "head": "none"}
    path = folder / "config.json"
    settings = _read_json(path, dict)
    try:
        layout = LAYOUTS[supported({"model_type": None, **settings}, "model_type", *LAYOUTS)]
        return folder, layout, replace(layout.config(settings), **changes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _sentence_model(folder: Path) -> tuple[Path, str]:
    """Where the model in a sentence-transformers folder is, and how it makes one vector of all states."""
    path = folder / "modules.json"
    modules = [m if isinstance(m, dict) else {} for m in _read_json(path, list)]
    kinds = [str(m.get("type")).rpartition(".")[2] for m in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ConfigError(f"{path}: expected Transformer, Pooling, perhaps Normalize, got {describe(kinds)}")
    of_model, of_pooling = (folder / Path(str(m.get("path"))).name for m in modules[:2])
    path = of_pooling / "config.json"
    modes = [name for name, on in _read_json(path, dict).items() if name.startswith("pooling_mode_") and on]
    if len(modes) != 1 or modes[0] not in POOLING:
        raise ConfigError(f"{path}: expected one of {', '.join(POOLING)}, got {describe(modes)}")
    return of_model, POOLING[modes[0]]


def _read_json(path: Path, kind: type[J]) -> J:
    """The content of a JSON file. Raises CheckpointError unless it is of this kind."""
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, kind):
            raise ValueError(f"expected a {kind.__name__}, got {describe(content)}")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or not a file of a published model ({error})") from None
    return content
