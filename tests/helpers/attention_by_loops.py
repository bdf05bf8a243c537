"""Attention as the paper writes it, with loops."""

from __future__ import annotations

import math

import numpy as np


def attention_by_loops(Q, K, V, mask):
    """Equation 1, a query and a key at a time."""
    context = np.zeros((*Q.shape[:3], V.shape[-1]))
    for b, h, i in np.ndindex(*Q.shape[:3]):
        allowed = [j for j in range(K.shape[2]) if mask[b, 0, i, j]]
        scores = [math.exp(Q[b, h, i] @ K[b, h, j] / math.sqrt(Q.shape[-1])) for j in allowed]
        for j, score in zip(allowed, scores, strict=True):
            context[b, h, i] += score / sum(scores) * V[b, h, j]
    return context
