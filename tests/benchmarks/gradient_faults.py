"""Twenty faults of backward passes, and five right functions that are hard to check, for a comparison of checkers.

The list was written down before any checker was run on it: most are faults of public Transformers that were written by
hand. Layers keep the contract of minitransformer/module.py, with parameters as they are before training (gamma = 1,
b = 0), since that is what a test finds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minitransformer as mt
from minitransformer.layers import softmax, softmax_backward


def x(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


class Example(NamedTuple):
    """A layer, its inputs, and what is wrong with it, or hard about it."""

    what: str
    layer: Any
    inputs: tuple[np.ndarray, ...]


class Elementwise:
    """y = f(x), dx = dy · derivative(x)."""

    def __init__(self, f: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> None:
        self.f, self.derivative = f, derivative

    def forward(self, x):
        return self.f(x), x

    def backward(self, dy, x):
        return dy * self.derivative(x)


class LayerNormWithGammaOutside(mt.layers.LayerNorm):
    def backward(self, dy, cache):
        return self.gamma.data * super().backward(dy / self.gamma.data, cache)


class Dropout:
    """Drops half of the numbers: the same ones in each forward; `mask_in_backward` says which in backward."""

    def __init__(self, mask_in_backward: Callable[[Any], Any]) -> None:
        self.mask_in_backward = mask_in_backward

    def forward(self, x):
        mask = np.random.default_rng(1).random(x.shape) > 0.5
        return 2 * x * mask, mask

    def backward(self, dy, mask):
        return 2 * dy * self.mask_in_backward(mask)


class OneDropoutTwice:
    """Two dropouts in a row, one object: backward finds the mask of the second in both."""

    def forward(self, x):
        rng = np.random.default_rng(1)
        for _ in range(2):
            self.mask = rng.random(x.shape) > 0.5
            x = 2 * x * self.mask
        return x, None

    def backward(self, dy, cache):
        return 4 * dy * self.mask * self.mask


class Softmax:
    def __init__(self, backward: Callable[..., Any]) -> None:
        self.change = backward

    def forward(self, x):
        y = softmax(x)
        return y, y

    def backward(self, dy, y):
        return self.change(dy, y)


class CrossEntropy:
    """The mean over all B · T positions, with label smoothing; `factor` and `smoothing` are those of backward."""

    def __init__(self, factor: float = 1.0, smoothing: bool = True) -> None:
        self.factor, self.smoothing = factor, smoothing
        self.targets = np.random.default_rng(2).integers(7, size=(3, 5))

    def target(self, eps: float) -> np.ndarray:
        return (1 - eps) * np.eye(7)[self.targets] + eps / 7

    def forward(self, logits):
        log_p = mt.layers.log_softmax(logits)
        return -(self.target(0.1) * log_p).sum() / 15, log_p

    def backward(self, dy, log_p):
        target = self.target(0.1 if self.smoothing else 0.0)
        return self.factor * dy * (np.exp(log_p) - target) / 15


class Embedding:
    """Rows of E by ids that repeat; `tied`: a projection back onto E, whose gradient is forgotten."""

    def __init__(self, tied: bool) -> None:
        self.E, self.tied, self.ids = mt.Parameter(x(7, 5, seed=3)), tied, np.array([2, 4, 2, 0])

    def forward(self, s):
        rows = self.E.data[self.ids] * s
        return (rows @ self.E.data.T if self.tied else rows), (rows, s)

    def backward(self, dy, cache):
        rows, s = cache
        drows = dy @ self.E.data if self.tied else dy
        if self.tied:
            np.add.at(self.E.grad, self.ids, drows * s)
        else:
            self.E.grad[self.ids] += drows * s
        return drows * rows / s


class Affine:
    """y = x W + b; `change` is made to dW, and db is `reduce` of dy."""

    def __init__(self, d_out: int, change: Any = np.asarray, reduce: Any = lambda dy: dy.sum(0)) -> None:
        self.W, self.b = mt.Parameter(x(4, d_out, seed=4)), mt.Parameter(np.zeros(d_out))
        self.change, self.reduce = change, reduce

    def forward(self, x):
        return x @ self.W.data + self.b.data, x

    def backward(self, dy, x):
        self.W.grad += self.change(x.T @ dy)
        self.b.grad += self.reduce(dy)
        return dy @ self.W.data.T


class Assigns(Affine):
    def backward(self, dy, x):
        self.W.grad = x.T @ dy
        self.b.grad = dy.sum(0)
        return dy @ self.W.data.T


class KeepsItsInput(Affine):
    def forward(self, x):
        self.x = x
        return super().forward(x)[0], None

    def backward(self, dy, cache):
        return super().backward(dy, self.x)


class WritesToDy(Affine):
    def backward(self, dy, x):
        dx = super().backward(dy, x)
        dy *= 0
        return dx


class SmallScale(Affine):
    """A bias that counts a ten-millionth; its gradient is twice what it should be."""

    def forward(self, x):
        return x @ self.W.data + 1e-7 * self.b.data, x

    def backward(self, dy, x):
        self.W.grad += x.T @ dy
        self.b.grad += 2e-7 * dy.sum(0)
        return dy @ self.W.data.T


class Attention(mt.layers.ScaledDotProductAttention):
    def __init__(self, change: Callable[..., Any]) -> None:
        super().__init__()
        self.change = change

    def backward(self, dy, cache):
        return self.change(*super().backward(dy, cache))


class UnbiasedNorm:
    """y = d / sqrt(Σ d² / (n - 1) + eps), d = x - mean(x); LayerNorm divides by n."""

    def forward(self, x):
        d = x - x.mean(-1, keepdims=True)
        std = np.sqrt((d * d).sum(-1, keepdims=True) / 3 + 1e-5)
        return d / std, (d, std)

    def backward(self, dy, cache):
        d, std = cache
        along = (dy * d).sum(-1, keepdims=True) / (3 * std * std)
        return (dy - dy.mean(-1, keepdims=True) - d * along) / std


Q, K, V = x(2, 1, 3, 4, seed=5), x(2, 1, 3, 4, seed=6), x(2, 1, 3, 4, seed=7)
X = x(3, 4)

FAULTS = [
    Example("LayerNorm: gamma outside the two means", LayerNormWithGammaOutside(4, dtype="float64"), (X,)),
    Example("dropout: backward with another mask", Dropout(lambda mask: mask[::-1]), (X,)),
    Example("dropout: backward without the mask", Dropout(np.ones_like), (X,)),
    Example("one Dropout object used twice, backward with the last mask", OneDropoutTwice(), (x(7, 5),)),
    Example(
        "softmax: gradient divided by the batch size",
        Softmax(lambda dy, y: softmax_backward(dy, y) / 3),
        (X,),
    ),
    Example("softmax: only the diagonal of the Jacobian", Softmax(lambda dy, y: dy * y * (1 - y)), (X,)),
    Example("loss: averaged over B · T, its gradient over B", CrossEntropy(factor=5), (x(3, 5, 7),)),
    Example("label smoothing: left out of the gradient", CrossEntropy(smoothing=False), (x(3, 5, 7),)),
    Example("embedding: ids that repeat count once", Embedding(tied=False), (x(4, 5),)),
    Example("tied embedding: the gradient of one use is forgotten", Embedding(tied=True), (x(4, 5),)),
    Example("bias: a mean over the batch where a sum belongs", Affine(5, reduce=lambda dy: dy.mean(0)), (X,)),
    Example("square W: its gradient transposed", Affine(4, np.transpose), (X,)),
    Example("parameters: grad = where += belongs", Assigns(5), (X,)),
    Example("attention: dK without 1/sqrt(d_k)", Attention(lambda dQ, dK, dV: (dQ, 2 * dK, dV)), (Q, K, V)),
    Example("what backward needs is kept on the layer, not in the cache", KeepsItsInput(5), (X,)),
    Example("backward writes to dy", WritesToDy(5), (X,)),
    Example("a gradient of the size 1e-7 is twice too large", SmallScale(5), (X,)),
    Example(
        "a constant with four digits, 0.7979 for sqrt(2/π), in backward alone",
        Elementwise(
            lambda x: np.sin(np.sqrt(2 / np.pi) * x), lambda x: 0.7979 * np.cos(np.sqrt(2 / np.pi) * x)
        ),
        (X,),
    ),
    Example(
        "clipping at 5: forgotten in backward, and no number is so large",
        Elementwise(lambda x: np.where(x > 5, 5 + 0 * x, x), np.ones_like),
        (X,),
    ),
    Example("LayerNorm: the unbiased deviation, forward and backward alike", UnbiasedNorm(), (X,)),
]

TIES = np.round(X)
ZEROS = np.where(abs(X) < 0.5, 0.0, X)


class Maximum:
    """The largest number of each row; the gradient goes to the first of them."""

    def forward(self, x):
        return x.max(-1), np.arange(4) == x.argmax(-1)[:, None]

    def backward(self, dy, first):
        return dy[:, None] * first


RIGHT = [
    Example(
        "ReLU of numbers some of which are 0",
        Elementwise(lambda x: np.maximum(x, 0), lambda x: x > 0),
        (ZEROS,),
    ),
    Example("maximum of rows with ties", Maximum(), (TIES,)),
    Example("sin(x) + 1e6", Elementwise(lambda x: np.sin(x) + 1e6, np.cos), (X,)),
    Example("log(x), x about 1e-3", Elementwise(np.log, lambda x: 1 / x), (1e-3 * (1 + abs(X)),)),
    Example("x², x about 1e8", Elementwise(lambda x: x * x, lambda x: 2 * x), (1e8 * X,)),
]
