"""Trains the three translators of the book and writes their weights: python docs/textbook/weights/train.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import minitransformer as mt
from minitransformer.runs.progress import Progress

FOLDER = Path(__file__).parent
SETTINGS = {
    "n_layers": 2,
    "n_heads": 2,
    "d_model": 32,
    "d_ff": 32,
    "steps": 1000,
    "learning_rate": 1.2e-2,
    "processes": 1,
    "evaluate_every": 1000,
}


def main() -> None:
    """Train with the seeds 0, 1 and 2, and keep the weights in 16 bits."""
    for seed in range(3):
        trainer = mt.Trainer(mt.RunSettings.of(mt.tasks.Translate(), SETTINGS, seed))
        result = trainer.run(Progress(SETTINGS["steps"]))
        state = {name: x.astype("float16") for name, x in trainer.model.state_dict().items()}
        np.savez_compressed(FOLDER / f"translator-{seed}.npz", **state)
        print(f"seed {seed}: exact match {result['exact_match']:.1%}")


if __name__ == "__main__":
    main()
