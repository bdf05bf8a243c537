"""Functions and models that are not layers, wrapped so that they keep the contract of one."""

from __future__ import annotations

from typing import Any

from minitransformer import layers, models
from minitransformer.backend import Array, Generator
from minitransformer.config import TransformerConfig
from minitransformer.layers.rotary import PlacedMask
from minitransformer.module import Module
from minitransformer.training.loss import LabelSmoothedCrossEntropy


class Softmax(Module):
    """softmax and softmax_backward as a layer."""

    def forward(self, scores: Array, mask: Array, rng: Generator | None = None) -> tuple[Array, Array]:
        weights = layers.softmax(scores, mask)
        return weights, weights

    def backward(self, dy: Array, cache: Array) -> Array:
        return layers.softmax_backward(dy, cache)


class PlacedAttention(Module):
    """RotaryAttention with arrays as its only inputs, in place of the mask that holds some of them."""

    def __init__(self, attention: Any) -> None:
        self.rotary = layers.RotaryAttention(attention)

    def forward(
        self,
        Q: Array,
        K: Array,
        V: Array,
        mask: Array,
        query_at: Array,
        key_at: Array,
        rng: Generator | None = None,
    ) -> tuple[Array, Any]:
        return self.rotary.forward(Q, K, V, PlacedMask(mask, query_at, key_at), rng)

    def backward(self, dy: Array, cache: Any) -> Any:
        return self.rotary.backward(dy, cache)


class Loss(Module):
    """The loss as a layer: its backward times the upstream gradient, which is one number."""

    def __init__(self, eps_ls: float) -> None:
        self.loss_fn = LabelSmoothedCrossEntropy(eps_ls)

    def forward(self, logits: Array, tgt_out: Array, rng: Generator | None = None) -> tuple[Array, Any]:
        return self.loss_fn.forward(logits, tgt_out)

    def backward(self, dy: Array, cache: Any) -> Array:
        return dy * self.loss_fn.backward(cache)


class TiedEmbedding(Module):
    """Embedding and output projection with one matrix, whose gradient is the sum over both uses."""

    def __init__(self, vocab_size: int, d_model: int, rng: Generator) -> None:
        self.embedding = layers.Embedding(vocab_size, d_model, rng=rng)
        self.output = layers.OutputProjection(vocab_size, d_model, E=self.embedding.E)

    def forward(self, ids: Array, rng: Generator | None = None) -> tuple[Array, Any]:
        x, cache_embedding = self.embedding.forward(ids)
        logits, cache_output = self.output.forward(x)
        return logits, (cache_embedding, cache_output)

    def backward(self, dy: Array, cache: Any) -> None:
        self.embedding.backward(self.output.backward(dy, cache[1]), cache[0])


class TransformerWithLoss(Module):
    """A whole model, of two stacks or of one, from ids to the loss."""

    def __init__(self, config: TransformerConfig, rng: Generator) -> None:
        self.model: Any = models.build(config, rng)
        self.loss = Loss(eps_ls=0.1)

    def forward(self, *ids: Array, rng: Generator | None = None) -> tuple[Array, Any]:
        *inputs, targets = ids
        logits, cache = self.model.forward(*inputs, rng=rng)
        loss, loss_cache = self.loss.forward(logits, targets)
        return loss, (cache, loss_cache)

    def backward(self, dy: Array, cache: Any) -> None:
        self.model.backward(self.loss.backward(dy, cache[1]), cache[0])
