"""§3, figure 1: the Transformer."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    device_module,
    dtype_of,
    generator,
)
from minitransformer.config import TransformerConfig
from minitransformer.layers.counting import COUNTS, at_places, from_start, random_places
from minitransformer.layers.embedding import OutputProjection, OutputProjectionCache
from minitransformer.layers.masks import causal_mask, padding_mask
from minitransformer.layers.rotary import PlacedMask, placed_masks
from minitransformer.models.decoder import Decoder, DecoderCache
from minitransformer.models.decoder_state import DecoderState
from minitransformer.models.encoder import Encoder, EncoderCache
from minitransformer.models.inputs import InputEmbedding, InputEmbeddingCache
from minitransformer.models.recompute import Keep
from minitransformer.module import Module
from minitransformer.one_stack_config import family_of
from minitransformer.validation import checked
from minitransformer.validation.layers import doors_open
from minitransformer.validation.settings import as_integer, require
from minitransformer.validation.training import gradient_of_logits, ids_for, model_inputs, next_ids


class TransformerCache(NamedTuple):
    src_embedding: InputEmbeddingCache
    encoder: EncoderCache
    tgt_embedding: InputEmbeddingCache
    decoder: DecoderCache
    output: OutputProjectionCache


class Transformer(Module):
    """The Transformer, from source ids and the target read so far to the logits of each next token.

    forward   memory = Encoder(embed(src_ids))
              logits = Decoder(embed(tgt_in), memory) Eᵀ                  (B, T_tgt, V)
    backward  the layers in reverse order; returns nothing, since ids have no gradient

    src_ids: (B, T_src), tgt_in: (B, T_tgt), integers. tgt_in is the target shifted right: it begins with the
    start symbol, and logits[:, t] predict what follows tgt_in[:, : t + 1]. Padding is config.pad_id: anywhere
    in src_ids, but in tgt_in only after the last word, where the causal mask hides it from the words.
    The softmax is part of the loss. The parameters lie in one flat buffer (see Module.flatten).
    `keep` is how much the stacks keep for backward (see models/recompute.py).
    `seed` (a number or a generator) determines the initial weights; dtype and device do not change them.
    Raises InputError for ids of the wrong type, shape, range or length.
    """

    def __init__(
        self, config: TransformerConfig, seed: Seed = 0, dtype: DTypeLike = "float32", device: str = "cpu"
    ) -> None:
        require(isinstance(config, TransformerConfig), "config", "a TransformerConfig", config)
        require(family_of(config) == "encoder-decoder", "config", "one of two stacks", config)
        device_module(device)
        dtype, rng, tie = dtype_of(dtype), generator(seed), config.tie_embeddings
        self.config = config
        self.src_embedding = InputEmbedding(
            config, config.src_vocab_size, config.n_source_positions, E=None, rng=rng, dtype=dtype
        )
        src_E = self.src_embedding.embedding.E if tie in (True, "source_target") else None
        self.tgt_embedding = InputEmbedding(config, config.tgt_vocab_size, E=src_E, rng=rng, dtype=dtype)
        tgt_E = self.tgt_embedding.embedding.E if tie in (True, "target_output") else None
        self.encoder = Encoder(config, rng=rng, dtype=dtype)
        self.decoder = Decoder(config, rng=rng, dtype=dtype)
        self.output = OutputProjection(config.tgt_vocab_size, config.d_model, E=tgt_E, rng=rng, dtype=dtype)
        self.to(device)
        self.flatten()

    @checked(model_inputs)
    def forward(
        self, src_ids: Array, tgt_in: Array, rng: Generator | None = None, keep: Keep = "caches"
    ) -> tuple[Array, TransformerCache]:
        src_at, tgt_at = self.positions(src_ids, tgt_in, rng)
        src_mask, tgt_mask, cross_mask = self.masks(src_ids, tgt_in, src_at, tgt_at)
        x, cache_src = self.src_embedding.forward(src_ids, rng, src_at)
        memory, cache_encoder = self.encoder.forward(x, src_mask, rng, keep)
        x, cache_tgt = self.tgt_embedding.forward(tgt_in, rng, tgt_at)
        x, cache_decoder = self.decoder.forward(x, memory, tgt_mask, cross_mask, rng, keep)
        logits, cache_output = self.output.forward(x)
        return logits, TransformerCache(cache_src, cache_encoder, cache_tgt, cache_decoder, cache_output)

    @checked(gradient_of_logits)
    def backward(self, dlogits: Array, cache: TransformerCache) -> None:
        dx = self.output.backward(dlogits, cache.output)
        dx, dmemory = self.decoder.backward(dx, cache.decoder)
        self.tgt_embedding.backward(dx, cache.tgt_embedding)
        dx = self.encoder.backward(dmemory, cache.encoder)
        self.src_embedding.backward(dx, cache.src_embedding)

    def positions(self, src_ids: Array, tgt_in: Array, rng: Generator | None = None) -> tuple[Array, Array]:
        """The positions of source and target (see layers/counting.py). Random positions are for training only."""
        config = self.config
        src_at = COUNTS[config.count_source_from](src_ids, config.pad_id)
        tgt_at = from_start(tgt_in, config.pad_id)
        if rng is None or config.in_order:
            return src_at, tgt_at
        longest = max(src_ids.shape[1], tgt_in.shape[1])
        places = random_places(rng, len(src_ids), longest, config.random_start, config.random_gaps)
        return at_places(places, src_at), at_places(places, tgt_at)

    def masks(self, src_ids: Array, tgt_in: Array, src_at: Array, tgt_at: Array) -> tuple[Any, Any, Any]:
        """Three masks: where the encoder may look, and where the decoder may look in the target and in the source."""
        padding, causal = padding_mask(src_ids, self.config.pad_id), causal_mask(tgt_in)
        if self.config.positions != "rotary":
            return padding, causal, padding
        return placed_masks(padding, causal, src_at, tgt_at)

    def start_decoding(self, src_ids: Array, max_len: int) -> DecoderState:
        """Encode the source; return the state before the first target token, with room for `max_len` tokens."""
        most = self.config.max_len
        max_len = as_integer("max_len", max_len, 1, most, f"1 … {most} (the model's max_len)")
        src_ids = ids_for(self.src_embedding.embedding.E, src_ids, "src_ids", most)
        first = src_ids[:, :1]  # stands for a target of one token: only its shape matters
        src_at, tgt_at = self.positions(src_ids, first)
        src_mask, _, cross_mask = self.masks(src_ids, first, src_at, tgt_at)
        x, _ = self.src_embedding.forward(src_ids, at=src_at)
        memory, _ = self.encoder.forward(x, src_mask, keep="nothing")
        return self.decoder.start(memory, cross_mask, max_len)

    @doors_open
    def decode_step(self, ids: Array, state: DecoderState) -> Array:
        """Read one more target token of each sentence (or hypothesis), ids: (B,); return the next logits, (B, V).

        These are the logits that forward gives for all tokens read so far, at the cost of one token. Extends `state`.
        Raises InputError unless there is one id of the vocabulary for each row, and when there is no more room.
        """
        ids = next_ids(self.tgt_embedding.embedding.E, ids, state)
        if isinstance(state.src_mask, PlacedMask):
            state.src_mask = state.src_mask.with_queries_at(state.length)
        x, _ = self.tgt_embedding.forward(ids, at=state.length)
        logits, _ = self.output.forward(self.decoder.step(x, state))
        return logits[:, 0]
