"""Sizes of layers are whole numbers, 1 or more."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import layers

MAKE = {
    "d_in": lambda n: layers.Linear(n, 3),
    "d_out": lambda n: layers.Linear(3, n),
    "d_model": lambda n: layers.LayerNorm(n),
    "d_ff": lambda n: layers.FeedForward(4, n),
    "n_heads": lambda n: layers.MultiHeadAttention(4, n),
    "d_k": lambda n: layers.MultiHeadAttention(4, 2, d_k=n),
    "vocab_size": lambda n: layers.Embedding(n, 3),
    "max_len": lambda n: layers.LearnedPositions(n, 4),
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "at least 1"), (-2, "at least 1"), (4.0, "a whole number"), (True, "a whole number"), ("4", "a whole number"),
     (2**40, "less than 1,048,576")],
)  # fmt: skip
def test_a_size_that_is_none_is_refused(name, size, expected):
    with pytest.raises(mt.ConfigError, match=f"^{name}: expected {expected}, got {size!r}"):
        MAKE[name](size)


def test_sizes_may_be_numbers_of_numpy():
    assert layers.Linear(np.int64(2), np.uint8(3)).W.shape == (2, 3)


@pytest.mark.parametrize("n", [-1, 0, 1.0, None])
def test_a_number_of_replicas_that_is_none_is_refused(n):
    config = mt.TransformerConfig(
        src_vocab_size=5, tgt_vocab_size=5, n_layers=1, d_model=4, n_heads=1, d_ff=4
    )
    with pytest.raises(mt.InputError, match=f"^Replicas: n: expected a whole number, 1 or more, got {n}"):
        mt.Replicas(mt.Transformer(config), n)


def test_a_softmax_of_a_single_number_is_refused():
    with pytest.raises(
        mt.InputError, match=r"^scores: expected an array with at least one axis, got the number 1\.0"
    ):
        layers.softmax(np.float64(1.0))
