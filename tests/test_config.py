"""Settings: what can be built, and what is refused with which words."""

from __future__ import annotations

import dataclasses

import pytest

import minitransformer as mt
from minitransformer.config import PRESETS, TrainingConfig
from minitransformer.validation.settings import from_settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 7}, "n_heads: expected a divisor of d_model=7"),
        ({"n_layers": 1001}, "n_layers: expected at most 1,000, got 1001"),
        (
            {"random_start": 2**20 - 1},
            "positions, by max_len, random_start and random_gaps: expected less than",
        ),
        (
            {"d_model": 7, "d_k": 2, "d_v": 2},
            "d_model: expected an even number for sinusoidal positions, got 7",
        ),
        ({"d_model": 0}, "d_model: expected at least 1, got 0"),
        ({"n_layers": -1}, "n_layers: expected at least 1"),
        ({"n_layers": 2.5}, "n_layers: expected int, got 2.5"),
        ({"n_layers": True}, "n_layers: expected int, got True"),
        ({"dropout": 1.0}, "dropout: expected a probability"),
        ({"dropout": "high"}, "dropout: expected float, got 'high'"),
        ({"dropout_on": ("residul",)}, "dropout_on: unknown 'residul'; did you mean 'residual'"),
        ({"norm": "prenorm"}, "norm: unknown 'prenorm'; did you mean 'pre'"),
        ({"activation": "gelo"}, "activation: unknown 'gelo'; did you mean 'gelu'"),
        ({"norm_layer": "RMS"}, "norm_layer: unknown 'RMS'. Known: layer, rms"),
        (
            {"positions": "binary", "d_model": 8, "max_len": 257},
            "d_model: expected at least 9, a bit each, for max_len=257 binary positions, got 8",
        ),
        ({"positions": "sinusoid"}, "positions: unknown 'sinusoid'; did you mean 'sinusoidal'"),
        ({"tie_embeddings": "all"}, "tie_embeddings: unknown 'all'"),
        ({"src_vocab_size": 12}, "tie_embeddings: expected one vocabulary"),
        ({"pad_id": 11}, "pad_id: expected an id 0 … 10, got 11"),
        ({"pad_id": -1}, "pad_id: expected an id"),
        ({"eps": 0.0}, "eps: expected a number above 0"),
        ({"d_k": 0}, "d_k: expected at least 1, got 0"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(settings, message):
    with pytest.raises(mt.ConfigError, match=message):
        mt.TransformerConfig(**{"src_vocab_size": 11, "tgt_vocab_size": 11, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1"),
        *(
            ({name: 0}, f"{name}: expected at least 1, got 0")
            for name in (
                "batch_tokens",
                "accumulate",
                "warmup_steps",
                "log_every",
                "evaluate_every",
                "keep_checkpoints",
            )
        ),
        ({"patience": 0}, "patience: expected at least 1, or None, got 0"),
        ({"beta1": 1.0}, "beta1: expected a number 0 <= x < 1"),
        ({"beta2": -0.1}, "beta2: expected a number 0 <= x < 1"),
        ({"processes": 1025}, "processes: expected at most 1,024"),
        ({"accumulate": 65537}, "accumulate: expected at most 65,536"),
        ({"schedule": "sine"}, "schedule: unknown 'sine'"),
        ({"schedule": "cosine"}, "learning_rate: expected a peak"),
        ({"schedule": "cosine", "learning_rate": 0.1, "steps": 9}, "warmup_steps: expected at most steps=9"),
        ({"learning_rate": -1.0}, "learning_rate: expected a number above 0"),
        ({"eps_ls": 1.0}, "eps_ls: expected a number 0 <= x < 1"),
        ({"dtype": "float16"}, "dtype: unknown 'float16'"),
        ({"clip_norm": 0.0}, "clip_norm: expected a number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a number above 0"),
        ({"solved_at": 95.0}, "solved_at: expected a share"),
        ({"weight_decay": -0.1}, "weight_decay: expected a number, 0 or more, got -0.1"),
        ({"weight_decay": float("inf")}, "weight_decay: expected a number, 0 or more, got inf"),
        (
            {"last_learning_rate": 1e-4},
            "last_learning_rate: expected 0, or at most the learning_rate of 'cosine'",
        ),
        (
            {"schedule": "cosine", "learning_rate": 0.1, "last_learning_rate": 0.2},
            "last_learning_rate: expected 0",
        ),
        (
            {"schedule": "cosine", "learning_rate": 0.1, "last_learning_rate": -0.2},
            "last_learning_rate: expected 0",
        ),
        ({"processes": 0}, "processes: expected at least 1, or None, got 0"),
    ],
)
def test_a_training_that_cannot_be_run_is_refused(settings, message):
    with pytest.raises(mt.ConfigError, match=message):
        TrainingConfig(**settings)


def test_the_nearest_name_is_suggested():
    with pytest.raises(mt.ConfigError, match="setting: unknown 'n_head'; did you mean 'n_heads'"):
        from_settings(mt.TransformerConfig, {"n_head": 3})
    with pytest.raises(mt.ConfigError, match="setting: unknown 'd_modle'; did you mean 'd_model'"):
        mt.TransformerConfig.base(d_modle=64)
    with pytest.raises(mt.ConfigError, match="preset: unknown 'bse'; did you mean 'base'"):
        mt.TransformerConfig.preset("bse")
    with pytest.raises(mt.ConfigError, match="missing 2 required positional arguments"):
        from_settings(mt.TransformerConfig, {})


def test_base_and_big_are_the_papers():
    base, big = mt.TransformerConfig.base(), mt.TransformerConfig.big()
    assert (base.n_layers, base.d_model, base.d_ff, base.n_heads, base.dropout) == (6, 512, 2048, 8, 0.1)
    assert (big.n_layers, big.d_model, big.d_ff, big.n_heads, big.dropout) == (6, 1024, 4096, 16, 0.3)
    assert base.norm == "post" and base.tie_embeddings is True and not base.attention_bias
    assert base.dropout_on == ("embedding", "residual")
    training = TrainingConfig()
    assert (training.beta1, training.beta2, training.adam_eps, training.warmup_steps) == (
        0.9,
        0.98,
        1e-9,
        4000,
    )
    assert training.eps_ls == 0.1 and training.steps == 100_000


def test_rows_a_of_table_3_keep_the_width_of_all_heads_together():
    for name in PRESETS:
        if name.startswith("A"):
            config = mt.TransformerConfig.preset(name)
            assert config.n_heads * config.d_k == config.n_heads * config.d_v == config.d_model


def test_dropout_is_on_where_the_config_says():
    config = mt.TransformerConfig(11, 11, dropout=0.25, dropout_on=["attention"])
    assert [config.dropout_at(place) for place in ("embedding", "residual", "attention", "relu")] == [
        0,
        0,
        0.25,
        0,
    ]


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        mt.TransformerConfig.base().d_model = 3


SYMBOLS = {"h": "n_heads", "N": "n_layers", "P_drop": "dropout"}


@pytest.mark.parametrize("row", [name for name in PRESETS if "=" in name and "eps_ls" not in name])
def test_a_row_of_table_3_changes_what_its_name_says(row):
    name, value = row.split(" ")[1].split("=")
    assert getattr(mt.TransformerConfig.preset(row), SYMBOLS.get(name, name)) == float(value)
