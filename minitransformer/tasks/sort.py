"""Sort: the answer is the sequence in ascending order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minitransformer.tasks.sequence import SequenceTask


@dataclass(frozen=True)
class Sort(SequenceTask):
    """Sorting of digits 0 … 9, lengths 1 … 12: "3 1 4 1 5" -> "1 1 3 4 5"."""

    name: ClassVar[str] = "sort"
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 800,
        "batch_tokens": 512,
        "accumulate": 2,
        "processes": 2,
        "schedule": "cosine",
        "warmup_steps": 200,
        "learning_rate": 4e-3,
        "log_every": 100,
        "evaluate_every": 200,
        "solved_at": 1.0,
    }
    max_length: int = 12

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        return np.sort(sequence)
