"""Solutions to the exercises of chapter 1."""

import numpy as np

import minitransformer as mt


def solution_2(n, w):
    """How many layers of self-attention, w positions to each side, until all outputs depend on all inputs."""
    t = np.arange(n)
    mask = abs(t[:, None] - t) <= w
    reached, layers = mask, 1
    while not reached.all():
        reached, layers = reached @ mask, layers + 1
    return layers


def solution_3(n, d, vocab_size, rng):
    """The share of n random words that can be read back from one vector of d numbers."""
    E = rng.normal(size=(vocab_size, d))
    E /= np.linalg.norm(E, axis=1, keepdims=True)
    Q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    ids = rng.integers(vocab_size, size=n)

    h = np.zeros(d)
    for i in ids:
        h = h @ Q + E[i]

    right = 0
    for i in reversed(ids):
        right += np.argmax(E @ h) == i
        h = h @ Q.T  # one step back; what was read stays in it, as noise
    return right / n


class Leaky(mt.Module):
    """h_t = (1 - alpha) h_{t-1} + alpha tanh(x_t W + b + h_{t-1} U), h_0 = 0          x, h: (B, n, d)"""

    def __init__(self, d, alpha, rng, dtype="float64"):
        weights = [mt.layers.Linear(d, d, rng=rng, dtype=dtype) for _ in range(2)]
        self.W, self.b, self.U = weights[0].W, weights[0].b, weights[1].W
        self.alpha = alpha

    def forward(self, x, rng=None):
        a = x @ self.W.data + self.b.data
        u, h = np.empty_like(a), np.empty_like(a)
        h_t = np.zeros_like(a[:, 0])
        for t in range(a.shape[1]):
            u[:, t] = np.tanh(a[:, t] + h_t @ self.U.data)
            h_t = (1 - self.alpha) * h_t + self.alpha * u[:, t]
            h[:, t] = h_t
        return h, (x, u, h)

    def backward(self, dh, cache):
        x, u, h = cache
        da = np.empty_like(h)
        dh_t = da_t = np.zeros_like(h[:, 0])
        for t in reversed(range(h.shape[1])):
            dh_t = dh[:, t] + da_t @ self.U.data.T + (1 - self.alpha) * dh_t
            da_t = self.alpha * dh_t * (1 - u[:, t] * u[:, t])
            da[:, t] = da_t
        self.W.grad += np.einsum("bti,btj->ij", x, da)
        self.U.grad += np.einsum("bti,btj->ij", h[:, :-1], da[:, 1:])
        self.b.grad += da.sum((0, 1))
        return da @ self.W.data.T
