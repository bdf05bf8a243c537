"""minitransformer on what golden_cases.py gives: the same results, by the same names, as torch_reference.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from golden_cases import N_GROUPS, Arrays, Settings, starting_with

import minitransformer as mt
from minitransformer import layers, models
from minitransformer.backend import to_host
from minitransformer.layers.feed_forward import ACTIVATIONS
from minitransformer.module import Module


class TiedEmbedding(Module):
    """Embedding and output projection with one matrix."""

    def __init__(self, vocab_size: int, d_model: int) -> None:
        self.embedding = layers.Embedding(vocab_size, d_model, dtype="float64")
        self.output = layers.OutputProjection(vocab_size, d_model, E=self.embedding.E)
        self.E = self.embedding.E

    def parameters(self) -> dict[str, Any]:
        (E,) = super().parameters().values()
        return {"E": E}

    def forward(self, ids: Any, rng: Any = None) -> Any:
        x, cache_embedding = self.embedding.forward(ids)
        logits, cache_output = self.output.forward(x)
        return logits, (cache_embedding, cache_output)

    def backward(self, dy: Any, cache: Any) -> None:
        self.embedding.backward(self.output.backward(dy, cache[1]), cache[0])


class Loss(Module):
    """The loss as a layer: it starts the chain, so by itself it takes no upstream gradient."""

    def __init__(self, eps_ls: float, pad_id: int) -> None:
        self.loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, pad_id)

    def forward(self, logits: Any, tgt_out: Any, rng: Any = None) -> Any:
        return self.loss_fn.forward(logits, tgt_out)

    def backward(self, dy: Any, cache: Any) -> Any:
        return dy * self.loss_fn.backward(cache)


CONFIG = "src_vocab_size tgt_vocab_size n_layers d_model n_heads d_ff d_k d_v max_len positions norm"
CONFIG += " tie_embeddings attention_bias pad_id eps"


def config_of(s: Settings) -> mt.TransformerConfig:
    others = {"norm_layer": s.get("norm_layer", "layer"), "activation": s.get("activation", "relu")}
    return mt.TransformerConfig(**{name: s[name] for name in CONFIG.split()}, **others)


def of_norm(s: Settings, post: type[Module], pre: type[Module]) -> Module:
    return {"post": post, "pre": pre}[s["norm"]](config_of(s), dtype="float64")  # type: ignore[call-arg]


f64: dict[str, Any] = {"dtype": "float64"}
L = layers
LAYERS: dict[str, Callable[[Settings], Module]] = {
    "linear": lambda s: L.Linear(s["d_model"], s["d_ff"], bias=s["bias"], **f64),
    "layer_norm": lambda s: L.LayerNorm(s["d_model"], s["eps"], **f64),
    "rms_norm": lambda s: L.RMSNorm(s["d_model"], s["eps"], **f64),
    "batch_norm": lambda s: L.BatchNorm(s["d_model"], s["eps"], **f64),
    "instance_norm": lambda s: L.InstanceNorm(s["d_model"], s["eps"], **f64),
    "group_norm": lambda s: L.GroupNorm(s["d_model"], N_GROUPS, s["eps"], **f64),
    "add_norm": lambda s: L.AddNorm(
        s["d_model"], eps=s["eps"], **f64, Norm=L.RMSNorm if s.get("norm_layer") == "rms" else L.LayerNorm
    ),
    "feed_forward": lambda s: L.FeedForward(
        s["d_model"], s["d_ff"], Activation=ACTIVATIONS[s.get("activation", "relu")], **f64
    ),
    "scaled_dot_product_attention": lambda s: L.ScaledDotProductAttention(),
    "multi_head_attention": lambda s: L.MultiHeadAttention(
        s["d_model"], s["n_heads"], s["d_k"], s["d_v"], bias=s["attention_bias"], **f64
    ),
    "embedding": lambda s: L.Embedding(s["tgt_vocab_size"], s["d_model"], **f64),
    "output_projection": lambda s: L.OutputProjection(s["tgt_vocab_size"], s["d_model"], **f64),
    "tied_embedding": lambda s: TiedEmbedding(s["tgt_vocab_size"], s["d_model"]),
    "sinusoidal_positions": lambda s: L.SinusoidalPositions(s["max_len"], s["d_model"], **f64),
    "learned_positions": lambda s: L.LearnedPositions(s["max_len"], s["d_model"], **f64),
    "encoder_layer": lambda s: of_norm(s, models.EncoderLayer, models.PreNormEncoderLayer),
    "decoder_layer": lambda s: of_norm(s, models.DecoderLayer, models.PreNormDecoderLayer),
    "loss": lambda s: Loss(s["eps_ls"], s["pad_id"]),
}


def gradients(layer: Module, names: Arrays) -> Arrays:
    parameters = layer.parameters()
    return {f"grad.{name}": to_host(parameters[name].grad).copy() for name in names}


def run(kind: str, s: Settings, given: Arrays) -> Arrays:
    """The output of a layer and its gradients, those of its inputs and those of its weights."""
    inputs, weights = starting_with("input.", given), starting_with("weight.", given)
    if kind == "transformer":
        return train(s, weights, **inputs)
    layer = LAYERS[kind](s)
    layer.load_state_dict(weights)
    y, cache = layer.forward(*inputs.values())
    dinputs = layer.backward(given["dy"], cache)
    if not isinstance(dinputs, tuple):
        dinputs = () if dinputs is None else (dinputs,)
    floats = [name for name, x in inputs.items() if x.dtype == np.float64]
    d = {f"d.{name}": dx for name, dx in zip(floats, dinputs, strict=True)}
    return {"y": np.asarray(y), **d, **gradients(layer, weights)}


def train(
    s: Settings, weights: Arrays, src_ids: Any, tgt_in: Any, tgt_out: Any, device: str = "cpu"
) -> Arrays:
    """Three steps of §5.3 on one batch: the first logits and gradients, all losses, the last weights."""
    model = mt.Transformer(config_of(s), dtype="float64", device=device)
    model.load_state_dict(weights)
    loss_fn = mt.LabelSmoothedCrossEntropy(s["eps_ls"], s["pad_id"])
    adam = mt.Adam(model, betas=(0.9, 0.98), adam_eps=1e-9)
    results: Arrays = {}
    for step in (1, 2, 3):
        model.zero_grad()
        logits, cache = model.forward(src_ids, tgt_in)
        loss, loss_cache = loss_fn.forward(logits, tgt_out)
        model.backward(loss_fn.backward(loss_cache), cache)
        if step == 1:
            results = {"logits": to_host(logits), **gradients(model, weights)}
        results[f"loss.{step}"] = to_host(loss)
        adam.step(mt.noam_schedule(step, s["d_model"], s["warmup_steps"]))
    updated = model.state_dict()
    return {**results, **{f"updated.{name}": updated[name] for name in weights}}
