"""Cross-attention (§3.2.3): the decoder reads what the encoder has made.

What it should do:

    y = softmax(Q Kᵀ / sqrt(d_model)) V
    Q, K and V are linear maps W_Q, W_K, W_V, each of x or of memory, as the paper says
    x: (B, T_tgt, d_model) from the decoder, memory: (B, T_src, d_model) from the encoder, y like x
    backward returns the gradients of x and of memory

What was noticed: in a first trial, where sources and targets had the same length, the loss fell to
nearly zero, faster than anybody had seen before. Translations made with that model, a word at a
time, are nonsense.
"""

import math
from typing import Any, NamedTuple

from minitransformer import layers
from minitransformer.backend import Array, Generator
from minitransformer.module import Module


class CrossAttentionCache(NamedTuple):
    Q: Array  # (B, T_tgt, d_model)
    K: Array
    V: Array
    weights: Array
    linear: tuple[Any, Any, Any]  # the caches of W_Q, W_K, W_V


class CrossAttention(Module):
    """From the decoder's positions to the encoder's."""

    def __init__(self, d_model: int, seed: int = 0) -> None:
        self.W_Q = layers.Linear(d_model, d_model, bias=False, rng=seed)
        self.W_K = layers.Linear(d_model, d_model, bias=False, rng=seed + 1)
        self.W_V = layers.Linear(d_model, d_model, bias=False, rng=seed + 2)

    def forward(
        self, x: Array, memory: Array, rng: Generator | None = None
    ) -> tuple[Array, CrossAttentionCache]:
        Q, cache_Q = self.W_Q.forward(x)
        K, cache_K = self.W_K.forward(memory)
        V, cache_V = self.W_V.forward(memory)
        weights = layers.softmax(Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1]))
        return weights @ V, CrossAttentionCache(Q, K, V, weights, (cache_Q, cache_K, cache_V))

    def backward(self, dy: Array, cache: CrossAttentionCache) -> tuple[Array, Array]:
        Q, K, V, weights, (cache_Q, cache_K, cache_V) = cache
        dV = weights.swapaxes(-1, -2) @ dy
        dscores = layers.softmax_backward(dy @ V.swapaxes(-1, -2), weights) / math.sqrt(Q.shape[-1])
        dQ, dK = dscores @ K, dscores.swapaxes(-1, -2) @ Q
        dx = self.W_Q.backward(dQ, cache_Q)
        dmemory = self.W_K.backward(dK, cache_K) + self.W_V.backward(dV, cache_V)
        return dx, dmemory
