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

    Positions are rotary, and those of the source are counted from both ends, so at every length the symbol to write
    next is at the same distance as in training. In training, the gaps between positions are random, so the model also
    meets distances longer than those of 25 symbols (docs/lengths.md). Everything else is as in the paper, except that
    the rate decays to 0 after the warm-up.
    """

    name: ClassVar[str] = "reverse"
    model: ClassVar[Mapping[str, Any]] = {**SequenceTask.model, "dropout": 0.1}
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 1000,
        "batch_tokens": 512,
        "accumulate": 2,
        "processes": 2,
        "schedule": "cosine",
        "warmup_steps": 400,
        "learning_rate": 4e-3,
        "log_every": 100,
        "evaluate_every": 500,
    }
    n_symbols: int = 50
    max_length: int = 25
    longest: int = 100
    # a few batches, sorted by length to save padding, so that every few steps still see all lengths
    epoch_size: int = 160

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        return sequence[::-1]
