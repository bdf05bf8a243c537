"""A model, batches of different sizes for its replicas, and generators for them."""

from __future__ import annotations

import numpy as np
from support import V_SRC, V_TGT, randomise, tiny_config

import minitransformer as mt
from minitransformer.training import make_batch

LOSS = mt.LabelSmoothedCrossEntropy(0.1)


def model_and_batches(n: int, seed: int = 0, **settings):
    rng = np.random.default_rng(seed)
    model = randomise(mt.Transformer(tiny_config(**settings)), rng)
    batches = []
    for size in range(2, 2 + n):  # of different sizes and lengths
        pairs = [
            (
                rng.integers(3, V_SRC, rng.integers(1, 7)).tolist(),
                rng.integers(3, V_TGT, rng.integers(1, 9)).tolist(),
            )
            for _ in range(size)
        ]
        batches.append(make_batch(pairs))
    return model, batches


def rngs(n: int):
    return [np.random.default_rng([7, i]) for i in range(n)]
