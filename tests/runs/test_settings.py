"""The settings of a run: the task's, then the caller's."""

import math

import pytest

import minitransformer as mt
from minitransformer.tasks import Reverse, Sort

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
