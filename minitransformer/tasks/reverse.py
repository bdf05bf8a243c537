"""Reverse: the answer is the sequence read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minitransformer.tasks.sequence import SequenceTask


@dataclass(frozen=True)
class Reverse(SequenceTask):
    """Reversal of integers 0 … 49, lengths 1 … 25, and 26 … 100 to test lengths never seen: "3 1 4" -> "4 1 3".

    The source's positions are counted from both ends, and begin at a random number in training, up to where those of
    the longest test sequences end: so at every length, the symbol to write next is where it was in training, and no
    position is new. Dropout, the paper's, keeps attention sharp among more keys than training shows (docs/lengths.md).
    """

    name: ClassVar[str] = "reverse"
    model: ClassVar[Mapping[str, Any]] = {
        **SequenceTask.model,
        "dropout": 0.1,
        "max_len": 128,
        "count_source_from": "both",
        "random_start": 80,
    }
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 2000,
        "batch_tokens": 512,
        "accumulate": 2,
        "processes": 2,
        "schedule": "cosine",
        "warmup_steps": 200,
        "learning_rate": 1.2e-2,
        "clip_norm": 1.0,
        "log_every": 100,
        "evaluate_every": 1000,
    }
    n_symbols: int = 50
    max_length: int = 25
    longest: int = 100
    # a few batches: they are sorted by length to save padding, yet every few steps see all lengths
    epoch_size: int = 160

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        return sequence[::-1]
