"""Not in the paper: the layers of the encoder and the decoder with LayerNorm inside the residual branch.

Post-norm (the paper):  x = LayerNorm(x + Dropout(Sublayer(x)))
Pre-norm (this file):   x = x + Dropout(Sublayer(LayerNorm(x)))

The residual sum is then normalised only once, by a final LayerNorm at the end of the stack. So the gradient has a path
to the first layer past all blocks, and learning-rate warm-up matters less (Xiong et al. 2020). Read models/encoder.py
and models/decoder.py first: only the place of the norm differs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, Seed, generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.feed_forward import FeedForwardCache
from minitransformer.layers.multi_head_attention import MultiHeadAttentionCache
from minitransformer.layers.normalization import LayerNormCache, RMSNormCache
from minitransformer.models.decoder_state import KeysAndValues, LayerState
from minitransformer.models.sublayers import feed_forward, layer_norm, multi_head_attention
from minitransformer.module import Module
from minitransformer.validation.layers import layer_inputs


class PreNormEncoderLayerCache(NamedTuple):
    norm_1: LayerNormCache | RMSNormCache
    self_attention: MultiHeadAttentionCache
    dropout_1: DropoutCache
    norm_2: LayerNormCache | RMSNormCache
    feed_forward: FeedForwardCache
    dropout_2: DropoutCache


class PreNormEncoderLayer(Module):
    """Self-attention, then feed-forward, each inside a residual branch that begins with LayerNorm.

    forward   z = LayerNorm(x),   x = x + Dropout(MultiHead(z, z, z))
              z = LayerNorm(x),   y = x + Dropout(FeedForward(z))        x, y: (B, T_src, d_model)
    backward  dx: the same lines, last first
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        self.norm_1 = layer_norm(config, dtype)
        self.self_attention = multi_head_attention(config, rng, dtype)
        self.norm_2 = layer_norm(config, dtype)
        self.feed_forward = feed_forward(config, rng, dtype)
        self.dropout = Dropout(config.dropout_at("residual"))

    @layer_inputs
    def forward(
        self, x: Array, mask: Array | None = None, rng: Generator | None = None
    ) -> tuple[Array, PreNormEncoderLayerCache]:
        z, cache_norm_1 = self.norm_1.forward(x)
        attended, cache_attention = self.self_attention.forward(z, z, z, mask, rng)
        dropped, cache_1 = self.dropout.forward(attended, rng)
        x = x + dropped
        z, cache_norm_2 = self.norm_2.forward(x)
        fed, cache_fed = self.feed_forward.forward(z, rng)
        dropped, cache_2 = self.dropout.forward(fed, rng)
        y = x + dropped
        return y, PreNormEncoderLayerCache(
            cache_norm_1, cache_attention, cache_1, cache_norm_2, cache_fed, cache_2
        )

    def backward(self, dy: Array, cache: PreNormEncoderLayerCache) -> Array:
        dfed = self.dropout.backward(dy, cache.dropout_2)
        dz = self.feed_forward.backward(dfed, cache.feed_forward)
        dx = dy + self.norm_2.backward(dz, cache.norm_2)
        dattended = self.dropout.backward(dx, cache.dropout_1)
        dquery, dkey, dvalue = self.self_attention.backward(dattended, cache.self_attention)
        return dx + self.norm_1.backward(dquery + dkey + dvalue, cache.norm_1)

    def step(self, x: Array, state: KeysAndValues, mask: Any) -> Array:
        """y at the next positions only, for a stack under the causal mask; see Encoder.step."""
        z, _ = self.norm_1.forward(x)
        K, V = state.append(*self.self_attention.keys_and_values(z, z))
        x = x + self.self_attention.attend(z, K, V, mask)
        z, _ = self.norm_2.forward(x)
        fed, _ = self.feed_forward.forward(z)
        return x + fed


