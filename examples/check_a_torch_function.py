"""Check a torch.autograd.Function of your own: as a function of NumPy arrays, by central differences.

    pip install torch && python examples/check_a_torch_function.py

torch.autograd.gradcheck only says that some number is wrong. This report says which gradient is wrong, and what the
mistake looks like.
"""

import numpy as np
import torch

import minitransformer as mt


class Swish(torch.autograd.Function):
    """y = x · sigmoid(b x), dx = dy · (s + b x s (1 - s)), db = Σ dy · x² s (1 - s), where s = sigmoid(b x)."""

    @staticmethod
    def forward(ctx, x, b):
        s = torch.sigmoid(b * x)
        ctx.save_for_backward(x, b, s)
        return x * s

    @staticmethod
    def backward(ctx, dy):
        x, b, s = ctx.saved_tensors
        return dy * (s + b * x * s * (1 - s)), (dy * x * x * s * (1 - s)).sum()


class SwishForgetsB(Swish):
    """A factor b is missing: right while b is 1, as it is before training."""

    @staticmethod
    def backward(ctx, dy):
        x, _, s = ctx.saved_tensors
        return dy * (s + x * s * (1 - s)), (dy * x * x * s * (1 - s)).sum()


def in_numpy(function):
    """f and f_backward for `gradcheck_function`: f keeps the tensors and the graph in its cache."""

    def f(*arrays):
        inputs = [torch.from_numpy(np.array(a)).requires_grad_() for a in arrays]
        y = function.apply(*inputs)
        return y.detach().numpy(), (y, inputs)

    def f_backward(dy, cache):
        y, inputs = cache
        gradients = torch.autograd.grad(y, inputs, torch.from_numpy(dy), retain_graph=True)
        return [g.numpy() for g in gradients]

    return f, f_backward


if __name__ == "__main__":
    x, b = np.random.default_rng(0).normal(size=(3, 5)), np.array(0.7)
    for function in (Swish, SwishForgetsB):
        print(function.__name__, mt.gradcheck_function(*in_numpy(function), x, b), sep="\n", end="\n\n")
