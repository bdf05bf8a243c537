"""The same training step in PyTorch, in its fastest ordinary form on a CPU: eager, queries, keys and values in one
product, scaled_dot_product_attention, the fused Adam; and greedy decoding with a key/value cache."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from shapes import BOS, EOS, NEW_TOKENS, PAD, Shape, sentences
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
        return self.attend(self.queries(x), *self.keys_and_values(memory), mask, causal)

    def queries(self, x: Tensor) -> Tensor:
        d = x.shape[-1]
        return self.heads(F.linear(x, self.qkv.weight[:d], self.qkv.bias[:d]), 1)[0]

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, ...]:
        d = memory.shape[-1]
        return self.heads(F.linear(memory, self.qkv.weight[d:], self.qkv.bias[d:]), 2)


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

    def step(self, x: Tensor, cache: Tensor, t: int, memory: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        """A decoder layer at position t alone; cache: (2, B, h, length, d_k) holds the keys and values so far."""
        Q, cache[0, :, :, t : t + 1], cache[1, :, :, t : t + 1] = self.attention.heads(
            self.attention.qkv(x), 3
        )
        K, V = cache[:, :, :, : t + 1]
        x = self.norms[0](x + self.attention.attend(Q, K, V, None, causal=False))
        queries = self.cross.queries(
            x.view(len(mask), -1, x.shape[-1])
        )  # a beam's hypotheses read one source
        x = self.norms[1](x + self.cross.attend(queries, *memory, mask, causal=False).view_as(x))
        return self.norms[2](x + self.outer(F.relu(self.inner(x))))


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

    def __init__(self, shape: Shape, dropout: float, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.model = Model(shape, dropout).train().to(device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, fused=True
        )
        self.src_ids, self.tgt_in, self.tgt_out = (torch.from_numpy(x).to(device) for x in sentences(shape))

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(self.src_ids, self.tgt_in)
        loss = F.cross_entropy(
            logits.flatten(0, 1), self.tgt_out.flatten(), ignore_index=PAD, label_smoothing=0.1
        )
        loss.backward()
        self.optimizer.step()
        return loss.item()


class Decode:
    """Decoding of the same sentences at each call: one token at a time, everything before it cached.

    Greedy, or with `beam` hypotheses a sentence: their caches are put in order with index_select, the source's, which
    they share, stay; a sentence whose hypotheses can win no more stays in the batch.
    """

    def __init__(self, shape: Shape, beam: int = 1, alpha: float = 0.6) -> None:
        torch.manual_seed(0)
        self.beam, self.alpha = beam, alpha
        self.model = Model(shape, dropout=0.0).eval()
        self.model.E.data[EOS] = 0  # see decoding.py
        self.src_ids = torch.from_numpy(sentences(shape)[0])
        size = shape.batch * beam, shape.n_heads, NEW_TOKENS, shape.d_model // shape.n_heads
        self.caches = [torch.empty(2, *size) for _ in self.model.decoder]

    def encode(self) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        mask = (self.src_ids != PAD)[:, None, None, :]
        memory = self.model.embed(self.src_ids)
        for layer in self.model.encoder:
            memory = layer(memory, None, mask)
        return mask, [layer.cross.keys_and_values(memory) for layer in self.model.decoder]

    def logits(self, tokens: Tensor, t: int, mask: Tensor, memories: list[tuple[Tensor, ...]]) -> Tensor:
        model = self.model
        x = (F.embedding(tokens, model.E) * math.sqrt(model.d_model) + model.PE[t])[:, None]
        for layer, cache, of_memory in zip(model.decoder, self.caches, memories, strict=True):
            x = layer.step(x, cache, t, of_memory, mask)
        return F.linear(x[:, 0], model.E)

    def greedy(self) -> Tensor:
        mask, memories = self.encode()
        ids = torch.full((len(self.src_ids), NEW_TOKENS), PAD)
        tokens = torch.full((len(self.src_ids),), BOS)
        ended = torch.zeros(len(self.src_ids), dtype=torch.bool)
        for t in range(NEW_TOKENS):
            tokens = self.logits(tokens, t, mask, memories).argmax(-1).where(~ended, PAD)
            ids[:, t] = tokens
            ended |= tokens == EOS
            if ended.all():
                return ids[:, : t + 1]
        return ids

    def search(self) -> Tensor:
        mask, memories = self.encode()
        B, k = len(self.src_ids), self.beam
        ids = torch.full((B * k, NEW_TOKENS), EOS)
        tokens = torch.full((B * k,), BOS)
        log_P = torch.full((B, k), -math.inf)
        log_P[:, 0] = 0  # the others begin as the first one's continuations
        best, best_ids = torch.full((B,), -math.inf), torch.full((B, NEW_TOKENS), EOS)
        first_rows = torch.arange(B)[:, None] * k
        for t in range(NEW_TOKENS):
            logits = self.logits(tokens, t, mask, memories)
            V = logits.shape[-1]
            log_p = log_P[..., None] + F.log_softmax(logits, -1).view(B, k, V)
            log_P, place = log_p.view(B, k * V).topk(k)
            rows = (first_rows + place // V).flatten()
            tokens = (place % V).flatten()
            ids = ids.index_select(0, rows)
            ids[:, t] = tokens
            for cache in self.caches:
                cache[:, :, :, : t + 1] = cache[:, :, :, : t + 1].index_select(1, rows)
            finished = (tokens == EOS).view(B, k) | (t + 1 == NEW_TOKENS)
            score = (log_P / ((6 + t) / 6) ** self.alpha).masked_fill(~finished, -math.inf)
            top, which = score.max(-1)
            better = top > best
            best = torch.where(better, top, best)
            best_ids = torch.where(better[:, None], ids[first_rows[:, 0] + which], best_ids)
            log_P = log_P.masked_fill(finished, -math.inf)
            if (log_P.amax(-1) / ((5 + NEW_TOKENS) / 6) ** self.alpha <= best).all():
                break
        return best_ids

    @torch.inference_mode()
    def __call__(self) -> int:
        return (self.greedy() if self.beam == 1 else self.search()).numel()
