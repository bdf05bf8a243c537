"""Kernel against formula: each function returns what the kernel gives on a device, and what the formula gives here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer import backend, kernels
from minitransformer.layers import activations
from minitransformer.training.loss import by_the_formula

COMPARISONS: dict[str, Callable[..., tuple[list[Any], list[Any]]]] = {}
SHAPE = B, H, T_Q, T_K = 3, 2, 5, 41  # 41 keys: more than the 32 lanes of a warp


def comparison(f):
    COMPARISONS[f.__name__] = f
    return f


def masks(rng):
    """None, and one for each way to broadcast; rows of the last may attend to nothing."""
    random = rng.random(SHAPE) > 0.4
    random[1, 0, 2:4] = False
    causal = mt.layers.causal_mask(np.zeros((1, T_K), int))[:, :, :T_Q]
    return [None, random, random[:, :1], random[:, :, :1], random[:, :1, :1], random[:1], causal]


def softmax_of(size):
    def compare(xp, rng, dtype):
        found, expected = [], []
        for mask in masks(rng):
            scores = (size * rng.normal(size=SHAPE)).astype(dtype)
            there = None if mask is None else xp.asarray(mask)
            if (
                mask is not None and mask.shape[0] == 1 and mask.strides[2] < 0
            ):  # a view, as the model makes it
                there = mt.layers.causal_mask(xp.zeros((1, T_K), "int64"))[:, :, :T_Q]
            found.append(kernels.softmax(xp.asarray(scores), there))
            expected.append(activations.softmax(scores, mask))
        return found, expected

    return compare


COMPARISONS["softmax"] = softmax_of(1)
COMPARISONS["softmax_of_large_scores"] = softmax_of(1e4)


@comparison
def softmax_without_a_mask_of_any_axes(xp, rng, dtype):
    scores = rng.normal(size=(7, 33)).astype(dtype)
    return [kernels.softmax(xp.asarray(scores), None)], [activations.softmax(scores)]


@comparison
def softmax_backward(xp, rng, dtype):
    weights = activations.softmax(rng.normal(size=SHAPE).astype(dtype))
    dweights = rng.normal(size=(B, H, T_K, T_Q)).astype(dtype).swapaxes(2, 3)  # in another memory order
    there = xp.asarray(np.ascontiguousarray(dweights.swapaxes(2, 3))).swapaxes(2, 3)
    return [kernels.softmax_backward(there, xp.asarray(weights))], [
        activations.softmax_backward(dweights, weights)
    ]


def norm(rng, dtype, d_model=37):
    layer = mt.layers.LayerNorm(d_model, 1e-3, dtype)
    layer.gamma.data, layer.beta.data = (rng.normal(size=d_model).astype(dtype) for _ in range(2))
    return layer, (3 + 2 * rng.normal(size=(4, 3, d_model))).astype(dtype)


@comparison
def layer_norm(xp, rng, dtype):
    layer, x = norm(rng, dtype)
    x[0, 0] = 5  # a constant row
    y, cache = layer.forward(x)
    there = map(xp.asarray, (x, layer.gamma.data, layer.beta.data))
    return list(kernels.layer_norm(*there, layer.eps)), [y, *cache]


@comparison
def layer_norm_backward(xp, rng, dtype):
    layer, x = norm(rng, dtype)
    _, cache = layer.forward(x)
    dy = rng.normal(size=x.shape).astype(dtype)
    there = map(xp.asarray, (dy, *cache, layer.gamma.data))
    return list(kernels.layer_norm_backward(*there)), [layer.backward(dy, cache), dy * cache.x_hat]


@comparison
def keep(xp, rng, dtype):
    x, kept = rng.normal(size=(5, 7)).astype(dtype), rng.random((5, 7)) > 0.5
    p = 0.25
    return [kernels.keep(xp.asarray(x), xp.asarray(kept), p)], [x * kept / np.asarray(1 - p, dtype)]


def plain_keep_mask(seed, p, n):
    """SplitMix64 in Python's integers, 16 bits of it for each number."""
    kept = []
    for i in range(n):
        z = (seed + (i // 4 + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        kept.append((z ^ z >> 31) >> 16 * (i % 4) & 0xFFFF >= p * 2**16)
    return np.array(kept)


@comparison
def keep_mask(xp, rng, dtype):
    seed, p, x = int(rng.integers(2**64, dtype="uint64")), 6554 / 2**16, np.zeros((3, 67), dtype)
    return [kernels.keep_mask(seed, p, xp.asarray(x))], [plain_keep_mask(seed, p, x.size).reshape(x.shape)]


@comparison
def add_rows(xp, rng, dtype):
    ids, rows = rng.integers(0, 6, (4, 9)), rng.normal(size=(4, 9, 5)).astype(dtype)
    target = rng.normal(size=(8, 5)).astype(dtype)
    there = xp.asarray(target.copy())
    kernels.add_rows(there, xp.asarray(ids), xp.asarray(rows))
    backend.add_rows(target, ids, rows)
    return [there], [target]


def cross_entropy_of(size, eps_ls):
    def compare(xp, rng, dtype):
        logits = (size * rng.normal(size=(3, 4, 71))).astype(dtype)
        tgt_out = rng.integers(1, 71, (3, 4))
        weight = (rng.random((3, 4, 1)) > 0.3).astype(dtype) / 7
        there = map(xp.asarray, (logits, tgt_out, weight))
        return list(kernels.cross_entropy(*there, eps_ls)), list(
            by_the_formula(logits, tgt_out, weight, eps_ls)
        )

    return compare


COMPARISONS["cross_entropy"] = cross_entropy_of(1, 0.1)
COMPARISONS["cross_entropy_without_smoothing"] = cross_entropy_of(1, 0.0)
COMPARISONS["cross_entropy_of_large_logits"] = cross_entropy_of(1e4, 0.1)


@comparison
def adam(xp, rng, dtype):
    p, m, v, g = (rng.normal(size=300).astype(dtype) for _ in range(4))
    v *= v
    there = [xp.asarray(x.copy()) for x in (p, m, v, g)]
    beta1, beta2, rate, eps = 0.9, 0.98, 0.01, 1e-3
    kernels.adam(*there, (beta1, beta2), rate, eps)
    m = (beta1 * m + (1 - beta1) * g).astype(dtype)
    v = (beta2 * v + (1 - beta2) * g * g).astype(dtype)
    return there[:3], [(p - rate * m / (np.sqrt(v) + eps)).astype(dtype), m, v]
