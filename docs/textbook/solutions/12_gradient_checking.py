"""Solutions to the exercises of chapter 12."""

import numpy as np

import minitransformer as mt


def best_one_sided_step():
    """The best of many steps for the one-sided difference of exp at 1, and its relative error."""
    steps = np.logspace(-14, 0, 141)
    estimates = (np.exp(1 + steps) - np.exp(1)) / steps
    errors = abs(estimates / np.exp(1) - 1)
    # Single steps may be lucky: the errors of 11 neighbours, of which the largest counts.
    around = np.array([errors[max(i - 5, 0) : i + 6].max() for i in range(len(steps))])
    best = around.argmin()
    return steps[best], around[best]


class MeanLinear(mt.layers.Linear):
    """A linear layer that takes the mean of dW over the rows, where the sum belongs."""

    def backward(self, dy, cache):
        before = self.W.grad.copy()
        dx = super().backward(dy, cache)
        self.W.grad = before + (self.W.grad - before) / len(dy)
        return dx


class UnitLength:
    """y = x / |x|,   dx = (dy - y Σ dy · y) / |x|"""

    def forward(self, x):
        r = np.sqrt((x * x).sum(-1, keepdims=True))
        return x / r, (x / r, r)

    def backward(self, dy, cache):
        y, r = cache
        return (dy - y * (dy * y).sum(-1, keepdims=True)) / r
