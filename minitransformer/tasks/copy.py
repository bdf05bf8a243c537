"""Copy: the answer is the sequence itself (the usual first test of a Transformer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minitransformer.tasks.sequence import SequenceTask


@dataclass(frozen=True)
class Copy(SequenceTask):
    """Copying of symbols 1 … 10, length 10: "3 1 4 1 5 9 2 6 5 3" -> the same."""

    name: ClassVar[str] = "copy"
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 200,
        "batch_tokens": 352,
        "accumulate": 2,
        "processes": 2,
        "schedule": "cosine",
        "warmup_steps": 30,
        "learning_rate": 4e-3,
        "log_every": 50,
        "evaluate_every": 50,
        "solved_at": 1.0,
    }
    first_symbol: int = 1
    n_symbols: int = 10
    min_length: int = 10
    max_length: int = 10

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        return sequence
