"""§3.2.2: multi-head attention (figure 2, right)."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    array_module,
    generator,
    xavier_uniform,
    zeros,
)
from minitransformer.layers.attention_in_blocks import AttentionInBlocks, BlocksCache
from minitransformer.layers.linear import linear, linear_backward
from minitransformer.module import Module, Parameter
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs
from minitransformer.validation.settings import head_widths, layer_sizes


class MultiHeadAttentionCache(NamedTuple):
    query: Array  # (B, T_q, d_model)
    key: Array  # (B, T_k, d_model)
    value: Array  # (B, T_k, d_model)
    attention: BlocksCache
    context: Array  # (B, T_q, h·d_v) the heads side by side


class MultiHeadAttention(Module):
    """Multi-head attention (§3.2.2): h attentions side by side, each on its own projection of the input.

    forward   head_i = Attention(query W_Q[i], key W_K[i], value W_V[i]),   y = [head_1 … head_h] W_O
    backward  dcontext = dy W_Oᵀ,   dW_O = contextᵀ dy;   dQ, dK, dV from each head (equation 1)
              dquery = dQ W_Qᵀ,   dW_Q = queryᵀ dQ;   key and value likewise

    query, y: (B, T_q, d_model); key, value: (B, T_k, d_model). W_Q, W_K: (d_model, h·d_k) hold the matrices
    of all heads side by side, W_V: (d_model, h·d_v), W_O: (h·d_v, d_model). d_k and d_v default to
    d_model / h. Self-attention passes one x three times and adds the three gradients.
    There is no bias, as in the paper's formulas; `bias=True` adds b_Q, b_K, b_V, b_O.
    W_Q, W_K and W_V start as the parts of one Xavier-uniform matrix, and are therefore smaller than if each were drawn
    by itself. Larger ones mix the tokens of a post-norm stack until no head can tell them apart (docs/translation.md).
    """

    @layer_sizes
    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_k: int | None = None,
        d_v: int | None = None,
        dropout: float = 0.0,
        bias: bool = False,
        *,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        d_k, d_v = head_widths(d_model, n_heads, d_k, d_v)
        rng = generator(rng)
        self.n_heads = n_heads
        # three parts of one matrix, as in fairseq and PyTorch
        W, n = xavier_uniform(rng, d_model, n_heads * (2 * d_k + d_v), dtype), n_heads * d_k
        W_Q, W_K, W_V = (part.copy() for part in array_module(W).split(W, (n, 2 * n), axis=1))
        self.W_Q, self.W_K, self.W_V = Parameter(W_Q), Parameter(W_K), Parameter(W_V)
        self.W_O = Parameter(xavier_uniform(rng, n_heads * d_v, d_model, dtype))
        self.b_Q = Parameter(zeros((n_heads * d_k,), dtype)) if bias else None
        self.b_K = Parameter(zeros((n_heads * d_k,), dtype)) if bias else None
        self.b_V = Parameter(zeros((n_heads * d_v,), dtype)) if bias else None
        self.b_O = Parameter(zeros((d_model,), dtype)) if bias else None
        self.attention: Any = AttentionInBlocks(dropout)  # equation 1, with less memory

    @layer_inputs
    def forward(
        self, query: Array, key: Array, value: Array, mask: Array | None = None, rng: Generator | None = None
    ) -> tuple[Array, MultiHeadAttentionCache]:
        Q = split_heads(linear(query, self.W_Q, self.b_Q), self.n_heads)
        K, V = self.keys_and_values(key, value)
        heads, cache_attention = self.attention.forward(Q, K, V, mask, rng)
        context = merge_heads(heads)
        y = linear(context, self.W_O, self.b_O)
        return y, MultiHeadAttentionCache(query, key, value, cache_attention, context)

    def keys_and_values(self, key: Array, value: Array) -> tuple[Array, Array]:
        """K: (B, h, T_k, d_k) and V: (B, h, T_k, d_v), the part of forward that decoding keeps."""
        K = split_heads(linear(key, self.W_K, self.b_K), self.n_heads)
        V = split_heads(linear(value, self.W_V, self.b_V), self.n_heads)
        return K, V

    def attend(self, query: Array, K: Array, V: Array, mask: Array | None = None) -> Array:
        """y from K and V computed earlier, without dropout, for a few queries."""
        Q = split_heads(linear(query, self.W_Q, self.b_Q), self.n_heads)
        heads = self.attention.attend(Q, K, V, mask)
        return linear(merge_heads(heads), self.W_O, self.b_O)

    @gradient_of_shape(lambda layer, cache: cache.query.shape)
    def backward(self, dy: Array, cache: MultiHeadAttentionCache) -> tuple[Array, Array, Array]:
        dcontext = linear_backward(dy, cache.context, self.W_O, self.b_O)
        dQ, dK, dV = self.attention.backward(split_heads(dcontext, self.n_heads), cache.attention)
        dquery = linear_backward(merge_heads(dQ), cache.query, self.W_Q, self.b_Q)
        dkey = linear_backward(merge_heads(dK), cache.key, self.W_K, self.b_K)
        dvalue = linear_backward(merge_heads(dV), cache.value, self.W_V, self.b_V)
        return dquery, dkey, dvalue


def split_heads(x: Array, n_heads: int) -> Array:
    """(B, T, h·d) -> (B, h, T, d), a view."""
    B, T, width = x.shape
    return x.reshape(B, T, n_heads, width // n_heads).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """(B, h, T, d) -> (B, T, h·d), the inverse of split_heads."""
    B, h, T, d = x.shape
    return x.swapaxes(1, 2).reshape(B, T, h * d)
