"""The shapes that are measured, and their batches: toy, small, base, base with the paper's vocabulary, long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from minitransformer import TransformerConfig

PAD, BOS, EOS, FIRST_WORD = 0, 1, 2, 3
NEW_TOKENS = 24  # that decoding.py has written for each sentence


class Shape(NamedTuple):
    """Sizes of a model and of its batch; source and target are equally long."""

    d_model: int
    n_heads: int
    d_ff: int
    n_layers: int
    vocab_size: int
    batch: int
    length: int

    def config(self, **changes: Any) -> TransformerConfig:
        """The settings of this project's model."""
        from minitransformer import TransformerConfig  # not for PyTorch's process, whose memory is measured

        return TransformerConfig(
            src_vocab_size=self.vocab_size,
            tgt_vocab_size=self.vocab_size,
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            d_ff=self.d_ff,
            max_len=self.length,
            **changes,
        )

    def step_flops(self) -> int:
        """Floating-point operations of the matrix products of a training step."""
        from minitransformer.bench import step_flops

        return step_flops(self.config(), self.batch, self.length, self.length)


SHAPES = {
    "a": Shape(64, 4, 256, 2, 16, 64, 12),
    "b": Shape(256, 4, 1024, 3, 8000, 64, 24),
    "c": Shape(512, 8, 2048, 6, 8000, 16, 48),
    "c37": Shape(512, 8, 2048, 6, 37_000, 16, 48),
    "d": Shape(256, 4, 1024, 2, 8000, 2, 1024),
    "g": Shape(512, 8, 2048, 6, 8000, 64, 64),
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


def blocks(shape: Shape, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Random words of a text, (batch, length), and the word after each."""
    rng = np.random.default_rng(seed)
    text = rng.integers(FIRST_WORD, shape.vocab_size, (shape.batch, shape.length + 1))
    return text[:, :-1].copy(), text[:, 1:].copy()
