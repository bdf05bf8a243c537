"""The settings of models of one stack: what is refused with which words, and that config.json holds them."""

from __future__ import annotations

import dataclasses
import json

import pytest

import minitransformer as mt
from minitransformer.models import DecoderOnly, EncoderOnly, build
from minitransformer.one_stack_config import FAMILIES, OneStackConfig, config_of, family_of

ENCODER = {"family": "encoder-only"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "encoder-decoder"}, "family: unknown 'encoder-decoder'"),
        ({"family": "decoder"}, "family: unknown 'decoder'; did you mean 'decoder-only'"),
        ({"family": None}, "family: expected str, got None"),
        ({"scale_embedding": "yes"}, "scale_embedding: expected bool, got 'yes'"),
        ({**ENCODER, "n_segments": -1}, "n_segments: expected 0 or more, got -1"),
        ({**ENCODER, "n_segments": 1.5}, "n_segments: expected int, got 1.5"),
        ({**ENCODER, "n_segments": 10**18}, "n_segments: expected 0 or more, got 1"),
        ({**ENCODER, "pooling": "max"}, "pooling: unknown 'max'. Known: first, mean, none"),
        ({"head": "lm"}, "head: unknown 'lm'. Known: masked-lm, none, projection"),
        ({"tie_embeddings": "target_output"}, "tie_embeddings: expected True or False, in a model of one stack"),
        ({"count_source_from": "end"}, "count_source_from: expected 'start' in a decoder-only model, got 'end'"),
        ({"n_segments": 2}, "n_segments: expected 0 in a decoder-only model, got 2"),
        ({"pooling": "mean"}, "pooling: expected 'none' in a decoder-only model, got 'mean'"),
        ({"head": "none"}, "head: expected one that gives logits, in a decoder-only model, got 'none'"),
        (
            {"tie_embeddings": False, "tgt_vocab_size": 12},
            "tgt_vocab_size: expected src_vocab_size=11, in a decoder-only model, got 12",
        ),
        ({"d_model": 7}, "n_heads: expected a divisor of d_model=7"),
        ({**ENCODER, "tgt_vocab_size": 3}, "tie_embeddings: expected one vocabulary for source and target"),
        ({**ENCODER, "tgt_vocab_size": 3, "tie_embeddings": False, "pad_id": 3}, "pad_id: expected an id 0 … 2"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_built_is_refused_in_one_line(settings, message):
    with pytest.raises(mt.ConfigError) as raised:
        OneStackConfig(**{"src_vocab_size": 11, "tgt_vocab_size": 11, **settings})
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


CONFIGS = [
    mt.TransformerConfig(11, 13, tie_embeddings="target_output", dropout_on=("relu",)),
    OneStackConfig(11, 11, norm="pre", positions="learned", scale_embedding=False, head="masked-lm"),
    OneStackConfig(
        11, 3, family="encoder-only", tie_embeddings=False, n_segments=2, embedding_norm=True, pooling="first"
    ),
    OneStackConfig(11, 11, family="encoder-only", head="none", count_source_from="both", positions="rotary"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{family_of(config)}, {config.positions}")
def test_settings_come_back_from_json(config):
    again = config_of(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and type(again) is type(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_a_model(family):
    sizes = {"src_vocab_size": 11, "tgt_vocab_size": 11, "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 9}
    config = config_of({**sizes, "family": family})
    assert family_of(config) == family
    Model = {"encoder-only": EncoderOnly, "decoder-only": DecoderOnly}.get(family, mt.Transformer)
    model = build(config, 3, "float64")
    assert type(model) is Model and model.config == config and model.flatten().data.dtype == "float64"
    assert (model.flatten().data == Model(config, 3, "float64").flatten().data).all()
    assert (model.flatten().data != build(config, 4, "float64").flatten().data).any()


def test_settings_that_name_no_family_are_the_papers():
    config = config_of({"src_vocab_size": 11, "tgt_vocab_size": 11})
    assert type(config) is mt.TransformerConfig and not hasattr(config, "family")
    assert family_of(config) == "encoder-decoder"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "mean"}, "pooling"),
        ({"head": "none", "family": "encoder-decoder"}, "head"),
        ({"family": "decoder-olny"}, "'decoder-olny'; did you mean 'decoder-only'"),
        ({"family": 3}, "family"),
        ({"family": ["encoder-only"]}, "family"),
        ({"family": "encoder-only", "poling": "mean"}, "'poling'; did you mean 'pooling'"),
    ],
)
def test_a_setting_that_the_family_does_not_have_is_refused(settings, message):
    with pytest.raises(mt.ConfigError, match=message) as raised:
        config_of({"src_vocab_size": 11, "tgt_vocab_size": 11, **settings})
    assert "\n" not in str(raised.value)
