"""§3.4: token embedding and the pre-softmax projection, which may share one matrix E."""

from __future__ import annotations

import math
from typing import NamedTuple

from minitransformer import backend, kernels
from minitransformer.backend import (
    Array,
    DTypeLike,
    Generator,
    Seed,
    generator,
    normal,
)
from minitransformer.kernels import fused
from minitransformer.layers.linear import rows
from minitransformer.module import Module, Parameter
from minitransformer.products import add_product, product
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import embedding_inputs, layer_inputs
from minitransformer.validation.settings import layer_sizes, require


def embedding_matrix(vocab_size: int, d_model: int, rng: Generator, dtype: DTypeLike) -> Parameter:
    """E: (V, d_model), normal with standard deviation 1 / sqrt(d_model).

    So the embeddings, rows times sqrt(d_model), and the logits both start with entries of about unit size.
    """
    return Parameter(normal(rng, (vocab_size, d_model), d_model**-0.5, dtype))


@fused(kernels.add_rows)
def add_rows(target: Array, ids: Array, rows: Array) -> None:
    """target[ids] += rows, once for every occurrence of an id."""
    backend.add_rows(target, ids, rows)


class EmbeddingCache(NamedTuple):
    ids: Array  # (B, T)


class Embedding(Module):
    """One row of E for each token, times sqrt(d_model).

    forward   y = E[ids] · sqrt(d_model)              ids: (B, T) integers, E: (V, d_model), y: (B, T, d_model)
    backward  dE[ids] += dy · sqrt(d_model), once for every occurrence of an id; ids have no gradient

    `E` shares the parameter of another layer (tied weights); without it, E is drawn from `rng`.
    `scaled=False` leaves sqrt(d_model) out, as BERT and GPT-2 do. Raises ConfigError for an E of another shape.
    """

    @layer_sizes
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        E: Parameter | None = None,
        scaled: bool = True,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        require(E is None or isinstance(E, Parameter), "E", "a Parameter", E)
        self.E = E or embedding_matrix(vocab_size, d_model, generator(rng), dtype)
        require(self.E.shape == (vocab_size, d_model), "E", f"shape {(vocab_size, d_model)}", self.E.data)
        self.scale = math.sqrt(d_model) if scaled else 1.0

    @checked(embedding_inputs)
    def forward(self, ids: Array, rng: Generator | None = None) -> tuple[Array, EmbeddingCache]:
        return self.E.data[ids] * self.scale, EmbeddingCache(ids)

    @gradient_of_shape(lambda layer, cache: (*cache.ids.shape, layer.E.shape[1]))
    def backward(self, dy: Array, cache: EmbeddingCache) -> None:
        add_rows(self.E.grad, cache.ids, dy * self.scale)


class OutputProjectionCache(NamedTuple):
    x: Array  # (B, T, d_model)


class OutputProjection(Module):
    """The linear map before the last softmax: how much each token of the vocabulary fits each position.

    forward   logits = x Eᵀ                   x: (B, T, d_model), E: (V, d_model), logits: (B, T, V)
    backward  dx = dlogits E,   dE = dlogitsᵀ x summed over all positions

    E has the embedding's shape, so that it can be the embedding's parameter. Raises ConfigError for another shape.
    """

    @layer_sizes
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        *,
        E: Parameter | None = None,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        require(E is None or isinstance(E, Parameter), "E", "a Parameter", E)
        self.E = E or embedding_matrix(vocab_size, d_model, generator(rng), dtype)
        require(self.E.shape == (vocab_size, d_model), "E", f"shape {(vocab_size, d_model)}", self.E.data)

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, OutputProjectionCache]:
        logits = product(rows(x), self.E.data.T)
        return logits.reshape(*x.shape[:-1], -1), OutputProjectionCache(x)

    @gradient_of_shape(lambda layer, cache: (*cache.x.shape[:-1], layer.E.shape[0]))
    def backward(self, dlogits: Array, cache: OutputProjectionCache) -> Array:
        add_product(self.E.grad, rows(dlogits).T, rows(cache.x))
        return product(rows(dlogits), self.E.data).reshape(cache.x.shape)
