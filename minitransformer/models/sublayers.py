"""The sub-layers of figure 1, as a TransformerConfig describes them."""

from __future__ import annotations

from minitransformer.backend import DTypeLike, Generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.add_norm import AddNorm
from minitransformer.layers.feed_forward import ACTIVATIONS, FeedForward
from minitransformer.layers.multi_head_attention import MultiHeadAttention
from minitransformer.layers.normalization import NORMS
from minitransformer.layers.rotary import RotaryAttention
from minitransformer.module import Module


def multi_head_attention(config: TransformerConfig, rng: Generator, dtype: DTypeLike) -> MultiHeadAttention:
    """Multi-head attention (§3.2.2) with the config's heads, widths, bias, attention dropout and rotary positions."""
    layer = MultiHeadAttention(
        config.d_model,
        config.n_heads,
        config.d_k,
        config.d_v,
        config.dropout_at("attention"),
        config.attention_bias,
        rng=rng,
        dtype=dtype,
    )
    if config.positions == "rotary":
        layer.attention = RotaryAttention(layer.attention)
    return layer


def feed_forward(config: TransformerConfig, rng: Generator, dtype: DTypeLike) -> FeedForward:
    """The feed-forward network (§3.3) with the config's d_ff, activation, and dropout of the activation's output."""
    return FeedForward(
        config.d_model,
        config.d_ff,
        config.dropout_at("relu"),
        Activation=ACTIVATIONS[config.activation],
        rng=rng,
        dtype=dtype,
    )


def add_norm(config: TransformerConfig, dtype: DTypeLike) -> AddNorm:
    """The post-norm residual step, with the config's residual dropout."""
    return AddNorm(config.d_model, config.dropout_at("residual"), config.eps, dtype, NORMS[config.norm_layer])


def layer_norm(config: TransformerConfig, dtype: DTypeLike) -> Module:
    """A LayerNorm (or RMSNorm) by itself, for pre-norm."""
    return NORMS[config.norm_layer](config.d_model, config.eps, dtype)
