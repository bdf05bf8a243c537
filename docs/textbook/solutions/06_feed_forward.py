"""Solutions to the exercises of chapter 6."""

import numpy as np

import minitransformer as mt


def sorter():
    """A feed-forward network that writes (min, max) of its two inputs."""
    block = mt.layers.FeedForward(d_model=2, d_ff=4, dtype="float64")
    # hidden: max(0, s), max(0, -s), max(0, d), max(0, -d)
    block.W_1.data = np.array([[1, -1, 1, -1], [1, -1, -1, 1]])
    block.W_2.data = np.array([[1, 1], [-1, -1], [-1, 1], [-1, 1]]) / 2
    return block


def break_even_length(d_model, d_ff):
    """The length from which on self-attention takes more multiplications than the feed-forward network."""
    return d_ff - 2 * d_model


class SiLU:
    """y = x · sigmoid(x),   dx = dy · (s + y · (1 - s)) with s = sigmoid(x)"""

    def forward(self, x):
        s = 1 / (1 + np.exp(-x))
        return x * s, (x * s, s)

    def backward(self, dy, cache):
        y, s = cache
        return dy * (s + y * (1 - s))
