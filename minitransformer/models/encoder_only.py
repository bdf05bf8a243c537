"""Not in the paper: an encoder alone, which sees all of what it reads at once, as BERT does (Devlin et al. 2018)."""

from __future__ import annotations

from typing import Any, NamedTuple

from minitransformer.backend import Array, Generator, array_module
from minitransformer.layers.masks import padding_mask
from minitransformer.models.encoder import EncoderCache
from minitransformer.models.one_stack import OneStack, OneStackEmbeddingCache, positions_of
from minitransformer.models.recompute import Keep
from minitransformer.validation import checked
from minitransformer.validation.training import gradient_of_answers, one_stack_inputs


class EncoderOnlyCache(NamedTuple):
    embedding: OneStackEmbeddingCache
    stack: EncoderCache
    pooling: Array | None  # (B, T, 1) each token's part in the mean, or None without pooling
    output: Any
    shape: tuple[int, ...]  # of the answers


class EncoderOnly(OneStack):
    """An encoder with a head, which gives an answer at each position, or one answer for all of them.

    forward   x = Encoder(embed(ids)),   x = Σ_t w_t x_t with pooling,   logits = x Eᵀ
    backward  the layers in reverse order, dx_t = w_t dx; returns nothing, since ids have no gradient

    ids, segments: (B, T) integers, logits: (B, T, V), or (B, 1, V) with pooling. With config.head = "none", the answer
    is x itself. Padding is config.pad_id: nothing attends to it, and w is 0 there, otherwise 1 / n for each of n tokens
    (pooling="mean"), or 1 for the first token only ("first").
    `keep`, `seed`, dtype and device are as in Transformer. Raises InputError for ids that it cannot read.
    """

    family = "encoder-only"

    @checked(one_stack_inputs)
    def forward(
        self,
        ids: Array,
        segments: Array | None = None,
        rng: Generator | None = None,
        keep: Keep = "caches",
    ) -> tuple[Array, EncoderOnlyCache]:
        w = cache_output = None
        at = positions_of(self.config, ids, rng)
        mask = self.placed(padding_mask(ids, self.config.pad_id), at, at)
        x, cache_embedding = self.embedding.forward(ids, segments, rng, at)
        x, cache_stack = self.stack.forward(x, mask, rng, keep)
        if self.config.pooling != "none":
            w = self.weights(ids, x)
            x = (w * x).sum(1, keepdims=True)
        if self.output is not None:
            x, cache_output = self.output.forward(x)
        return x, EncoderOnlyCache(cache_embedding, cache_stack, w, cache_output, x.shape)

    @checked(gradient_of_answers)
    def backward(self, dy: Array, cache: EncoderOnlyCache) -> None:
        dx = dy if self.output is None else self.output.backward(dy, cache.output)
        if cache.pooling is not None:
            dx = cache.pooling * dx
        dx = self.stack.backward(dx, cache.stack)
        self.embedding.backward(dx, cache.embedding)

    def weights(self, ids: Array, x: Array) -> Array:
        """The part of each token in the pooled vector: (B, T) -> (B, T, 1), with the dtype of `x`."""
        xp = array_module(ids)
        if self.config.pooling == "first":
            w = xp.broadcast_to(xp.arange(ids.shape[1]) == 0, ids.shape)
        else:
            w = ids != self.config.pad_id
        n = xp.maximum(w.sum(1, keepdims=True), 1)
        return (w / n)[..., None].astype(x.dtype)
