"""§3.1: the decoder, the right half of figure 1."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, Seed, generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.add_norm import AddNormCache
from minitransformer.layers.feed_forward import FeedForwardCache
from minitransformer.layers.multi_head_attention import MultiHeadAttentionCache
from minitransformer.models.decoder_state import DecoderState, LayerState
from minitransformer.models.pre_norm import PreNormDecoderLayer
from minitransformer.models.recompute import Keep, backward_block, forward_block
from minitransformer.models.sublayers import add_norm, feed_forward, layer_norm, multi_head_attention
from minitransformer.module import Module
from minitransformer.validation.layers import layer_inputs


class DecoderLayerCache(NamedTuple):
    self_attention: MultiHeadAttentionCache
    add_norm_1: AddNormCache
    cross_attention: MultiHeadAttentionCache
    add_norm_2: AddNormCache
    feed_forward: FeedForwardCache
    add_norm_3: AddNormCache


class DecoderLayer(Module):
    """Causal self-attention, attention over the encoder's output, feed-forward, each followed by Add & Norm.

    forward   x = LayerNorm(x + Dropout(MultiHead(x, x, x)))                 under tgt_mask
              x = LayerNorm(x + Dropout(MultiHead(x, memory, memory)))       under src_mask
              y = LayerNorm(x + Dropout(FeedForward(x)))
    backward  (dx, dmemory): the same lines, last first

    x, y: (B, T_tgt, d_model), memory: (B, T_src, d_model).
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        self.self_attention = multi_head_attention(config, rng, dtype)
        self.add_norm_1 = add_norm(config, dtype)
        self.cross_attention = multi_head_attention(config, rng, dtype)
        self.add_norm_2 = add_norm(config, dtype)
        self.feed_forward = feed_forward(config, rng, dtype)
        self.add_norm_3 = add_norm(config, dtype)

    @layer_inputs
    def forward(
        self,
        x: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        src_mask: Array | None = None,
        rng: Generator | None = None,
    ) -> tuple[Array, DecoderLayerCache]:
        attended, cache_self = self.self_attention.forward(x, x, x, tgt_mask, rng)
        x, cache_1 = self.add_norm_1.forward(x, attended, rng)
        attended, cache_cross = self.cross_attention.forward(x, memory, memory, src_mask, rng)
        x, cache_2 = self.add_norm_2.forward(x, attended, rng)
        fed, cache_feed_forward = self.feed_forward.forward(x, rng)
        y, cache_3 = self.add_norm_3.forward(x, fed, rng)
        return y, DecoderLayerCache(cache_self, cache_1, cache_cross, cache_2, cache_feed_forward, cache_3)

    def backward(self, dy: Array, cache: DecoderLayerCache) -> tuple[Array, Array]:
        dx, dfed = self.add_norm_3.backward(dy, cache.add_norm_3)
        dx = dx + self.feed_forward.backward(dfed, cache.feed_forward)
        dx, dattended = self.add_norm_2.backward(dx, cache.add_norm_2)
        dquery, dkey, dvalue = self.cross_attention.backward(dattended, cache.cross_attention)
        dx, dmemory = dx + dquery, dkey + dvalue
        dx, dattended = self.add_norm_1.backward(dx, cache.add_norm_1)
        dquery, dkey, dvalue = self.self_attention.backward(dattended, cache.self_attention)
        return dx + dquery + dkey + dvalue, dmemory

    def step(self, x: Array, state: LayerState, src_mask: Array | None) -> Array:
        """y at the next position only, (B, 1, d_model). `state` has the earlier positions, and is extended."""
        K, V = state.append(*self.self_attention.keys_and_values(x, x))
        x, _ = self.add_norm_1.forward(x, self.self_attention.attend(x, K, V))
        query = state.by_sentence(x)
        attended = self.cross_attention.attend(query, state.memory_K, state.memory_V, src_mask).reshape(
            x.shape
        )
        x, _ = self.add_norm_2.forward(x, attended)
        fed, _ = self.feed_forward.forward(x)
        y, _ = self.add_norm_3.forward(x, fed)
        return y


class DecoderCache(NamedTuple):
    layers: list[Any]  # of each layer, depending on `keep`: its cache, its inputs, or None
    norm: Any  # of the final LayerNorm, which only pre-norm has


class Decoder(Module):
    """A stack of N identical layers, each of which reads the encoder's output.

    forward   y = layer_N(… layer_1(x, memory) …, memory)     x, y: (B, T_tgt, d_model), memory: (B, T_src, d_model)
    backward  (dx, dmemory): dmemory is the sum over the layers

    `keep` and norm="pre" are as in Encoder. `start` and `step` compute the same y a position at a time.
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        pre_norm = config.norm == "pre"
        Layer = PreNormDecoderLayer if pre_norm else DecoderLayer
        self.layers = [Layer(config, rng=rng, dtype=dtype) for _ in range(config.n_layers)]
        self.norm = layer_norm(config, dtype) if pre_norm else None

    @layer_inputs
    def forward(
        self,
        x: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        src_mask: Array | None = None,
        rng: Generator | None = None,
        keep: Keep = "caches",
    ) -> tuple[Array, DecoderCache]:
        kept_of_layers, cache_norm = [], None
        for layer in self.layers:
            x, kept = forward_block(layer, x, memory, tgt_mask, src_mask, rng=rng, keep=keep)
            kept_of_layers.append(kept)
        if self.norm is not None:
            x, cache_norm = self.norm.forward(x)
        return x, DecoderCache(kept_of_layers, cache_norm)

    def backward(self, dy: Array, cache: DecoderCache) -> tuple[Array, Array]:
        dx = dy if self.norm is None else self.norm.backward(dy, cache.norm)
        dmemory = 0
        for layer, kept in zip(reversed(self.layers), reversed(cache.layers), strict=True):
            dx, dmemory_of_layer = backward_block(layer, dx, kept)
            dmemory = dmemory + dmemory_of_layer
        return dx, dmemory

    def start(self, memory: Array, src_mask: Array, max_len: int) -> DecoderState:
        """The state before the first token: cross-attention's keys and values, and room for `max_len` tokens."""
        keys_and_values = [layer.cross_attention.keys_and_values(memory, memory) for layer in self.layers]
        return DecoderState([LayerState(K, V, max_len) for K, V in keys_and_values], src_mask)

    def step(self, x: Array, state: DecoderState) -> Array:
        """y at the next position only: (B, 1, d_model) -> (B, 1, d_model). Extends `state`."""
        for layer, layer_state in zip(self.layers, state.layers, strict=True):
            x = layer.step(x, layer_state, state.src_mask)
        return x if self.norm is None else self.norm.forward(x)[0]
