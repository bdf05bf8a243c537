"""What the tests share: random layers and inputs that leave no wrong formula a place to hide.

Every axis has another size (primes, so that a transposed axis is a shape error), parameters are not at their
initial values, upstream gradients are random, ids repeat, masks leave a row without anything to attend to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitransformer.config import TransformerConfig
from minitransformer.module import Module

B, T_Q, T_K, H, D_K, D_V, D_MODEL, D_FF, V_SRC, V_TGT = 2, 5, 7, 3, 4, 6, 8, 11, 13, 17


def randomise(layer: Module, rng: np.random.Generator, spread: float = 0.5) -> Module:
    """The layer in float64, with all parameters drawn from `rng`: none is where training starts."""
    layer.to(dtype="float64")
    for name, p in layer.parameters().items():
        p.data = name.endswith("gamma") + spread * rng.normal(size=p.shape)
        p.grad = rng.normal(size=p.shape)  # backward adds: whatever is there must stay
    return layer


def random_mask(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A boolean mask with about a third of it off, and one row all off."""
    mask = rng.random(shape) > 0.3
    mask[(0,) * (len(shape) - 1)] = False
    return mask


def random_ids(
    rng: np.random.Generator, batch: int, length: int, vocab_size: int, pad_id: int = 0
) -> np.ndarray:
    """Ids with duplicates, and padding at the end of all rows but the first."""
    ids = rng.integers(pad_id + 1, vocab_size, (batch, length))
    ids[:, 1] = ids[:, 0]
    for row in range(1, batch):
        ids[row, length - rng.integers(1, length) :] = pad_id
    return ids


def tiny_config(**changes: Any) -> TransformerConfig:
    """A model in which no two sizes are equal, with dropout everywhere."""
    settings: dict[str, Any] = {
        "src_vocab_size": V_SRC,
        "tgt_vocab_size": V_TGT,
        "n_layers": 2,
        "d_model": D_MODEL,
        "n_heads": H,
        "d_ff": D_FF,
        "d_k": D_K,
        "d_v": D_V,
        "dropout": 0.3,
        "dropout_on": ("embedding", "residual", "attention", "relu"),
        "max_len": 19,
        "tie_embeddings": "target_output",
    }
    return TransformerConfig(**{**settings, **changes})
