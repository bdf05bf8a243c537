"""Trains the book's models and writes their weights: python docs/textbook/weights/train.py [translators] [fold]"""

from __future__ import annotations

import sys
from importlib import import_module
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


def keep(model: mt.Transformer, name: str) -> None:
    """Write the weights in 16 bits."""
    state = {path: x.astype("float16") for path, x in model.state_dict().items()}
    np.savez_compressed(FOLDER / f"{name}.npz", **state)


def translators() -> None:
    """Three models of the task translate, with the seeds 0, 1 and 2."""
    for seed in range(3):
        trainer = mt.Trainer(mt.RunSettings.of(mt.tasks.Translate(), SETTINGS, seed))
        result = trainer.run(Progress(SETTINGS["steps"]))
        keep(trainer.model, f"translator-{seed}")
        print(f"seed {seed}: exact match {result['exact_match']:.1%}")


def fold() -> None:
    """The model of examples/fold.py with seed 0."""
    sys.path.insert(0, str(FOLDER.parents[2] / "examples"))
    trainer = mt.Trainer(mt.RunSettings.of(import_module("fold").Fold()))
    result = trainer.run()
    keep(trainer.model, "fold")
    print(f"fold: exact match {result['exact_match']:.1%}")


if __name__ == "__main__":
    makers = {"translators": translators, "fold": fold}
    for name in sys.argv[1:] or makers:
        makers[name]()
