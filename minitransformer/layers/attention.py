"""§3.2.1: scaled dot-product attention (figure 2, left)."""

from __future__ import annotations

import math
from typing import NamedTuple

from minitransformer.backend import Array, Generator
from minitransformer.layers.activations import softmax, softmax_backward
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.module import Module
from minitransformer.products import product
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import attention_inputs


def attention_scores(Q: Array, K: Array) -> Array:
    """Q Kᵀ / sqrt(d_k): (B, h, T_q, d_k), (B, h, T_k, d_k) -> (B, h, T_q, T_k)."""
    # Q is divided rather than the product, which is larger than Q if there are more keys than d_k
    return product(Q / math.sqrt(Q.shape[-1]), K.swapaxes(-1, -2))


def attention_weights(Q: Array, K: Array, mask: Array | None) -> Array:
    """softmax(Q Kᵀ / sqrt(d_k)) where the mask is True, 0 elsewhere: (B, h, T_q, T_k)."""
    return softmax(attention_scores(Q, K), mask)


class AttentionCache(NamedTuple):
    Q: Array  # (B, h, T_q, d_k)
    K: Array  # (B, h, T_k, d_k)
    V: Array  # (B, h, T_k, d_v)
    weights: Array  # (B, h, T_q, T_k) the softmax's output; the scores are not needed any more
    dropout: DropoutCache
    dropped: Array  # (B, h, T_q, T_k) weights after dropout (the same array if nothing was dropped)


class ScaledDotProductAttention(Module):
    """Scaled dot-product attention (§3.2.1, equation 1).

    forward   weights = softmax(Q Kᵀ / sqrt(d_k)) where the mask is True, 0 elsewhere
              dropped = Dropout(weights),   context = dropped V
    backward  dV = droppedᵀ dcontext,   dweights = kept · dcontext Vᵀ / (1 - p)
              dscores = weights · (dweights - Σ dweights · weights)                   the sum over the keys
              dQ = dscores K / sqrt(d_k),   dK = dscoresᵀ Q / sqrt(d_k)

    Q: (B, h, T_q, d_k), K: (B, h, T_k, d_k), V: (B, h, T_k, d_v), context: (B, h, T_q, d_v);
    mask: boolean, broadcasts to (B, h, T_q, T_k). A query that may attend to nothing gets zeros. Dropout of the weights
    (p, and what it `kept`) is not in the paper, though its reference implementation can do it.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        self.dropout = Dropout(dropout)

    @checked(attention_inputs)
    def forward(
        self, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
    ) -> tuple[Array, AttentionCache]:
        weights = attention_weights(Q, K, mask)
        dropped, cache_dropout = self.dropout.forward(weights, rng)
        return dropped @ V, AttentionCache(Q, K, V, weights, cache_dropout, dropped)

    @gradient_of_shape(lambda layer, cache: (*cache.Q.shape[:-1], cache.V.shape[-1]))
    def backward(self, dcontext: Array, cache: AttentionCache) -> tuple[Array, Array, Array]:
        Q, K, V, weights, cache_dropout, dropped = cache
        scale = 1 / math.sqrt(Q.shape[-1])
        dV = dropped.swapaxes(-1, -2) @ dcontext
        dweights = self.dropout.backward(dcontext @ V.swapaxes(-1, -2), cache_dropout)
        dscores = softmax_backward(dweights, weights)
        dQ = dscores @ K * scale
        dK = dscores.swapaxes(-1, -2) @ Q * scale
        return dQ, dK, dV
