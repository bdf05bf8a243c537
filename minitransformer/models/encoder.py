"""§3.1: the encoder, the left half of figure 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, Seed, generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.add_norm import AddNormCache
from minitransformer.layers.feed_forward import FeedForwardCache
from minitransformer.layers.multi_head_attention import MultiHeadAttentionCache
from minitransformer.models.decoder_state import KeysAndValues
from minitransformer.models.pre_norm import PreNormEncoderLayer
from minitransformer.models.recompute import Keep, backward_block, forward_block
from minitransformer.models.sublayers import add_norm, feed_forward, layer_norm, multi_head_attention
from minitransformer.module import Module
from minitransformer.validation.layers import layer_inputs


class EncoderLayerCache(NamedTuple):
    self_attention: MultiHeadAttentionCache
    add_norm_1: AddNormCache
    feed_forward: FeedForwardCache
    add_norm_2: AddNormCache


class EncoderLayer(Module):
    """Self-attention, then feed-forward, each followed by Add & Norm.

    forward   x = LayerNorm(x + Dropout(MultiHead(x, x, x)))
              y = LayerNorm(x + Dropout(FeedForward(x)))                x, y: (B, T_src, d_model)
    backward  dx: the same lines, last first; where x is used more than once, its gradients add up
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        self.self_attention = multi_head_attention(config, rng, dtype)
        self.add_norm_1 = add_norm(config, dtype)
        self.feed_forward = feed_forward(config, rng, dtype)
        self.add_norm_2 = add_norm(config, dtype)

    @layer_inputs
    def forward(
        self, x: Array, mask: Array | None = None, rng: Generator | None = None
    ) -> tuple[Array, EncoderLayerCache]:
        attended, cache_attention = self.self_attention.forward(x, x, x, mask, rng)
        x, cache_add_norm_1 = self.add_norm_1.forward(x, attended, rng)
        fed, cache_feed_forward = self.feed_forward.forward(x, rng)
        y, cache_add_norm_2 = self.add_norm_2.forward(x, fed, rng)
        return y, EncoderLayerCache(cache_attention, cache_add_norm_1, cache_feed_forward, cache_add_norm_2)

    def backward(self, dy: Array, cache: EncoderLayerCache) -> Array:
        dx, dfed = self.add_norm_2.backward(dy, cache.add_norm_2)
        dx = dx + self.feed_forward.backward(dfed, cache.feed_forward)
        dx, dattended = self.add_norm_1.backward(dx, cache.add_norm_1)
        dquery, dkey, dvalue = self.self_attention.backward(dattended, cache.self_attention)
        return dx + dquery + dkey + dvalue

    def step(self, x: Array, state: KeysAndValues, mask: Any) -> Array:
        """y at the next positions only, for a stack under the causal mask; see Encoder.step."""
        K, V = state.append(*self.self_attention.keys_and_values(x, x))
        x, _ = self.add_norm_1.forward(x, self.self_attention.attend(x, K, V, mask))
        fed, _ = self.feed_forward.forward(x)
        y, _ = self.add_norm_2.forward(x, fed)
        return y


class EncoderCache(NamedTuple):
    layers: list[Any]  # of each layer, depending on `keep`: its cache, its inputs, or None
    norm: Any  # of the final LayerNorm, which only pre-norm has


class Encoder(Module):
    """A stack of N identical layers.

    forward   y = layer_N(… layer_1(x))               x, y: (B, T_src, d_model); mask as for attention
    backward  dx = layer_1'(… layer_N'(dy))

    `keep` says what is kept for backward: the layers' "caches", their "inputs" only (backward then runs each forward
    again), or "nothing". With norm="pre" the layers are pre-norm and a final LayerNorm follows them.
    """

    def __init__(self, config: TransformerConfig, *, rng: Seed = None, dtype: DTypeLike = "float32") -> None:
        rng = generator(rng)
        pre_norm = config.norm == "pre"
        Layer = PreNormEncoderLayer if pre_norm else EncoderLayer
        self.layers = [Layer(config, rng=rng, dtype=dtype) for _ in range(config.n_layers)]
        self.norm = layer_norm(config, dtype) if pre_norm else None

    @layer_inputs
    def forward(
        self, x: Array, mask: Array | None = None, rng: Generator | None = None, keep: Keep = "caches"
    ) -> tuple[Array, EncoderCache]:
        kept_of_layers, cache_norm = [], None
        for layer in self.layers:
            x, kept = forward_block(layer, x, mask, rng=rng, keep=keep)
            kept_of_layers.append(kept)
        if self.norm is not None:
            x, cache_norm = self.norm.forward(x)
        return x, EncoderCache(kept_of_layers, cache_norm)

    def backward(self, dy: Array, cache: EncoderCache) -> Array:
        dx = dy if self.norm is None else self.norm.backward(dy, cache.norm)
        for layer, kept in zip(reversed(self.layers), reversed(cache.layers), strict=True):
            dx = backward_block(layer, dx, kept)
        return dx

    def step(self, x: Array, states: Sequence[KeysAndValues], mask: Any) -> Array:
        """y at the next T positions only, if no earlier one attends to them: (B, T, d_model) -> (B, T, d_model).

        `states`, one for each layer, have the keys and values of the earlier positions, and are extended.
        """
        for layer, state in zip(self.layers, states, strict=True):
            x = layer.step(x, state, mask)
        return x if self.norm is None else self.norm.forward(x)[0]
