"""What the tests share: random layers, and inputs at which a wrong formula shows.

Every axis has another size (primes, so that a transposed axis is a shape error), parameters are not at their
initial values, upstream gradients are random, ids repeat, masks leave a row without anything to attend to.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from minitransformer import checks
from minitransformer.checks import random_ids, random_mask
from minitransformer.module import Module

SIZES = checks.Sizes()
B, T_Q, T_K, H, D_K, D_V, D_MODEL, D_FF, V_SRC, V_TGT = SIZES
tiny_config = partial(checks.tiny_config, SIZES)

__all__ = ["random_ids", "random_mask", "randomise", "tiny_config"]


def randomise(layer: Module, rng: np.random.Generator, spread: float = 0.5) -> Module:
    """The layer in float64, with all parameters drawn from `rng`: none is where training starts."""
    layer.to(dtype="float64")
    for name, p in layer.parameters().items():
        p.data = name.endswith("gamma") + spread * rng.normal(size=p.shape)
        p.grad = rng.normal(size=p.shape)  # backward adds: whatever is there must stay
    return layer
