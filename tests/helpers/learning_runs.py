"""Runs of some evaluations, for the best weights and the mean of several checkpoints."""

import minitransformer as mt
from minitransformer.tasks import Sort

TASK = Sort(n_symbols=7, max_length=5, epoch_size=40, test_size=9)
TINY = {
    "n_layers": 1,
    "d_model": 10,
    "n_heads": 2,
    "d_k": 4,  # rotary positions from both ends turn pairs, half of them each way
    "d_ff": 14,
    "max_len": 11,
    "steps": 15,
    "batch_tokens": 60,
    "warmup_steps": 4,
    "learning_rate": 0.02,
    "evaluate_every": 3,
    "keep_checkpoints": 4,
    "solved_at": None,
    "processes": 1,
}


def trained(path, seed=3, **changes):
    trainer = mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **changes}, seed), mt.RunFolder(path))
    trainer.run()
    return trainer
