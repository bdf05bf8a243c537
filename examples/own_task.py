"""A task of your own: answer with every number followed by its double.

    python examples/own_task.py

trains a small encoder-decoder on it for about a minute and prints what it has learned. The settings are those of the
toy tasks: the paper's architecture, but with rotary positions, without dropout, and with a rate that decays to 0 along
a cosine. docs/deviations.md lists what differs from the paper.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import minitransformer as mt


@dataclass(frozen=True)
class Doubles(mt.tasks.SequenceTask):
    """Numbers 0 … 19, "3 1 4" -> "3 6 1 2 4 8" (modulo 20)."""

    name: ClassVar[str] = "doubles"
    training: ClassVar[dict] = {**mt.tasks.Sort.training, "evaluate_every": 100}
    n_symbols: int = 20
    max_length: int = 6

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        return np.stack([sequence, 2 * sequence % 20], axis=1).ravel()


if __name__ == "__main__":
    trainer = mt.Trainer(mt.RunSettings.of(Doubles(), {"steps": 1000}))
    result = trainer.run()
    print(f"exact match on {result['sets']['test']['n']} held-out sequences: {result['exact_match']:.1%}")

    vocabulary = trainer.settings.task.vocabulary
    (answer,) = mt.translate(trainer.model, [vocabulary.encode("3 1 14")])
    print("3 1 14 ->", vocabulary.decode(answer))
