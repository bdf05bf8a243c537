"""The small model that reverses sequences on the site's page. `python docs/reverser.py` trains it, in half a minute.

Its weights are kept in 16 bits; it reverses all 1,000 held-out sequences.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import minitransformer as mt
from minitransformer.runs.progress import Progress

TASK = mt.tasks.Reverse(n_symbols=10, max_length=12, longest=0)
SIZES = {"n_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 32}
TRAINING = {"steps": 1000, "processes": 1, "evaluate_every": 1000}
WEIGHTS = Path(__file__).parent / "textbook" / "weights" / "reverser.npz"


def main() -> None:
    """Train with seed 0."""
    trainer = mt.Trainer(mt.RunSettings.of(TASK, SIZES | TRAINING, 0))
    result = trainer.run(Progress(TRAINING["steps"]))
    state = {name: x.astype("float16") for name, x in trainer.model.state_dict().items()}
    np.savez_compressed(WEIGHTS, **state)
    print(f"exact match {result['exact_match']:.1%}")


if __name__ == "__main__":
    main()
