"""Scaled dot-product attention (§3.2.1, equation 1), one head, without a mask.

What it should do:

    forward   context = softmax(Q Kᵀ / sqrt(d_k)) V
              Q: (B, T_q, d_k), K: (B, T_k, d_k), V: (B, T_k, d_v), context: (B, T_q, d_v)
    backward  the gradients of Q, K and V

What was noticed: with settings at which the reference learns to reverse sequences, the loss of a
model with this layer rises from report to report. With the weights of the reference it gives the
reference's outputs.
"""

import math
from typing import NamedTuple

from minitransformer import layers
from minitransformer.backend import Array, Generator
from minitransformer.module import Module


class AttentionCache(NamedTuple):
    Q: Array  # (B, T_q, d_k)
    K: Array  # (B, T_k, d_k)
    V: Array  # (B, T_k, d_v)
    weights: Array  # (B, T_q, T_k)


class Attention(Module):
    """Weighted means of the rows of V."""

    def forward(
        self, Q: Array, K: Array, V: Array, rng: Generator | None = None
    ) -> tuple[Array, AttentionCache]:
        scores = Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1])
        weights = layers.softmax(scores)
        return weights @ V, AttentionCache(Q, K, V, weights)

    def backward(self, dcontext: Array, cache: AttentionCache) -> tuple[Array, Array, Array]:
        Q, K, V, weights = cache
        dV = weights.swapaxes(-1, -2) @ dcontext
        dweights = dcontext @ V.swapaxes(-1, -2)
        dscores = weights * (dweights - (dweights * weights).sum(-1, keepdims=True)) / math.sqrt(Q.shape[-1])
        dQ = dscores @ K
        dK = dscores.swapaxes(-1, -2) @ Q
        return dQ, dK, dV
