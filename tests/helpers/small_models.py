"""Small modules that several tests take."""

from __future__ import annotations

import numpy as np
from support import T_K, T_Q, V_SRC, B, random_ids, randomise, tiny_config

import minitransformer as mt
from minitransformer import layers


def model_and_ids(seed: int = 0, **changes):
    rng = np.random.default_rng(seed)
    model = randomise(mt.Transformer(tiny_config(**changes)), rng, spread=0.3)
    V = model.config.tgt_vocab_size
    return model, random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V), rng


class Pair(mt.Module):
    def __init__(self) -> None:
        self.second = layers.Linear(3, 5, rng=1)
        self.first = [layers.LayerNorm(5), {"not": "walked"}]
        self.tied = self.second.W