class PreNormDecoderLayerCache(NamedTuple):
    norm_1: LayerNormCache | RMSNormCache
    self_attention: MultiHeadAttentionCache
    dropout_1: DropoutCache
    norm_2: LayerNormCache | RMSNormCache
    cross_attention: MultiHeadAttentionCache
    dropout_2: DropoutCache
    norm_3: LayerNormCache | RMSNormCache
    feed_forward: FeedForwardCache
    dropout_3: DropoutCache


class PreNormDecoderLayer(Module):
    """Causal self-attention, attention over the encoder's output, feed-forward, each in a pre-norm branch.

    forward   z = LayerNorm(x),   x = x + Dropout(MultiHead(z, z, z))               under tgt_mask
              z = LayerNorm(x),   x = x + Dropout(MultiHead(z, memory, memory))     under src_mask
              z = LayerNorm(x),   y = x + Dropout(FeedForward(z))
    backward  (dx, dmemory): the same lines, last first

    x, y: (B, T_tgt, d_model), memory: (B, T_src, d_model).
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        self.norm_1 = layer_norm(config, dtype)
        self.self_attention = multi_head_attention(config, rng, dtype)
        self.norm_2 = layer_norm(config, dtype)
        self.cross_attention = multi_head_attention(config, rng, dtype)
        self.norm_3 = layer_norm(config, dtype)
        self.feed_forward = feed_forward(config, rng, dtype)
        self.dropout = Dropout(config.dropout_at("residual"))

    @layer_inputs
    def forward(
        self,
        x: Array,
        memory: Array,
        tgt_mask: Array | None = None,
        src_mask: Array | None = None,
        rng: Generator | None = None,
    ) -> tuple[Array, PreNormDecoderLayerCache]:
        z, cache_norm_1 = self.norm_1.forward(x)
        attended, cache_self = self.self_attention.forward(z, z, z, tgt_mask, rng)
        dropped, cache_1 = self.dropout.forward(attended, rng)
        x = x + dropped
        z, cache_norm_2 = self.norm_2.forward(x)
        attended, cache_cross = self.cross_attention.forward(z, memory, memory, src_mask, rng)
        dropped, cache_2 = self.dropout.forward(attended, rng)
        x = x + dropped
        z, cache_norm_3 = self.norm_3.forward(x)
        fed, cache_fed = self.feed_forward.forward(z, rng)
        dropped, cache_3 = self.dropout.forward(fed, rng)
        y = x + dropped
        return y, PreNormDecoderLayerCache(
            cache_norm_1,
            cache_self,
            cache_1,
            cache_norm_2,
            cache_cross,
            cache_2,
            cache_norm_3,
            cache_fed,
            cache_3,
        )

    def backward(self, dy: Array, cache: PreNormDecoderLayerCache) -> tuple[Array, Array]:
        dfed = self.dropout.backward(dy, cache.dropout_3)
        dz = self.feed_forward.backward(dfed, cache.feed_forward)
        dx = dy + self.norm_3.backward(dz, cache.norm_3)
        dattended = self.dropout.backward(dx, cache.dropout_2)
        dz, dkey, dvalue = self.cross_attention.backward(dattended, cache.cross_attention)
        dx, dmemory = dx + self.norm_2.backward(dz, cache.norm_2), dkey + dvalue
        dattended = self.dropout.backward(dx, cache.dropout_1)
        dquery, dkey, dvalue = self.self_attention.backward(dattended, cache.self_attention)
        return dx + self.norm_1.backward(dquery + dkey + dvalue, cache.norm_1), dmemory

    def step(self, x: Array, state: LayerState, src_mask: Array | None) -> Array:
        """y at the next position only, (B, 1, d_model). `state` has the earlier positions, and is extended."""
        z, _ = self.norm_1.forward(x)
        K, V = state.append(*self.self_attention.keys_and_values(z, z))
        x = x + self.self_attention.attend(z, K, V)
        z, _ = self.norm_2.forward(x)
        query = state.by_sentence(z)
        x = x + self.cross_attention.attend(query, state.memory_K, state.memory_V, src_mask).reshape(x.shape)
        z, _ = self.norm_3.forward(x)
        fed, _ = self.feed_forward.forward(z)
        return x + fed
