"""Not in the paper: the parts that all models of one stack have, from the embedding of their input to their answers."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    array_module,
    device_module,
    dtype_of,
    generator,
    sum_positions,
    zeros,
)
from minitransformer.layers.counting import COUNTS, at_places, random_places
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.embedding import (
    Embedding,
    EmbeddingCache,
    OutputProjection,
    OutputProjectionCache,
)
from minitransformer.layers.feed_forward import ACTIVATIONS
from minitransformer.layers.linear import Linear, LinearCache
from minitransformer.layers.rotary import PlacedMask
from minitransformer.models.encoder import Encoder
from minitransformer.models.inputs import positions_layer
from minitransformer.models.sublayers import layer_norm
from minitransformer.module import Module, Parameter
from minitransformer.one_stack_config import OneStackConfig, family_of
from minitransformer.validation.layers import layer_inputs
from minitransformer.validation.settings import require


def positions_of(config: OneStackConfig, ids: Array, rng: Generator | None) -> Array:
    """The positions of the tokens (see layers/counting.py). Random positions are for training only."""
    at = COUNTS[config.count_source_from](ids, config.pad_id)
    if rng is None or config.in_order:
        return at
    places = random_places(rng, len(ids), ids.shape[1], config.random_start, config.random_gaps)
    return at_places(places, at)


class OneStackEmbeddingCache(NamedTuple):
    embedding: EmbeddingCache
    positions: Any
    segments: Any
    norm: Any
    dropout: DropoutCache


class OneStackEmbedding(Module):
    """The input of the stack: the sum of token embedding, position and segment, as far as the config has them.

    forward   x = E[ids] · s + P[at] + S[segments],   y = Dropout(LayerNorm(x))       s: sqrt(d_model), or 1
    backward  adds into E, P and S; ids have no gradient

    ids, segments: (B, T), y: (B, T, d_model); `at` as in FixedPositions. Without segments, all tokens are of segment 0.
    """

    def __init__(self, config: OneStackConfig, *, rng: Generator, dtype: DTypeLike) -> None:
        d_model = config.d_model
        self.embedding = Embedding(
            config.src_vocab_size, d_model, scaled=config.scale_embedding, rng=rng, dtype=dtype
        )
        self.positions = positions_layer(config, config.n_source_positions, rng, dtype)
        self.segments = (
            Embedding(config.n_segments, d_model, scaled=False, rng=rng, dtype=dtype)
            if config.n_segments
            else None
        )
        self.norm = layer_norm(config, dtype) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout_at("embedding"))

    def forward(
        self,
        ids: Array,
        segments: Array | None = None,
        rng: Generator | None = None,
        at: int | Array = 0,
    ) -> tuple[Array, OneStackEmbeddingCache]:
        cache_segments = cache_norm = None
        x, cache_embedding = self.embedding.forward(ids)
        x, cache_positions = self.positions.forward(x, at=at)
        if self.segments is not None:
            of_segment, cache_segments = self.segments.forward(
                array_module(ids).zeros_like(ids) if segments is None else segments
            )
            x = x + of_segment
        if self.norm is not None:
            x, cache_norm = self.norm.forward(x)
        y, cache_dropout = self.dropout.forward(x, rng)
        return y, OneStackEmbeddingCache(
            cache_embedding, cache_positions, cache_segments, cache_norm, cache_dropout
        )

    def backward(self, dy: Array, cache: OneStackEmbeddingCache) -> None:
        dx = self.dropout.backward(dy, cache.dropout)
        if self.norm is not None:
            dx = self.norm.backward(dx, cache.norm)
        if self.segments is not None:
            self.segments.backward(dx, cache.segments)
        dx = self.positions.backward(dx, cache.positions)
        self.embedding.backward(dx, cache.embedding)


class MaskedLMHeadCache(NamedTuple):
    linear: LinearCache
    activation: Any
    norm: Any
    projection: OutputProjectionCache


class MaskedLMHead(Module):
    """BERT's head for filling gaps (Devlin et al. 2018): how much each token fits each position.

    forward   h = LayerNorm(GELU(x W + b)),   logits = h Eᵀ + b_V        x: (B, T, d_model), logits: (B, T, V)
    backward  db_V = Σ dlogits over all positions; the layers in reverse order give dx

    E: (V, d_model), the embedding's parameter, or one of its own. The activation is the one in the stack.
    """

    def __init__(
        self, config: OneStackConfig, E: Parameter | None, *, rng: Generator, dtype: DTypeLike
    ) -> None:
        self.linear = Linear(config.d_model, config.d_model, rng=rng, dtype=dtype)
        self.activation = ACTIVATIONS[config.activation]()
        self.norm = layer_norm(config, dtype)
        self.projection = OutputProjection(config.tgt_vocab_size, config.d_model, E=E, rng=rng, dtype=dtype)
        self.b_V = Parameter(zeros((config.tgt_vocab_size,), dtype))

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, MaskedLMHeadCache]:
        h, cache_linear = self.linear.forward(x)
        h, cache_activation = self.activation.forward(h)
        h, cache_norm = self.norm.forward(h)
        logits, cache_projection = self.projection.forward(h)
        cache = MaskedLMHeadCache(cache_linear, cache_activation, cache_norm, cache_projection)
        return logits + self.b_V.data, cache

    def backward(self, dlogits: Array, cache: MaskedLMHeadCache) -> Array:
        dh = self.projection.backward(dlogits, cache.projection)
        self.b_V.grad += sum_positions(dlogits)
        dh = self.norm.backward(dh, cache.norm)
        dh = self.activation.backward(dh, cache.activation)
        return self.linear.backward(dh, cache.linear)


def output_of(config: OneStackConfig, E: Parameter, rng: Generator, dtype: DTypeLike) -> Any:
    """The layer after the stack, as the config's head says, or None; with tied embeddings, `E` is its matrix."""
    tied = E if config.tie_embeddings else None
    if config.head == "projection":
        return OutputProjection(config.tgt_vocab_size, config.d_model, E=tied, rng=rng, dtype=dtype)
    return MaskedLMHead(config, tied, rng=rng, dtype=dtype) if config.head == "masked-lm" else None


class OneStack(Module):
    """The parts of a model of one stack: embedding, stack and output. A subclass says how they work together."""

    family: ClassVar[str]

    def __init__(
        self, config: OneStackConfig, seed: Seed = 0, dtype: DTypeLike = "float32", device: str = "cpu"
    ) -> None:
        require(family_of(config) == self.family, "config", f"one with family={self.family!r}", config)
        device_module(device)
        dtype, rng = dtype_of(dtype), generator(seed)
        self.config = config
        self.embedding = OneStackEmbedding(config, rng=rng, dtype=dtype)
        self.stack = Encoder(config, rng=rng, dtype=dtype)
        self.output = output_of(config, self.embedding.embedding.E, rng, dtype)
        self.to(device)
        self.flatten()

    def placed(self, mask: Any, query_at: Array, key_at: Array) -> Any:
        """The mask, with the positions of queries and keys if these are rotary."""
        return PlacedMask(mask, query_at, key_at) if self.config.positions == "rotary" else mask
