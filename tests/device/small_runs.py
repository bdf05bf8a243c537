"""A run of a few steps, for what a run does besides learning."""

from __future__ import annotations

from typing import Any

import minitransformer as mt
from minitransformer.tasks import Copy


def small_run(**changes: Any) -> mt.RunSettings:
    """Settings: four steps of task copy, with some of them changed."""
    task = Copy(n_symbols=5, min_length=2, max_length=4, epoch_size=23, test_size=4)
    small: dict[str, Any] = {
        "n_layers": 1,
        "d_model": 8,
        "n_heads": 2,
        "d_ff": 16,
        "max_len": 12,
        "steps": 4,
        "batch_tokens": 30,
        "warmup_steps": 2,
        "evaluate_every": 2,
        "log_every": 1,
    }
    return mt.RunSettings.of(task, {**small, **changes}, 1)
