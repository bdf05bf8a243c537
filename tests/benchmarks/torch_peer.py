"""The same training step in PyTorch, in its fastest ordinary form on a CPU: eager, queries, keys and values in one
product, scaled_dot_product_attention, the fused Adam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from shapes import PAD, Shape, sentences
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.qkv, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)

    def heads(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        B, T, width = x.shape
        return x.view(B, T, n, self.n_heads, width // n // self.n_heads).permute(2, 0, 3, 1, 4).unbind(0)

    def attend(self, Q: Tensor, K: Tensor, V: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        p = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(Q, K, V, attn_mask=mask, is_causal=causal, dropout_p=p)
        return self.out(context.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor | None, causal: bool = False) -> Tensor:
        if memory is None:
            return self.attend(*self.heads(self.qkv(x), 3), mask, causal)
        d = x.shape[-1]
        W, b = self.qkv.weight, self.qkv.bias
        (Q,) = self.heads(F.linear(x, W[:d], b[:d]), 1)
        return self.attend(Q, *self.heads(F.linear(memory, W[d:], b[d:]), 2), mask, causal)


class Layer(nn.Module):
    """An encoder layer, or, with `cross`, a decoder layer; post-norm."""

    def __init__(self, shape: Shape, dropout: float, cross: bool) -> None:
        super().__init__()
        d = shape.d_model
        self.attention = Attention(d, shape.n_heads, dropout)
        self.cross = Attention(d, shape.n_heads, dropout) if cross else None
        self.inner, self.outer = nn.Linear(d, shape.d_ff), nn.Linear(shape.d_ff, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(3 if cross else 2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        own_mask = None if self.cross else mask
        x = self.norms[0](x + self.dropout(self.attention(x, None, own_mask, causal=self.cross is not None)))
        if self.cross is not None:
            x = self.norms[1](x + self.dropout(self.cross(x, memory, mask)))
        return self.norms[-1](x + self.dropout(self.outer(F.relu(self.inner(x)))))


class Model(nn.Module):
    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.d_model = shape.d_model
        self.E = nn.Parameter(torch.randn(shape.vocab_size, shape.d_model) * shape.d_model**-0.5)
        self.encoder = nn.ModuleList(Layer(shape, dropout, cross=False) for _ in range(shape.n_layers))
        self.decoder = nn.ModuleList(Layer(shape, dropout, cross=True) for _ in range(shape.n_layers))
        self.dropout = nn.Dropout(dropout)
        position = torch.arange(shape.length)[:, None]
        angle = position * 10000 ** (-torch.arange(0, shape.d_model, 2) / shape.d_model)
        self.register_buffer("PE", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))

    def embed(self, ids: Tensor) -> Tensor:
        return self.dropout(F.embedding(ids, self.E) * math.sqrt(self.d_model) + self.PE)

    def forward(self, src_ids: Tensor, tgt_in: Tensor) -> Tensor:
        mask = (src_ids != PAD)[:, None, None, :]
        memory, x = self.embed(src_ids), self.embed(tgt_in)
        for layer in self.encoder:
            memory = layer(memory, None, mask)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return F.linear(x, self.E)


class Step:
    """One training step at a time, on one batch."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        torch.manual_seed(0)
        self.model = Model(shape, dropout).train()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True
        )
        self.src_ids, self.tgt_in, self.tgt_out = map(torch.from_numpy, sentences(shape))

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(self.src_ids, self.tgt_in)
        loss = F.cross_entropy(
            logits.flatten(0, 1), self.tgt_out.flatten(), ignore_index=PAD, label_smoothing=0.1
        )
        loss.backward()
        self.optimizer.step()
        return loss.item()
