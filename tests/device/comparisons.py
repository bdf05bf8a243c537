"""Kernel against formula: each function returns what the kernel gives on a device, and what the formula gives here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

import minitransformer as mt
from minitransformer import backend, kernels
from minitransformer.layers import activations
from minitransformer.layers import gelu as plain_gelu
from minitransformer.layers.dropout import apply_mask as plain_apply_mask
from minitransformer.training.loss import cross_entropy as plain_cross_entropy
from minitransformer.training.optimizer import adam as plain_adam

COMPARISONS: dict[str, Callable[..., tuple[list[Any], list[Any]]]] = {}
SHAPE = B, H, T_Q, T_K = 3, 2, 5, 41  # 41 keys: more than the 32 lanes of a warp
WIDTHS = [1, 32, 33, 1000]  # a row in one lane, in all 32 lanes of a warp, in one more, in many rounds
COUNTS = [1, 256, 257, 100_003]  # numbers in one thread, in all 256 of a block, in one more, in many blocks


def comparison(f):
    COMPARISONS[f.__name__] = f
    return f


def comparison_of_sizes(sizes):
    """The decorated function is a comparison for each of these sizes."""

    def register(f):
        for n in sizes:
            COMPARISONS[f"{f.__name__}_{n}"] = partial(f, n=n)
        return f

    return register


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


@comparison_of_sizes(WIDTHS)
def softmax_of_keys(xp, rng, dtype, n):
    scores, mask = rng.normal(size=(2, 3, 7, n)).astype(dtype), rng.random((2, 1, 7, n)) > 0.3
    return [kernels.softmax(xp.asarray(scores), xp.asarray(mask))], [activations.softmax(scores, mask)]


@comparison
def softmax_shows_what_is_no_number(xp, rng, dtype):
    found, expected = [], []
    for value in ("nan", "-inf", "inf"):
        scores, mask = rng.normal(size=SHAPE).astype(dtype), rng.random(SHAPE) > 0.4
        scores[1, 1, 2, 35], mask[1, 1, 2, 35] = value, True
        found.append(kernels.softmax(xp.asarray(scores), xp.asarray(mask)))
        expected.append(activations.softmax(scores, mask))
    return found, expected


@comparison
def softmax_without_a_mask_of_any_axes(xp, rng, dtype):
    scores = rng.normal(size=(7, 33)).astype(dtype)
    scores[2] = -np.inf  # zeros, as where a mask is False
    return [kernels.softmax(xp.asarray(scores), None)], [activations.softmax(scores)]


@comparison
def softmax_backward(xp, rng, dtype):
    weights = activations.softmax(rng.normal(size=SHAPE).astype(dtype))
    dweights = rng.normal(size=(B, H, T_K, T_Q)).astype(dtype).swapaxes(2, 3)  # in another memory order
    there = xp.asarray(np.ascontiguousarray(dweights.swapaxes(2, 3))).swapaxes(2, 3)
    return [kernels.softmax_backward(there, xp.asarray(weights))], [
        activations.softmax_backward(dweights, weights)
    ]


@comparison_of_sizes(WIDTHS)
def softmax_backward_of_keys(xp, rng, dtype, n):
    weights, dweights = (
        activations.softmax(rng.normal(size=(6, n)).astype(dtype)),
        rng.normal(size=(6, n)).astype(dtype),
    )
    found = kernels.softmax_backward(xp.asarray(dweights), xp.asarray(weights))
    return [found], [activations.softmax_backward(dweights, weights)]


def norm(rng, dtype, d_model=37):
    layer = mt.layers.LayerNorm(d_model, 1e-3, dtype)
    layer.gamma.data, layer.beta.data = (rng.normal(size=d_model).astype(dtype) for _ in range(2))
    return layer, (3 + 2 * rng.normal(size=(4, 3, d_model))).astype(dtype)


@comparison_of_sizes([*WIDTHS, 37])
def layer_norm_of_width(xp, rng, dtype, n):
    layer, x = norm(rng, dtype, n)
    x[0, 0] = 5  # a constant row
    y, cache = layer.forward(x)
    there = map(xp.asarray, (x, layer.gamma.data, layer.beta.data))
    return list(kernels.layer_norm(*there, layer.eps)), [y, *cache]


@comparison_of_sizes([*WIDTHS, 37])
def layer_norm_backward_of_width(xp, rng, dtype, n):
    layer, x = norm(rng, dtype, n)
    _, cache = layer.forward(x)
    dy = rng.normal(size=x.shape).astype(dtype)
    there = map(xp.asarray, (dy, *cache, layer.gamma.data))
    return [kernels.layer_norm_backward(*there)], [layer.backward(dy, cache)]


@comparison_of_sizes(COUNTS)
def apply_mask(xp, rng, dtype, n):
    x, kept = rng.normal(size=n).astype(dtype), rng.random(n) > 0.5
    return [kernels.apply_mask(xp.asarray(x), xp.asarray(kept), 0.25)], [plain_apply_mask(x, kept, 0.25)]


@comparison_of_sizes(COUNTS)
def gelu(xp, rng, dtype, n):
    x = (3 * rng.normal(size=n)).astype(dtype)
    x[:1] = 40
    return list(kernels.gelu(xp.asarray(x))), list(plain_gelu.gelu(x))


@comparison_of_sizes(COUNTS)
def gelu_tanh(xp, rng, dtype, n):
    x = (3 * rng.normal(size=n)).astype(dtype)
    return list(kernels.gelu_tanh(xp.asarray(x))), list(plain_gelu.gelu_tanh(x))


def plain_keep_mask(seed, p, n):
    """SplitMix64 in Python's integers, 16 bits of it for each number."""
    kept = []
    for i in range(n):
        z = (seed + (i // 4 + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        kept.append((z ^ z >> 31) >> 16 * (i % 4) & 0xFFFF >= p * 2**16)
    return np.array(kept)


@comparison_of_sizes([1, 67, 333])
def keep_mask(xp, rng, dtype, n):
    seed, p, x = backend.random_bits(copy.deepcopy(rng)), 6554 / 2**16, np.zeros((3, n), dtype)
    return [kernels.keep_mask(rng, p, xp.asarray(x))], [plain_keep_mask(seed, p, x.size).reshape(x.shape)]


@comparison_of_sizes([1, 2**16 - 1])
def keep_mask_of_extreme_probability(xp, rng, dtype, n):
    """p = n / 2^16, next to 0 and next to 1: about 2 of 2^17 numbers are dropped, or kept."""
    seed, p, x = backend.random_bits(copy.deepcopy(rng)), n / 2**16, np.zeros(2**17, dtype)
    expected = plain_keep_mask(seed, p, x.size)
    assert 0 < min(expected.sum(), (~expected).sum()) < 9
    return [kernels.keep_mask(rng, p, xp.asarray(x))], [expected]


@comparison
def add_rows(xp, rng, dtype):
    ids, rows = rng.integers(0, 6, (4, 9)), rng.normal(size=(4, 9, 5)).astype(dtype)
    target = rng.normal(size=(8, 5)).astype(dtype)
    there = xp.asarray(target.copy())
    kernels.add_rows(there, xp.asarray(ids), xp.asarray(rows))
    backend.add_rows(target, ids, rows)
    return [there], [target]


@comparison_of_sizes([1, 32, 33, 1000, 25_000])
def add_rows_of_ids(xp, rng, dtype, n):
    """Whole numbers, which add up without rounding in any order; a third of the ids are one, as padding is."""
    ids, rows = rng.integers(0, 37_000, n), rng.integers(-8, 9, (n, 3)).astype(dtype)
    ids[rng.random(n) < 0.3] = 0
    target = rng.integers(-8, 9, (37_000, 3)).astype(dtype)
    there = xp.asarray(target.copy())
    kernels.add_rows(there, xp.asarray(ids), xp.asarray(rows))
    backend.add_rows(target, ids, rows)
    return [there == xp.asarray(target)], [np.ones(target.shape, bool)]


def cross_entropy_of(size, eps_ls):
    def compare(xp, rng, dtype):
        logits = (size * rng.normal(size=(12, 71))).astype(dtype)
        target = rng.integers(1, 71, (12, 1))
        weight = (rng.random((12, 1)) > 0.3).astype(dtype) / 7
        there = map(xp.asarray, (logits, target, weight))
        return kernels.cross_entropy(*there, eps_ls), plain_cross_entropy(logits, target, weight, eps_ls)

    return compare


COMPARISONS["cross_entropy"] = cross_entropy_of(1, 0.1)
COMPARISONS["cross_entropy_without_smoothing"] = cross_entropy_of(1, 0.0)
COMPARISONS["cross_entropy_of_large_logits"] = cross_entropy_of(1e4, 0.1)


@comparison_of_sizes([1, 33, 37_000])
def cross_entropy_of_words(xp, rng, dtype, n):
    logits, target = rng.normal(size=(12, n)).astype(dtype), rng.integers(0, n, (12, 1))
    weight = (rng.random((12, 1)) > 0.3).astype(dtype) / 7
    there = map(xp.asarray, (logits, target, weight))
    return kernels.cross_entropy(*there, 0.1), plain_cross_entropy(logits, target, weight, 0.1)


@comparison
def cross_entropy_shows_what_is_no_number(xp, rng, dtype):
    """NaN or infinity at a word that counts, the right one or another, and at padding, which has the weight 0."""
    found, expected = [], []
    for value, row, word in product(("nan", "inf", "-inf"), (1, 2), (7, 40)):
        logits, target = rng.normal(size=(6, 71)).astype(dtype), np.full((6, 1), 7)
        weight = np.array([1, 1, 0, 1, 0, 1], dtype)[:, None] / 4
        logits[row, word] = value
        there = map(xp.asarray, (logits, target, weight))
        found += kernels.cross_entropy(*there, 0.1)
        expected += plain_cross_entropy(logits, target, weight, 0.1)
    return found, expected


@comparison_of_sizes(COUNTS)
def adam(xp, rng, dtype, n, number=float):
    p, m, v, g = (rng.normal(size=n).astype(dtype) for _ in range(4))
    v *= v
    there = [xp.asarray(x.copy()) for x in (p, m, v, g)]
    numbers = 0.0078125, 3, 0.875, 0.9375, 0.25  # lr, t, the betas, adam_eps: exact in float32
    lr, t, *rest = numbers
    kernels.adam(*there, number(lr), t, *map(number, rest))
    plain_adam(p, m, v, g, *numbers)
    return there[:3], [p, m, v]


@comparison
def adam_with_numpy_s_numbers(xp, rng, dtype):
    return adam(xp, rng, dtype, 300, np.float32)


@comparison
def numbers_of_other_types_than_float(xp, rng, dtype):
    """What a setting may be: whole, or of NumPy. (An eps of 1, and a share of a half that is dropped.)"""
    layer, x = norm(rng, dtype)
    there, kept = (
        list(map(xp.asarray, (x, layer.gamma.data, layer.beta.data))),
        xp.asarray(np.ones(x.shape, bool)),
    )
    found, expected = [], []
    for eps in (1, np.int64(1), np.uint64(1), np.float32(1), np.float64(1)):
        layer.eps = float(eps)
        y, cache = layer.forward(x)
        found += kernels.layer_norm(*there, eps)
        expected += [y, *cache]
    for p in (np.float32(0.5), np.float64(0.5)):
        found.append(kernels.apply_mask(there[0], kept, p))
        expected.append(2 * x)
    logits, target, weight = (
        rng.normal(size=(3, 71)).astype(dtype),
        np.full((3, 1), 7),
        np.ones((3, 1), dtype),
    )
    for eps_ls in (0, np.float32(0.25), np.float64(0.25)):
        found += kernels.cross_entropy(*map(xp.asarray, (logits, target, weight)), eps_ls)
        expected += plain_cross_entropy(logits, target, weight, float(eps_ls))
    return found, expected
