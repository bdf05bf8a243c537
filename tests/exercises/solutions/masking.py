"""Attention with a mask (§3.2.3): nothing is taken from hidden keys.

What it should do:

    forward   context = weights V, where weights are the softmax of Q Kᵀ / sqrt(d_k) among the keys at which the
              mask is True, and 0 at all others; a query that may see no key at all gets a context of zeros
              Q: (B, T_q, d_k), K: (B, T_k, d_k), V: (B, T_k, d_v), mask: (B, T_q, T_k) booleans
    backward  the gradients of Q, K and V, finite always

What was noticed: training goes well until, in one batch, the loss becomes NaN, and with it all
weights. It is the same batch each time. One of its sentences is empty: padding and nothing else.
"""

import math
from typing import NamedTuple

from minitransformer import layers
from minitransformer.backend import Array, Generator, array_module, silent_overflow
from minitransformer.module import Module


@silent_overflow()
def softmax(scores: Array) -> Array:
    """exp(scores) / Σ exp(scores) over the last axis."""
    exps = array_module(scores).exp(scores - scores.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


class MaskedAttentionCache(NamedTuple):
    Q: Array  # (B, T_q, d_k)
    K: Array  # (B, T_k, d_k)
    V: Array  # (B, T_k, d_v)
    weights: Array  # (B, T_q, T_k)


class MaskedAttention(Module):
    """Weighted means of the rows of V that may be seen."""

    def forward(
        self, Q: Array, K: Array, V: Array, mask: Array, rng: Generator | None = None
    ) -> tuple[Array, MaskedAttentionCache]:
        scores = Q @ K.swapaxes(-1, -2) / math.sqrt(Q.shape[-1])
        scores[~mask] = -math.inf
        scores[~mask.any(-1)] = 0  # a query without keys: any finite score, its weights become 0 below
        weights = softmax(scores) * mask
        return weights @ V, MaskedAttentionCache(Q, K, V, weights)

    def backward(self, dcontext: Array, cache: MaskedAttentionCache) -> tuple[Array, Array, Array]:
        Q, K, V, weights = cache
        dV = weights.swapaxes(-1, -2) @ dcontext
        dweights = dcontext @ V.swapaxes(-1, -2)
        dscores = layers.softmax_backward(dweights, weights) / math.sqrt(Q.shape[-1])
        dQ = dscores @ K
        dK = dscores.swapaxes(-1, -2) @ Q
        return dQ, dK, dV
