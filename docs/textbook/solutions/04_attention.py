"""Solutions to the exercises of chapter 4."""

import numpy as np

import minitransformer as mt
from minitransformer.layers import softmax, softmax_backward


def solution_3(weights):
    """The softmax's Jacobian diag(w) - w wᵀ of every row: (..., T) -> (..., T, T)."""
    T = weights.shape[-1]
    return np.eye(T) * weights[..., None] - weights[..., :, None] * weights[..., None, :]


def solution_4(ids, n):
    """Position i may attend to j = i - n + 1 … i: (B, T) -> (1, 1, T, T)."""
    i = np.arange(ids.shape[1])
    distance = i[:, None] - i
    return ((distance >= 0) & (distance < n))[None, None]


class AttentionByDistance:
    """softmax(Q Kᵀ / sqrt(d_k) + a[i - j]) V with a learned number for each distance i - j."""

    def __init__(self, T):
        self.a = mt.Parameter(np.zeros(2 * T - 1))
        self.index = np.arange(T)[:, None] - np.arange(T) + T - 1  # of the distance i - j in a

    def forward(self, Q, K, V):
        scores = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1]) + self.a.data[self.index]
        weights = softmax(scores)
        return weights @ V, (Q, K, V, weights)

    def backward(self, dcontext, cache):
        Q, K, V, weights = cache
        dV = weights.swapaxes(-1, -2) @ dcontext
        dscores = softmax_backward(dcontext @ V.swapaxes(-1, -2), weights)
        np.add.at(self.a.grad, self.index, dscores.sum((0, 1)))
        dscores = dscores / np.sqrt(Q.shape[-1])
        return dscores @ K, dscores.swapaxes(-1, -2) @ Q, dV
