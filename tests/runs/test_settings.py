"""The settings of a run: the task's, then the caller's."""

import json
import math

import pytest

import minitransformer as mt
from minitransformer.one_stack_config import family_of
from minitransformer.tasks import Chars, Reverse, Sort, Translate

TASK = Sort(n_symbols=7, max_length=4, epoch_size=11, test_size=3)


def test_settings_are_the_tasks_then_the_callers():
    settings = mt.RunSettings.of(Reverse(), {"d_ff": 100, "steps": 5000}, seed=2)
    assert (settings.model.src_vocab_size, settings.model.tgt_vocab_size) == (53, 53)
    assert (settings.model.d_ff, settings.training.steps, settings.seed) == (100, 5000, 2)
    for name, value in Reverse.model.items():
        assert name == "d_ff" or getattr(settings.model, name) == value
    for name, value in Reverse.training.items():
        assert name == "steps" or getattr(settings.training, name) == value


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"d_modle": 6}, r"'d_modle'.*'d_model'"),
        ({"warmup": 6}, r"'warmup'.*'warmup_steps'"),
        ({"steps": 1.5}, "steps"),
        ({"steps": "ten"}, "steps.*'ten'"),
        ({"steps": True}, "steps"),
        ({"dropout": math.nan}, "dropout"),
        ({"batch_tokens": 0}, "batch_tokens.*0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, what):
    """In one line. (What else cannot be: tests/test_config.py.)"""
    with pytest.raises(mt.ConfigError, match=what) as raised:
        mt.RunSettings.of(TASK, settings)
    assert "\n" not in str(raised.value)


# ---- families of models


@pytest.mark.parametrize("family", ["encoder-decoder", "encoder-only", "decoder-only"])
def test_a_task_has_settings_for_each_family(family):
    settings = mt.RunSettings.of(Sort(), {"family": family})
    assert family_of(settings.model) == family
    assert settings.make_batch is Sort.families[family]
    for name, value in {**Sort.model, **Sort.model_of_family.get(family, {})}.items():
        assert getattr(settings.model, name) == value
    changed = mt.RunSettings.of(Sort(), {"family": family, "d_ff": 100, "norm": "post"}).model
    assert (changed.d_ff, changed.norm) == (100, "post")  # the caller's come last


def test_without_a_family_it_is_the_tasks_first():
    assert type(mt.RunSettings.of(TASK).model) is mt.TransformerConfig
    settings = mt.RunSettings.of(Chars())
    assert settings.model.family == "decoder-only" and settings.model.norm == "pre"
    assert settings.model.src_vocab_size == settings.model.tgt_vocab_size == len(Chars().vocabulary)


@pytest.mark.parametrize("family", ["encoder-decoder", "encoder-only", "decoder-only"])
def test_settings_of_each_family_come_back_from_config_json(family, tmp_path):
    settings = mt.RunSettings.of(TASK, {"family": family, "steps": 500, "dropout_on": ["relu"]}, seed=4)
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings)
    assert folder.settings() == settings
    assert folder.model_settings() == (settings.model, "float32")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model"].get("family", "encoder-decoder") == family
    assert mt.RunSettings.from_dict(config) == settings


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (TASK, {"family": "decoder"}, "family: unknown 'decoder'; did you mean 'decoder-only'"),
        (TASK, {"family": 3}, "family: "),
        (TASK, {"family": ["decoder-only"]}, "family: "),
        (TASK, {"pooling": "mean"}, "setting: unknown 'pooling'"),
        (
            TASK,
            {"family": "decoder-only", "pooling": "mean"},
            "pooling: expected 'none' in a decoder-only model",
        ),
        (TASK, {"family": "encoder-only", "head": "none"}, "head: expected one that gives logits"),
        (
            Translate(),
            {"family": "encoder-only"},
            "family: expected encoder-decoder or decoder-only, for task translate, got 'encoder-only'",
        ),
        (
            Chars(),
            {"family": "encoder-only"},
            "family: expected decoder-only, for task chars, got 'encoder-only'",
        ),
        (
            Chars(),
            {"family": "encoder-decoder", "scale_embedding": True},
            "family: expected decoder-only, for task chars, got 'encoder-decoder'",
        ),
        (Chars(), {"solved_at": 0.5}, "solved_at: expected None: task chars has no exact match, got 0.5"),
    ],
)
def test_families_that_cannot_be_are_refused_in_one_line(task, settings, message):
    with pytest.raises(mt.ConfigError) as raised:
        mt.RunSettings.of(task, settings)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


def test_where_the_text_lies_moves_no_weight(tmp_path):
    found = []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("abc" * 300)
        found.append(mt.RunSettings.of(Chars(str(tmp_path / name))))
    assert found[0] != found[1] and found[0].as_json() == found[1].as_json()
