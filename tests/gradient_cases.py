"""A gradient check for every Module: class -> functions that make a random layer and its inputs.

tests/test_gradients.py runs them all, and fails for a Module that is not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support import (
    D_FF,
    D_K,
    D_MODEL,
    D_V,
    T_K,
    T_Q,
    V_SRC,
    V_TGT,
    B,
    H,
    random_ids,
    random_mask,
    tiny_config,
)

from minitransformer import layers, models
from minitransformer.module import Module
from minitransformer.training.loss import LabelSmoothedCrossEntropy

Case = Callable[[np.random.Generator], tuple[Module, tuple[Any, ...]]]


class TiedEmbedding(Module):
    """Embedding and projection with one matrix: its gradient is the sum of both uses."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.embedding = layers.Embedding(V_SRC, D_MODEL, rng=rng)
        self.output = layers.OutputProjection(V_SRC, D_MODEL, E=self.embedding.E)

    def forward(self, ids: Any, rng: Any = None) -> Any:
        x, cache_embedding = self.embedding.forward(ids)
        logits, cache_output = self.output.forward(x)
        return logits, (cache_embedding, cache_output)

    def backward(self, dy: Any, cache: Any) -> None:
        self.embedding.backward(self.output.backward(dy, cache[1]), cache[0])


class Loss(Module):
    """The loss under the layer contract: backward times the upstream gradient."""

    def __init__(self, eps_ls: float) -> None:
        self.loss_fn = LabelSmoothedCrossEntropy(eps_ls)

    def forward(self, logits: Any, tgt_out: Any, rng: Any = None) -> Any:
        return self.loss_fn.forward(logits, tgt_out)

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * self.loss_fn.backward(cache)


class Softmax(Module):
    def forward(self, scores: Any, mask: Any, rng: Any = None) -> Any:
        weights = layers.softmax(scores, mask)
        return weights, weights

    def backward(self, dy: Any, cache: Any) -> Any:
        return layers.softmax_backward(dy, cache)


class ModelWithLoss(Module):
    """The whole model, from ids to the loss."""

    def __init__(self, **changes: Any) -> None:
        self.model = models.Transformer(tiny_config(**changes))
        self.loss = Loss(0.1)
        self.tgt_out = None

    def forward(self, src_ids: Any, tgt_in: Any, tgt_out: Any, rng: Any = None) -> Any:
        logits, cache = self.model.forward(src_ids, tgt_in, rng)
        loss, loss_cache = self.loss.forward(logits, tgt_out)
        return loss, (cache, loss_cache)

    def backward(self, dy: Any, cache: Any) -> None:
        self.model.backward(self.loss.backward(dy, cache[1]), cache[0])


def x(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape)


def away_from_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(0.1, 2, shape) * rng.choice([-1.0, 1.0], shape)


def attention_inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    Q, K, V = x(rng, B, H, T_Q, D_K), x(rng, B, H, T_K, D_K), x(rng, B, H, T_K, D_V)
    return Q, K, V, random_mask(rng, B, 1, T_Q, T_K)


def cross_inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    key, value = x(rng, B, T_K, D_MODEL), x(rng, B, T_K, D_MODEL)
    return x(rng, B, T_Q, D_MODEL), key, value, random_mask(rng, B, 1, 1, T_K)


def encoder_inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    return x(rng, B, T_K, D_MODEL), random_mask(rng, B, 1, 1, T_K)


def decoder_inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    causal = layers.causal_mask(np.zeros((B, T_Q)))
    return x(rng, B, T_Q, D_MODEL), x(rng, B, T_K, D_MODEL), causal, random_mask(rng, B, 1, 1, T_K)


def model_inputs(rng: np.random.Generator) -> tuple[Any, ...]:
    return random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V_TGT)


def with_targets(rng: np.random.Generator) -> tuple[Any, ...]:
    return *model_inputs(rng), random_ids(rng, B, T_Q, V_TGT)


