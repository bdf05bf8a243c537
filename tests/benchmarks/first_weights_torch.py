"""What first_weights.py does, with PyTorch's forward pass, gradients, clipping and Adam in place of this package's.

    python tests/benchmarks/first_weights_torch.py DATA [--seeds 100 101 ...] [--updates 1250] [--larger] [--json FILE]

The initial weights, batches and learning rates are those of this package for the same seed; dropout draws other
numbers. For each evaluation the weights are copied into this package's model, which must give the same logits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from first_weights import EVERY, Rows, run_each
from shapes import PAD, Shape
from torch import Tensor
from torch_peer import Model

import minitransformer as mt
from minitransformer.runs.evaluation import cross_attention_sharpness, measure
from minitransformer.training.batching import Batch
from minitransformer.training.schedule import learning_rate


class PostNorm(Model):
    """The peer with dropout where the recipe has it, and with sentences of any length."""

    def __init__(self, config: mt.TransformerConfig) -> None:
        sizes = config.d_model, config.n_heads, config.d_ff, config.n_layers, config.tgt_vocab_size
        super().__init__(Shape(*sizes, batch=0, length=config.max_len), config.dropout)
        for layer in [*self.encoder, *self.decoder]:
            for attention in (layer.attention, layer.cross):
                if attention is not None:
                    attention.dropout = 0.0

    def embed(self, ids: Tensor) -> Tensor:
        return self.dropout(F.embedding(ids, self.E) * math.sqrt(self.d_model) + self.PE[: ids.shape[1]])


def by_name(model: Model) -> dict[str, Tensor]:
    """The model's weights under the names that this package gives them, each a view."""
    found = {"src_embedding.embedding.E": model.E}
    for stack in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(model, stack)):
            own = {"self_attention": layer.attention, "cross_attention": layer.cross}
            for part, attention in own.items():
                if attention is not None:
                    weights = [*attention.qkv.weight.chunk(3), attention.out.weight]
                    biases = [*attention.qkv.bias.chunk(3), attention.out.bias]
                    for letter, W, b in zip("QKVO", weights, biases, strict=True):
                        found |= {f"{stack}.layers.{i}.{part}.W_{letter}": W.T}
                        found |= {f"{stack}.layers.{i}.{part}.b_{letter}": b}
            for j, linear in enumerate((layer.inner, layer.outer), 1):
                found |= {f"{stack}.layers.{i}.feed_forward.W_{j}": linear.weight.T}
                found |= {f"{stack}.layers.{i}.feed_forward.b_{j}": linear.bias}
            for j, norm in enumerate(layer.norms, 1):
                found |= {f"{stack}.layers.{i}.add_norm_{j}.norm.gamma": norm.weight}
                found |= {f"{stack}.layers.{i}.add_norm_{j}.norm.beta": norm.bias}
    return found


def tensors(batch: Batch) -> tuple[Tensor, ...]:
    """Source, decoder input and targets."""
    return tuple(torch.from_numpy(ids) for ids in (batch.src_ids, batch.tgt_in, batch.tgt_out))


def train(trainer: mt.Trainer, updates: int, rows: Rows) -> None:
    """With PyTorch."""
    config, d_model = trainer.settings.training, trainer.settings.model.d_model
    torch.manual_seed(trainer.settings.seed)
    model = PostNorm(trainer.settings.model)
    ours = trainer.model.parameters()
    with torch.no_grad():
        for name, weights in by_name(model).items():
            weights.copy_(torch.from_numpy(ours[name].data))
    betas = config.beta1, config.beta2
    adam = torch.optim.Adam(model.parameters(), lr=0.0, betas=betas, eps=config.adam_eps, fused=True)
    for step in range(1, updates + 1):
        batches = [trainer.stream.next() for _ in range(config.accumulate)]
        n_tokens = sum(batch.n_tokens for batch in batches)
        adam.zero_grad(set_to_none=True)
        for batch in batches:
            src_ids, tgt_in, tgt_out = tensors(batch)
            logits = model(src_ids, tgt_in).flatten(0, 1)
            options = {"ignore_index": PAD, "label_smoothing": config.eps_ls, "reduction": "sum"}
            (F.cross_entropy(logits, tgt_out.flatten(), **options) / n_tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        adam.param_groups[0]["lr"] = learning_rate(step, d_model, config)
        adam.step()
        if step % EVERY == 0:
            rows.report(evaluated(model.eval(), trainer, step))
            model.train()


@torch.no_grad()
def evaluated(model: Model, trainer: mt.Trainer, step: int) -> dict[str, object]:
    """The record that this package's trainer would write."""
    trainer.model.load_state_dict({name: weights.numpy() for name, weights in by_name(model).items()})
    pairs = trainer.sets["valid"]
    batch = mt.training.make_batch(pairs[:8])
    logits, cache = trainer.model.forward(*batch.inputs)
    np.testing.assert_allclose(logits, model(*tensors(batch)[:2]).numpy(), rtol=1e-3, atol=1e-3)
    valid = measure(trainer.replicas, trainer.settings.task, "valid", pairs)
    return {"step": step, "valid": valid, "cross_attention": cross_attention_sharpness(cache, batch)}


if __name__ == "__main__":
    run_each(__doc__, train)
