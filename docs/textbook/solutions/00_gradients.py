"""Solutions to the exercises of chapter 0."""

import math

import numpy as np

import minitransformer as mt


class Tanh(mt.Module):
    """y = tanh(x)"""

    def forward(self, x, rng=None):
        y = np.tanh(x)
        return y, y

    def backward(self, dy, y):
        return dy * (1 - y * y)


class Centre(mt.Module):
    """y = x minus the mean of its last axis"""

    def forward(self, x, rng=None):
        return x - x.mean(-1, keepdims=True), None

    def backward(self, dy, cache=None):
        return dy - dy.mean(-1, keepdims=True)


def solution_5(hidden, steps=1000, lr=0.5):
    """The loss after training on the four pairs: one linear map if hidden is 0, else two with a ReLU between."""
    pairs = np.array([[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]], dtype=float)  # (B, T, d) = (4, 1, 2)
    agree = np.array([[1], [0], [0], [1]])
    if hidden:
        first = mt.layers.Linear(2, hidden, rng=0, dtype="float64")
        layers = [first, mt.layers.ReLU(), mt.layers.Linear(hidden, 2, rng=1, dtype="float64")]
    else:
        layers = [mt.layers.Linear(2, 2, rng=0, dtype="float64")]
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls=0.0, pad_id=-1)
    for _ in range(steps):
        y, caches = pairs, []
        for layer in layers:
            y, cache = layer.forward(y)
            caches.append(cache)
        loss, loss_cache = loss_fn.forward(y, agree)
        dy = loss_fn.backward(loss_cache)
        for layer, cache in zip(reversed(layers), reversed(caches), strict=True):
            layer.zero_grad()
            dy = layer.backward(dy, cache)
            for parameter in layer.parameters().values():
                parameter.data -= lr * parameter.grad
    return float(loss)


class Number:
    """A number that remembers what it was computed from: (another number, the derivative with respect to it)."""

    def __init__(self, value, parents=()):
        self.value, self.parents, self.grad = value, parents, 0.0

    def __add__(self, other):
        other = other if isinstance(other, Number) else Number(other)
        return Number(self.value + other.value, [(self, 1.0), (other, 1.0)])

    def __mul__(self, other):
        other = other if isinstance(other, Number) else Number(other)
        return Number(self.value * other.value, [(self, other.value), (other, self.value)])

    __radd__, __rmul__ = __add__, __mul__

    def exp(self):
        value = math.exp(self.value)
        return Number(value, [(self, value)])

    def log(self):
        return Number(math.log(self.value), [(self, 1 / self.value)])

    def backward(self):
        order, seen = [], set()

        def visit(number):  # lists each number after those that it was computed from
            if number not in seen:
                seen.add(number)
                for parent, _ in number.parents:
                    visit(parent)
                order.append(number)

        visit(self)
        self.grad = 1.0
        for number in reversed(order):
            for parent, derivative in number.parents:
                parent.grad += number.grad * derivative
