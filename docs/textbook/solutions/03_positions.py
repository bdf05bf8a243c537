"""Solutions to the exercises of chapter 3."""

import numpy as np

from minitransformer import layers


def solution_2(d_model):
    """`order` such that halves[:, order] is the paper's table, for halves = all sines, then all cosines."""
    i = np.arange(d_model // 2)
    order = np.empty(d_model, dtype=int)
    order[0::2] = i
    order[1::2] = d_model // 2 + i
    return order


class FractionsOfLength:
    """y = x + t / T at position t of T,   dx = dy"""

    def forward(self, x):
        _, T, d_model = x.shape
        return x + layers.fractions(T, d_model), None

    def backward(self, dy, cache):
        return dy


def solution_3(x):
    """How far the first T - 1 positions of `x`, (B, T, d_model), move when its last one is appended."""
    layer = FractionsOfLength()
    before, _ = layer.forward(x[:, :-1])
    after, _ = layer.forward(x)
    return abs(after[:, :-1] - before).max(axis=(0, 2))


def solution_4(d_model, base):
    """The first distance at which the dot product of two codes is below half of that at distance 0."""
    omega = 1 / base ** (2 * np.arange(d_model // 2) / d_model)
    distance = 0
    while np.cos(omega * distance).sum() >= d_model / 4:
        distance += 1
    return distance


def solution_5(x, pos):
    """A query or key at position `pos`, each pair of its numbers turned by the angle of its hand there: (..., d)."""
    angle = pos / 10000 ** (2 * np.arange(x.shape[-1] // 2) / x.shape[-1])
    sin, cos = np.sin(angle), np.cos(angle)
    first, second = x[..., 0::2], x[..., 1::2]
    return np.stack([cos * first + sin * second, -sin * first + cos * second], axis=-1).reshape(x.shape)
