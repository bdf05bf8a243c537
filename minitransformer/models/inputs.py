"""§3.4, §3.5, §5.4: the input of the encoder and of the decoder: embedding plus position, with dropout on the sum."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.embedding import Embedding, EmbeddingCache
from minitransformer.layers.positional_encoding import TABLES, FixedPositions, LearnedPositions
from minitransformer.module import Module, Parameter


class InputEmbeddingCache(NamedTuple):
    embedding: EmbeddingCache
    positions: Any
    dropout: DropoutCache


def positions_layer(
    config: TransformerConfig, n_positions: int, rng: Generator, dtype: DTypeLike
) -> FixedPositions | LearnedPositions:
    """The layer that adds the config's positions, of which each token has `n_positions`."""
    rows, width = config.last_position + 1, config.d_model // n_positions
    if config.positions == "learned":
        return LearnedPositions(rows, width, rng=rng, dtype=dtype)
    table = "none" if config.positions == "rotary" else config.positions
    return FixedPositions(TABLES[table](rows, width), dtype)


class InputEmbedding(Module):
    """The sum of token embedding and positional encoding.

    forward   y = Dropout(E[ids] · sqrt(d_model) + PE)         ids: (B, T), y: (B, T, d_model)
    backward  adds into E (and learned positions); ids have no gradient

    `at` gives the positions of the tokens, as in FixedPositions, `n_positions` for each token. Rotary positions are not
    added here, because they act on queries and keys.
    """

    def __init__(
        self,
        config: TransformerConfig,
        vocab_size: int,
        n_positions: int = 1,
        *,
        E: Parameter | None,
        rng: Generator,
        dtype: DTypeLike,
    ) -> None:
        self.embedding = Embedding(vocab_size, config.d_model, E=E, rng=rng, dtype=dtype)
        self.positions = positions_layer(config, n_positions, rng, dtype)
        self.dropout = Dropout(config.dropout_at("embedding"))

    def forward(
        self, ids: Array, rng: Generator | None = None, at: int | Array = 0
    ) -> tuple[Array, InputEmbeddingCache]:
        x, cache_embedding = self.embedding.forward(ids)
        x, cache_positions = self.positions.forward(x, at=at)
        y, cache_dropout = self.dropout.forward(x, rng)
        return y, InputEmbeddingCache(cache_embedding, cache_positions, cache_dropout)

    def backward(self, dy: Array, cache: InputEmbeddingCache) -> None:
        dx = self.dropout.backward(dy, cache.dropout)
        dx = self.positions.backward(dx, cache.positions)
        self.embedding.backward(dx, cache.embedding)
