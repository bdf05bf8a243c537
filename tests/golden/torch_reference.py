"""The paper's model in PyTorch: torch's own functions forward, autograd backward, torch.optim.Adam.

Written from the paper, not from minitransformer. `w` are weights by name, `s` settings (see golden_cases.py);
a weight is (d_in, d_out) as in the paper, torch's is (d_out, d_in). Masks are True where attention may look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from golden_cases import N_GROUPS, Arrays, Settings, starting_with
from torch import Tensor
from torch.nn import functional as F

torch.set_num_threads(1)  # these are small products: threads would only wait for each other

Weights = dict[str, Tensor]


def part(w: Weights, path: str) -> Weights:
    return {name.removeprefix(f"{path}."): x for name, x in w.items() if name.startswith(f"{path}.")}


def linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    return F.linear(x, W.T, b)


def layer_norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    return F.layer_norm(x, (s["d_model"],), w["gamma"], w["beta"], s["eps"])


def rms_norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    return F.rms_norm(x, (s["d_model"],), w["gamma"], s["eps"])


def batch_norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """(For torch, features come before positions.)"""
    y = F.batch_norm(x.mT, None, None, w["gamma"], w["beta"], training=True, eps=s["eps"])
    return y.mT


def instance_norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    return F.instance_norm(x.mT, weight=w["gamma"], bias=w["beta"], eps=s["eps"]).mT


def group_norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    return F.group_norm(x.mT, N_GROUPS, w["gamma"], w["beta"], s["eps"]).mT


def norm(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """LayerNorm, or what the settings have in its place."""
    return rms_norm(w, s, x) if s.get("norm_layer") == "rms" else layer_norm(w, s, x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def feed_forward(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """§3.3, or with another activation."""
    activation = ACTIVATIONS[s.get("activation", "relu")]
    return linear(activation(linear(x, w["W_1"], w["b_1"])), w["W_2"], w["b_2"])


def attention(w: Weights, s: Settings, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None = None) -> Tensor:
    """§3.2.1. Where a query may look nowhere, let it look everywhere (no NaN) and set its result to 0."""
    if mask is None:
        return F.scaled_dot_product_attention(Q, K, V)
    sees_something = mask.any(-1, keepdim=True)
    return F.scaled_dot_product_attention(Q, K, V, attn_mask=mask | ~sees_something) * sees_something


def multi_head(
    w: Weights, s: Settings, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """§3.2.2."""

    def heads(x: Tensor, name: str) -> Tensor:
        return linear(x, w[f"W_{name}"], w.get(f"b_{name}")).unflatten(-1, (s["n_heads"], -1)).transpose(1, 2)

    context = attention(w, s, heads(q, "Q"), heads(k, "K"), heads(v, "V"), mask)
    return linear(context.transpose(1, 2).flatten(-2), w["W_O"], w.get("b_O"))


def residual(w: Weights, s: Settings, n: int, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """§3.1: the n-th sub-layer of a layer, with its residual connection and its LayerNorm."""
    if s["norm"] == "pre":
        return x + sublayer(norm(part(w, f"norm_{n}"), s, x))
    return norm(part(w, f"add_norm_{n}.norm"), s, x + sublayer(x))


def encoder_layer(w: Weights, s: Settings, x: Tensor, mask: Tensor) -> Tensor:
    """§3.1."""
    x = residual(w, s, 1, x, lambda z: multi_head(part(w, "self_attention"), s, z, z, z, mask))
    return residual(w, s, 2, x, lambda z: feed_forward(part(w, "feed_forward"), s, z))


def decoder_layer(
    w: Weights, s: Settings, x: Tensor, memory: Tensor, tgt_mask: Tensor, src_mask: Tensor
) -> Tensor:
    """§3.1."""
    x = residual(w, s, 1, x, lambda z: multi_head(part(w, "self_attention"), s, z, z, z, tgt_mask))
    x = residual(w, s, 2, x, lambda z: multi_head(part(w, "cross_attention"), s, z, memory, memory, src_mask))
    return residual(w, s, 3, x, lambda z: feed_forward(part(w, "feed_forward"), s, z))


def embedding(w: Weights, s: Settings, ids: Tensor) -> Tensor:
    """§3.4."""
    return F.embedding(ids, w["E"]) * s["d_model"] ** 0.5


def output_projection(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """§3.4: the embedding's matrix, or one of its shape."""
    return F.linear(x, w["E"])


