"""Random inputs on which a wrong formula shows.

Every axis has a different size, so that a transposed axis is a shape error. Ids repeat, sentences end in padding, and
masks leave a row with nothing to attend to.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from minitransformer.backend import Array, Generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.masks import causal_mask
from minitransformer.one_stack_config import OneStackConfig

DROPOUT = 0.3


class Sizes(NamedTuple):
    """The length of every axis that occurs in the paper; no two are equal."""

    B: int = 2
    T_q: int = 5
    T_k: int = 7
    h: int = 3
    d_k: int = 4
    d_v: int = 6
    d_model: int = 8
    d_ff: int = 11
    V_src: int = 13
    V_tgt: int = 17


def random_mask(rng: Generator, *shape: int) -> Array:
    """A boolean mask with about a third of its entries False, and one row all False."""
    mask = rng.random(shape) > 0.3
    mask[(0,) * (len(shape) - 1)] = False
    return mask


def random_ids(rng: Generator, batch: int, length: int, vocab_size: int, pad_id: int = 0) -> Array:
    """Ids with duplicates, and padding at the end of all rows but the first."""
    ids = rng.integers(vocab_size - 1, size=(batch, length))
    ids += ids >= pad_id  # any id but pad_id
    ids[:, 1] = ids[:, 0]
    for row in range(1, batch):
        ids[row, length - rng.integers(1, length) :] = pad_id
    return ids


def tiny_config(sizes: Sizes, **changes: Any) -> TransformerConfig:
    """A model in which no two sizes are equal, with dropout everywhere."""
    settings: dict[str, Any] = {
        "src_vocab_size": sizes.V_src,
        "tgt_vocab_size": sizes.V_tgt,
        "n_layers": 2,
        "d_model": sizes.d_model,
        "n_heads": sizes.h,
        "d_ff": sizes.d_ff,
        "d_k": sizes.d_k,
        "d_v": sizes.d_v,
        "dropout": DROPOUT,
        "dropout_on": ("embedding", "residual", "attention", "relu"),
        "max_len": 19,
        "tie_embeddings": "target_output",
    }
    return TransformerConfig(**{**settings, **changes})


def tiny_stack(sizes: Sizes, family: str, **changes: Any) -> OneStackConfig:
    """A model of one stack: an encoder with two vocabularies, or a decoder, which has one."""
    V = sizes.V_src if family == "decoder-only" else sizes.V_tgt
    tie = {"tie_embeddings": family == "decoder-only"}
    settings = asdict(tiny_config(sizes, tgt_vocab_size=V, tie_embeddings=False)) | tie
    return OneStackConfig(**{**settings, "family": family, **changes})


def positions(s: Sizes, rng: Generator) -> Array:
    """x: (B, T_q, d_model)"""
    return rng.normal(size=(s.B, s.T_q, s.d_model))


def away_from_zero(s: Sizes, rng: Generator) -> Array:
    """x: (B, T_q, d_model), no entry near ReLU's kink"""
    return rng.uniform(0.1, 2, (s.B, s.T_q, s.d_model)) * rng.choice([-1.0, 1.0], (s.B, s.T_q, s.d_model))


def scores(s: Sizes, rng: Generator) -> tuple[Array, Array]:
    """scores: (B, h, T_q, T_k), and a mask"""
    return rng.normal(size=(s.B, s.h, s.T_q, s.T_k)), random_mask(rng, s.B, 1, s.T_q, s.T_k)


def heads(s: Sizes, rng: Generator) -> tuple[Array, Array, Array]:
    """Q, K, V"""
    widths = ((s.T_q, s.d_k), (s.T_k, s.d_k), (s.T_k, s.d_v))
    Q, K, V = (rng.normal(size=(s.B, s.h, *width)) for width in widths)
    return Q, K, V


def masked_heads(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """Q, K, V, mask"""
    return *heads(s, rng), random_mask(rng, s.B, 1, s.T_q, s.T_k)


def placed_heads(s: Sizes, rng: Generator) -> tuple[Any, ...]:
    """Q, K, V, mask, query_at, key_at: an even number of pairs, and two positions of each token"""
    s = s._replace(d_k=4 * (1 + s.d_k % 2))
    Q, K, V, mask = masked_heads(s, rng)
    query_at = rng.integers(0, 19, (1, s.T_q, 1)).repeat(2, -1)
    key_at = rng.integers(0, 19, (s.B, s.T_k, 2))
    return Q, K, V, mask, query_at, key_at


def cross(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """query, key, value, mask"""
    key, value = memory(s, rng), memory(s, rng)
    return positions(s, rng), key, value, random_mask(rng, s.B, 1, 1, s.T_k)


def memory(s: Sizes, rng: Generator) -> Array:
    """memory, the encoder's output: (B, T_k, d_model)"""
    return rng.normal(size=(s.B, s.T_k, s.d_model))


def encoder_inputs(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """x, mask"""
    return memory(s, rng), random_mask(rng, s.B, 1, 1, s.T_k)


def decoder_inputs(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """x, memory, tgt_mask, src_mask"""
    x = positions(s, rng)
    return x, memory(s, rng), causal_mask(x[..., 0]), random_mask(rng, s.B, 1, 1, s.T_k)


def sentences(s: Sizes, rng: Generator) -> tuple[Array, Array]:
    """src_ids, tgt_in"""
    return random_ids(rng, s.B, s.T_k, s.V_src), random_ids(rng, s.B, s.T_q, s.V_tgt)


def sentences_and_targets(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """src_ids, tgt_in, tgt_out"""
    return *sentences(s, rng), random_ids(rng, s.B, s.T_q, s.V_tgt)


def of_one_vocabulary(s: Sizes, rng: Generator) -> tuple[Array, ...]:
    """src_ids, tgt_in, tgt_out, all of V_src words"""
    return sentences_and_targets(s._replace(V_tgt=s.V_src), rng)


def source(s: Sizes, rng: Generator) -> Array:
    """ids: (B, T_q)"""
    return random_ids(rng, s.B, s.T_q, s.V_src)


def source_and_segments(s: Sizes, rng: Generator) -> tuple[Array, Array]:
    """ids, segments: (B, T_q), segments 0 and 1"""
    ids = source(s, rng)
    return ids, rng.integers(2, size=ids.shape)


def source_and_targets(s: Sizes, rng: Generator) -> tuple[Array, Array]:
    """ids, targets: (B, T_q)"""
    return source(s, rng), random_ids(rng, s.B, s.T_q, min(s.V_src, s.V_tgt))


def logits_and_targets(s: Sizes, rng: Generator) -> tuple[Array, Array]:
    """logits, tgt_out"""
    return rng.normal(size=(s.B, s.T_q, s.V_tgt)), random_ids(rng, s.B, s.T_q, s.V_tgt)


def rows(s: Sizes, rng: Generator) -> Array:
    """x: (T_q, d_model), without a batch axis"""
    return positions(s, rng)[0]
