"""§3.4, §3.5, §5.4: the input of the encoder and of the decoder: embedding plus position, with dropout on the sum."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.counting import COUNTS
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.embedding import Embedding, EmbeddingCache
from minitransformer.layers.positional_encoding import TABLES, FixedPositions, LearnedPositions
from minitransformer.module import Module, Parameter


class InputEmbeddingCache(NamedTuple):
    embedding: EmbeddingCache
    positions: Any
    dropout: DropoutCache


class InputEmbedding(Module):
    """The sum of token embedding and positional encoding.

    forward   y = Dropout(E[ids] · sqrt(d_model) + PE)         ids: (B, T), y: (B, T, d_model)
    backward  adds into E (and learned positions); ids have no gradient

    Positions are counted from `count_from`: "start", from `start` on, a number or one for each sentence, (B, 1); "end";
    or "both", with half of the features for either (see layers/counting.py).
    """

    def __init__(
        self,
        config: TransformerConfig,
        vocab_size: int,
        count_from: str = "start",
        *,
        E: Parameter | None,
        rng: Generator,
        dtype: DTypeLike,
    ) -> None:
        self.embedding = Embedding(vocab_size, config.d_model, E=E, rng=rng, dtype=dtype)
        self.count_from, self.pad_id = count_from, config.pad_id
        rows, width = (
            config.max_len + config.random_start,
            config.d_model // (2 if count_from == "both" else 1),
        )
        self.positions: FixedPositions | LearnedPositions
        if config.positions == "learned":
            self.positions = LearnedPositions(rows, width, rng=rng, dtype=dtype)
        else:
            self.positions = FixedPositions(TABLES[config.positions](rows, width), dtype)
        self.dropout = Dropout(config.dropout_at("embedding"))

    def forward(
        self, ids: Array, rng: Generator | None = None, start: int | Array = 0
    ) -> tuple[Array, InputEmbeddingCache]:
        alike = isinstance(start, int) and self.count_from == "start"  # in all sentences
        at = start if alike else COUNTS[self.count_from](ids, self.pad_id, start)
        x, cache_embedding = self.embedding.forward(ids)
        x, cache_positions = self.positions.forward(x, at=at)
        y, cache_dropout = self.dropout.forward(x, rng)
        return y, InputEmbeddingCache(cache_embedding, cache_positions, cache_dropout)

    def backward(self, dy: Array, cache: InputEmbeddingCache) -> None:
        dx = self.dropout.backward(dy, cache.dropout)
        dx = self.positions.backward(dx, cache.positions)
        self.embedding.backward(dx, cache.embedding)
