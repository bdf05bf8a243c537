"""Check the backward pass of layers of your own: one that is right, and two that are almost right.

A layer is a class with two methods, forward(x) -> (y, cache) and backward(dy, cache) -> dx. Its learned arrays are
`Parameter`s, and backward adds to their .grad. It need not derive from anything.

    python examples/check_your_own_layer.py
"""

import numpy as np

import minitransformer as mt


class RMSNorm:
    """y = gamma · x / rms(x), rms(x) = sqrt(mean(x²) + eps)                    (Zhang and Sennrich 2019)

    With x_hat = x / rms and dx_hat = dy · gamma:   dx = (dx_hat - x_hat · mean(dx_hat · x_hat)) / rms
    """

    def __init__(self, width):
        self.gamma = mt.Parameter(np.ones(width))

    def forward(self, x):
        rms = np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)  # x * x, not abs(x)**2: analytic
        x_hat = x / rms
        return self.gamma.data * x_hat, (x_hat, rms)

    def backward(self, dy, cache):
        x_hat, rms = cache
        self.gamma.grad += (dy * x_hat).sum((0, 1))
        dx_hat = dy * self.gamma.data
        return (dx_hat - x_hat * (dx_hat * x_hat).mean(-1, keepdims=True)) / rms


class AlmostRMSNorm(RMSNorm):
    """RMSNorm with two mistakes that training hardly shows: it merely gets a little worse."""

    def backward(self, dy, cache):
        x_hat, rms = cache
        self.gamma.grad += (dy * x_hat).mean(0).sum(0)  # a mean over the batch where a sum belongs
        # gamma comes last: right while it is 1, as it is before training
        dx = (dy - x_hat * (dy * x_hat).mean(-1, keepdims=True)) / rms
        return self.gamma.data * dx


class Bias:
    """y = x + b"""

    def __init__(self, width):
        self.b = mt.Parameter(np.zeros(width))

    def forward(self, x):
        return x + self.b.data, None

    def backward(self, dy, cache):
        self.b.grad = dy.sum((0, 1))  # = where += belongs: wrong as soon as the layer is used twice
        return dy


if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(3, 5, 8))
    for layer in (RMSNorm(8), AlmostRMSNorm(8), Bias(8)):
        print(mt.gradcheck(layer, x, method="complex"), end="\n\n")
    # a second opinion, which also works if forward is not analytic
    print(mt.gradcheck(RMSNorm(8), x, method="central"))
