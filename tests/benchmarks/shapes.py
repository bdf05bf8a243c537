"""The four shapes that are measured, and their batches: toy, small, base, long."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PAD, FIRST_WORD = 0, 3


class Shape(NamedTuple):
    """Sizes of a model and of its batch; source and target are equally long."""

    d_model: int
    n_heads: int
    d_ff: int
    n_layers: int
    vocab_size: int
    batch: int
    length: int

    def step_flops(self) -> float:
        """Floating-point operations of the matrix products of a step, forward and (twice as many) backward."""
        words = self.batch * self.length
        linears = self.n_layers * (
            12 * self.d_model**2 + 4 * self.d_model * self.d_ff
        )  # 4 + 8 projections, 2 networks
        attention = (
            self.n_layers * 3 * 2 * self.length * self.d_model
        )  # three attentions: scores, and context
        return 3 * 2.0 * words * (linears + attention + self.d_model * self.vocab_size)


SHAPES = {
    "a": Shape(64, 4, 256, 2, 16, 64, 12),
    "b": Shape(256, 4, 1024, 3, 8000, 64, 24),
    "c": Shape(512, 8, 2048, 6, 8000, 16, 48),
    "c37": Shape(512, 8, 2048, 6, 37_000, 16, 48),
    "d": Shape(256, 4, 1024, 2, 8000, 2, 1024),
}


def sentences(shape: Shape, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """src_ids, tgt_in, tgt_out, each (batch, length): words, and padding for up to a quarter of a row."""
    rng = np.random.default_rng(seed)
    size = shape.batch, shape.length
    src_ids, tgt_in, tgt_out = (rng.integers(FIRST_WORD, shape.vocab_size, size) for _ in range(3))
    for side in ([src_ids], [tgt_in, tgt_out]):
        lengths = rng.integers(3 * shape.length // 4, shape.length + 1, shape.batch)
        lengths[0] = shape.length
        for ids in side:
            ids[np.arange(shape.length) >= lengths[:, None]] = PAD
    return src_ids, tgt_in, tgt_out
