"""What the laws share: every Module, and models of any shape.

Sizes are drawn by Hypothesis, the numbers by a generator whose seed Hypothesis draws. All axes of a shape have
different sizes (primes, from 2 up), so that a transposed axis is a shape error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from support import randomise

import minitransformer as mt
from minitransformer import layers, models
from minitransformer.checks import CASES, Case, Sizes, random_ids, tiny_config
from minitransformer.layers import causal_mask
from minitransformer.module import Module
from minitransformer.testing import strategies

SIZES = st.builds(
    lambda primes, d_model: Sizes(*primes[:6], d_model, primes[6], V_src=19, V_tgt=23),
    strategies.sizes(7),
    st.sampled_from([4, 6, 8, 10]),  # even, for the sinusoids
)

both_norms = pytest.mark.parametrize("norm", ["post", "pre"])
few = settings(max_examples=max(3, settings.default.max_examples // 3))  # for what runs on every Module


# ---- every Module


every_module = pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)],
)


class Example(NamedTuple):
    """A layer with random parameters, two batches for its forward, and a generator for what else a test draws."""

    layer: Module
    inputs: tuple[Any, ...]
    others: tuple[Any, ...]
    rng: np.random.Generator


@st.composite
def examples(draw: st.DrawFn, case: Case) -> Example:
    """An example of one of the cases of `every_module`."""
    rng = np.random.default_rng(draw(strategies.seeds))
    sizes = draw(SIZES)
    layer, inputs = case(sizes, rng)
    _, others = case(sizes._replace(T_q=sizes.T_k, T_k=sizes.T_q), rng)
    return Example(randomise(layer, rng), inputs, others, rng)


# ---- layers and models of any shape


@st.composite
def configs(draw: st.DrawFn, sizes: Sizes, **changes: Any) -> mt.TransformerConfig:
    """A small model of these sizes, and any combination of the other choices. Dropout is on everywhere."""
    choices = {
        "n_layers": draw(st.integers(1, 2)),
        "positions": draw(st.sampled_from(["sinusoidal", "learned"])),
        "norm_layer": draw(st.sampled_from(["layer", "rms"])),
        "attention_bias": draw(st.booleans()),
        "tie_embeddings": draw(st.sampled_from([True, "source_target", "target_output", False])),
        "max_len": 23,  # the longest sentence and some padding
        **changes,
    }
    if choices["tie_embeddings"] in (True, "source_target"):
        sizes = sizes._replace(V_tgt=sizes.V_src)
    return tiny_config(sizes, **choices)


# Where the tokens of a model are: as `configs` draws it, or in one of the other ways that a config can say.
PLACES: list[dict[str, Any]] = [
    {},
    {"positions": "learned", "count_source_from": "end"},
    {"positions": "rotary", "d_k": 4},
    {"positions": "rotary", "count_source_from": "both", "d_k": 4},
]


class Translation(NamedTuple):
    """A model, a batch for it, and a generator for what else a test draws."""

    model: mt.Transformer
    src_ids: np.ndarray  # (B, T_k)
    tgt_in: np.ndarray  # (B, T_q)
    rng: np.random.Generator


@st.composite
def translations(draw: st.DrawFn, **changes: Any) -> Translation:
    """Sentences repeat words and are padded, both sides to different lengths; one source may have no word at all."""
    sizes = draw(SIZES)
    config = draw(configs(sizes, **{**draw(st.sampled_from(PLACES)), **changes}))
    rng = np.random.default_rng(draw(strategies.seeds))
    model = randomise(mt.Transformer(config, dtype="float64"), rng, spread=0.3)
    src_ids = random_ids(rng, sizes.B, sizes.T_k, config.src_vocab_size)
    if draw(st.booleans()):
        src_ids[-1] = config.pad_id
    return Translation(model, src_ids, random_ids(rng, sizes.B, sizes.T_q, config.tgt_vocab_size), rng)


# The blocks that read a target under a causal mask and, but for attention itself, a memory under a padding mask.
READERS = ["ScaledDotProductAttention", "MultiHeadAttention", "DecoderLayer", "PreNormDecoderLayer",
           "Decoder-post", "Decoder-pre"]  # fmt: skip
# The blocks that read a source under a padding mask.
ENCODERS = ["EncoderLayer", "PreNormEncoderLayer", "Encoder-post", "Encoder-pre"]


@st.composite
def blocks(draw: st.DrawFn, name: str, sizes: Sizes) -> Module:
    """A block by name, "-post" or "-pre" saying where a stack has its norms."""
    cls, _, norm = name.partition("-")
    config = draw(configs(sizes, norm=norm or "post"))
    if cls == "ScaledDotProductAttention":
        return layers.ScaledDotProductAttention(config.dropout)
    if cls == "MultiHeadAttention":
        return layers.MultiHeadAttention(
            config.d_model, config.n_heads, config.d_k, config.d_v, config.dropout, config.attention_bias
        )
    return getattr(models, cls)(config)


class Causal(NamedTuple):
    """A block under a causal mask as a layer of one input, the target x: (..., T_q, d)."""

    block: Module
    x: np.ndarray
    memory: tuple[Any, ...]  # what a decoder reads besides, and its mask; attention alone reads x three times

    def forward(self, x: np.ndarray, rng: np.random.Generator | None = None) -> tuple[np.ndarray, Any]:
        mask = causal_mask(np.zeros((1, x.shape[-2])))
        if not self.memory:
            return self.block.forward(x, x, x, mask, rng=rng)
        memory, src_mask = self.memory
        return self.block.forward(x, memory, mask, src_mask, rng=rng)

    def backward(self, dy: np.ndarray, cache: Any) -> np.ndarray:
        dx = self.block.backward(dy, cache)
        return dx[0] if self.memory else sum(dx)


@st.composite
def causal_blocks(draw: st.DrawFn, name: str) -> Causal:
    """One of READERS in either dtype, its inputs, and a source of which half the positions are masked."""
    sizes = draw(SIZES)
    rng = np.random.default_rng(draw(strategies.seeds))
    dtype = draw(strategies.dtypes)
    block = randomise(draw(blocks(name, sizes)), rng).to(dtype=dtype)
    memory: tuple[Any, ...] = ()
    if isinstance(block, layers.ScaledDotProductAttention):
        x = rng.normal(size=(sizes.B, sizes.h, sizes.T_q, sizes.d_k))
    else:
        x = rng.normal(size=(sizes.B, sizes.T_q, sizes.d_model))
    if name.startswith(("Decoder", "PreNorm")):
        source = rng.normal(size=(sizes.B, sizes.T_k, sizes.d_model)).astype(dtype)
        memory = source, rng.random((sizes.B, 1, 1, sizes.T_k)) > 0.5
    return Causal(block, x.astype(dtype), memory)