L = layers
CASES: dict[type[Module], list[Case]] = {
    L.Linear: [
        lambda r: (L.Linear(D_MODEL, D_FF), (x(r, B, T_Q, D_MODEL),)),
        lambda r: (L.Linear(D_MODEL, D_FF, bias=False), (x(r, T_Q, D_MODEL),)),
    ],
    L.ReLU: [lambda r: (L.ReLU(), (away_from_zero(r, B, T_Q, D_MODEL),))],
    L.Dropout: [lambda r: (L.Dropout(0.3), (x(r, B, T_Q, D_MODEL),))],
    L.LayerNorm: [
        lambda r: (L.LayerNorm(D_MODEL), (x(r, B, T_Q, D_MODEL),)),
        lambda r: (L.LayerNorm(D_MODEL, eps=0.5), (x(r, T_Q, D_MODEL),)),
    ],
    L.AddNorm: [lambda r: (L.AddNorm(D_MODEL, 0.3), (x(r, B, T_Q, D_MODEL), x(r, B, T_Q, D_MODEL)))],
    L.FeedForward: [lambda r: (L.FeedForward(D_MODEL, D_FF, 0.3), (x(r, B, T_Q, D_MODEL),))],
    L.ScaledDotProductAttention: [
        lambda r: (L.ScaledDotProductAttention(0.3), attention_inputs(r)),
        lambda r: (L.ScaledDotProductAttention(), attention_inputs(r)[:3]),
    ],
    L.MultiHeadAttention: [
        lambda r: (L.MultiHeadAttention(D_MODEL, H, D_K, D_V, 0.3, bias=True), cross_inputs(r)),
        lambda r: (L.MultiHeadAttention(D_MODEL, 2), cross_inputs(r)),
    ],
    L.Embedding: [lambda r: (L.Embedding(V_SRC, D_MODEL), (random_ids(r, B, T_Q, V_SRC),))],
    L.OutputProjection: [lambda r: (L.OutputProjection(V_TGT, D_MODEL), (x(r, B, T_Q, D_MODEL),))],
    L.SinusoidalPositions: [lambda r: (L.SinusoidalPositions(19, D_MODEL), (x(r, B, T_Q, D_MODEL),))],
    L.LearnedPositions: [lambda r: (L.LearnedPositions(19, D_MODEL), (x(r, B, T_Q, D_MODEL),))],
    models.EncoderLayer: [lambda r: (models.EncoderLayer(tiny_config()), encoder_inputs(r))],
    models.PreNormEncoderLayer: [lambda r: (models.PreNormEncoderLayer(tiny_config()), encoder_inputs(r))],
    models.DecoderLayer: [lambda r: (models.DecoderLayer(tiny_config()), decoder_inputs(r))],
    models.PreNormDecoderLayer: [lambda r: (models.PreNormDecoderLayer(tiny_config()), decoder_inputs(r))],
    models.Encoder: [
        lambda r: (models.Encoder(tiny_config()), encoder_inputs(r)),
        lambda r: (models.Encoder(tiny_config(norm="pre")), encoder_inputs(r)),
    ],
    models.Decoder: [
        lambda r: (models.Decoder(tiny_config()), decoder_inputs(r)),
        lambda r: (models.Decoder(tiny_config(norm="pre")), decoder_inputs(r)),
    ],
    models.InputEmbedding: [
        lambda r, positions=positions: (
            models.InputEmbedding(tiny_config(positions=positions), V_SRC, E=None, rng=r, dtype="float64"),
            (random_ids(r, B, T_Q, V_SRC),),
        )
        for positions in ("sinusoidal", "learned")
    ],
    models.Transformer: [
        lambda r: (models.Transformer(tiny_config(dropout=0.0)), model_inputs(r)),
        lambda r: (
            models.Transformer(tiny_config(attention_bias=True, tie_embeddings=False)),
            model_inputs(r),
        ),
    ],
    # compositions, the loss among them
    Softmax: [lambda r: (Softmax(), (x(r, B, H, T_Q, T_K), random_mask(r, B, 1, T_Q, T_K)))],
    Loss: [
        lambda r: (Loss(0.1), (x(r, B, T_Q, V_TGT), random_ids(r, B, T_Q, V_TGT))),
        lambda r: (Loss(0.0), (x(r, B, T_Q, V_TGT), random_ids(r, B, T_Q, V_TGT))),
    ],
    TiedEmbedding: [lambda r: (TiedEmbedding(r), (random_ids(r, B, T_Q, V_SRC),))],
    ModelWithLoss: [
        lambda r: (ModelWithLoss(dropout=0.0), with_targets(r)),
        lambda r: (ModelWithLoss(), with_targets(r)),
        lambda r: (ModelWithLoss(norm="pre", positions="learned"), with_targets(r)),
        lambda r: (
            ModelWithLoss(tie_embeddings=True, tgt_vocab_size=V_SRC),
            (*[random_ids(r, B, t, V_SRC) for t in (T_K, T_Q, T_Q)],),
        ),
        lambda r: (ModelWithLoss(tie_embeddings="source_target", src_vocab_size=V_TGT), with_targets(r)),
    ],
}