def sinusoidal_positions(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """§3.5, an entry at a time: sin at even places, cos at odd ones, both with the even one's frequency."""
    PE = torch.zeros(x.shape[1:], dtype=x.dtype)
    for pos in range(x.shape[1]):
        for i in range(0, s["d_model"], 2):
            angle = torch.tensor(pos / 10000 ** (i / s["d_model"]), dtype=x.dtype)
            PE[pos, i], PE[pos, i + 1] = torch.sin(angle), torch.cos(angle)
    return x + PE


def learned_positions(w: Weights, s: Settings, x: Tensor) -> Tensor:
    """§3.5, Table 3 (E)."""
    return x + F.embedding(torch.arange(x.shape[1]), w["P"])


def loss(w: Weights, s: Settings, logits: Tensor, tgt_out: Tensor) -> Tensor:
    """§5.4: the mean over the tokens that are not padding."""
    return F.cross_entropy(
        logits.flatten(0, 1), tgt_out.flatten(), ignore_index=s["pad_id"], label_smoothing=s["eps_ls"]
    )


def transformer(w: Weights, s: Settings, src_ids: Tensor, tgt_in: Tensor) -> Tensor:
    """Figure 1, without the last softmax."""
    E_src = w["src_embedding.embedding.E"]
    E_tgt = E_src if s["tie_embeddings"] in (True, "source_target") else w["tgt_embedding.embedding.E"]
    E_out = E_tgt if s["tie_embeddings"] in (True, "target_output") else w["output.E"]

    def embed(side: str, E: Tensor, ids: Tensor) -> Tensor:
        add_positions = learned_positions if s["positions"] == "learned" else sinusoidal_positions
        return add_positions(part(w, f"{side}.positions"), s, embedding({"E": E}, s, ids))

    src_mask = (src_ids != s["pad_id"])[:, None, None, :]
    tgt_mask = torch.ones(tgt_in.shape[1], tgt_in.shape[1], dtype=torch.bool).tril()[None, None]

    memory = embed("src_embedding", E_src, src_ids)
    for n in range(s["n_layers"]):
        memory = encoder_layer(part(w, f"encoder.layers.{n}"), s, memory, src_mask)
    if s["norm"] == "pre":
        memory = norm(part(w, "encoder.norm"), s, memory)

    x = embed("tgt_embedding", E_tgt, tgt_in)
    for n in range(s["n_layers"]):
        x = decoder_layer(part(w, f"decoder.layers.{n}"), s, x, memory, tgt_mask, src_mask)
    if s["norm"] == "pre":
        x = norm(part(w, "decoder.norm"), s, x)
    return output_projection({"E": E_out}, s, x)


LAYERS: dict[str, Callable[..., Tensor]] = {
    "linear": lambda w, s, x: linear(x, w["W"], w.get("b")),
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "group_norm": group_norm,
    "add_norm": lambda w, s, x, sublayer: norm(part(w, "norm"), s, x + sublayer),
    "feed_forward": feed_forward,
    "scaled_dot_product_attention": attention,
    "multi_head_attention": multi_head,
    "embedding": embedding,
    "output_projection": output_projection,
    "tied_embedding": lambda w, s, ids: output_projection(w, s, embedding(w, s, ids)),
    "sinusoidal_positions": sinusoidal_positions,
    "learned_positions": learned_positions,
    "encoder_layer": encoder_layer,
    "decoder_layer": decoder_layer,
    "loss": loss,
}


def leaves(arrays: Arrays) -> Weights:
    """Tensors of their own memory; those of floats collect gradients."""
    return {name: torch.tensor(x, requires_grad=x.dtype == np.float64) for name, x in arrays.items()}


def gradients(tensors: Weights, prefix: str) -> Arrays:
    return {prefix + name: x.grad.numpy(force=True).copy() for name, x in tensors.items() if x.requires_grad}


def run(kind: str, s: Settings, given: Arrays) -> Arrays:
    """The output of a layer and its gradients, those of its inputs and those of its weights."""
    inputs, w = leaves(starting_with("input.", given)), leaves(starting_with("weight.", given))
    if kind == "transformer":
        return train(s, w, inputs)
    y = LAYERS[kind](w, s, *inputs.values())
    y.backward(torch.from_numpy(given["dy"]))
    return {"y": y.detach().numpy(), **gradients(inputs, "d."), **gradients(w, "grad.")}


def train(s: Settings, w: Weights, inputs: dict[str, Any]) -> Arrays:
    """Three steps of §5.3 on one batch: the first logits and gradients, all losses, the last weights."""
    adam = torch.optim.Adam(w.values(), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
    results: Arrays = {}
    for step in (1, 2, 3):
        adam.zero_grad()
        logits = transformer(w, s, inputs["src_ids"], inputs["tgt_in"])
        loss_of_step = loss(w, s, logits, inputs["tgt_out"])
        loss_of_step.backward()
        if step == 1:
            results = {"logits": logits.numpy(force=True), **gradients(w, "grad.")}
        results[f"loss.{step}"] = loss_of_step.numpy(force=True)
        adam.param_groups[0]["lr"] = s["d_model"] ** -0.5 * min(step**-0.5, step * s["warmup_steps"] ** -1.5)
        adam.step()
    return {**results, **{f"updated.{name}": x.numpy(force=True) for name, x in w.items()}}
