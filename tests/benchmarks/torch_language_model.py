"""The same training step in PyTorch, and sampling with a cache of keys and values, as torch_peer.py has the paper's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from shapes import Shape, blocks
from torch import Tensor, nn
from torch_peer import Attention


class Layer(nn.Module):
    """A pre-norm layer under the causal mask."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.attention = Attention(d, shape.n_heads, 0.0)
        self.inner, self.outer = nn.Linear(d, shape.d_ff), nn.Linear(shape.d_ff, d)
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x), None, None, causal=True)
        return x + self.outer(F.gelu(self.inner(self.norm_2(x)), approximate="tanh"))

    def read(self, x: Tensor, cache: Tensor, t: int) -> Tensor:
        """The layer at T positions from t on; cache: (2, B, h, length, d_k) holds the keys and values so far."""
        T = x.shape[1]
        Q, cache[0, :, :, t : t + T], cache[1, :, :, t : t + T] = self.attention.heads(
            self.attention.qkv(self.norm_1(x)), 3
        )
        K, V = cache[:, :, :, : t + T]
        x = x + self.attention.attend(Q, K, V, None, causal=T > 1)
        return x + self.outer(F.gelu(self.inner(self.norm_2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.E = nn.Parameter(torch.randn(shape.vocab_size, shape.d_model) * shape.d_model**-0.5)
        self.P = nn.Parameter(torch.randn(shape.length, shape.d_model) * shape.d_model**-0.5)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layers))
        self.norm = nn.LayerNorm(shape.d_model)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.embedding(ids, self.E) + self.P[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.E)

    def read(self, ids: Tensor, caches: list[Tensor], t: int) -> Tensor:
        """The logits after the last of these ids, which stand at t, t + 1, …"""
        x = F.embedding(ids, self.E) + self.P[t : t + ids.shape[1]]
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer.read(x, cache, t)
        return F.linear(self.norm(x[:, -1]), self.E)


class Step:
    """One training step at a time, on one batch."""

    def __init__(self, shape: Shape) -> None:
        torch.manual_seed(0)
        self.model = Model(shape)
        matrices = [p for name, p in self.model.named_parameters() if p.dim() == 2 and name not in ("E", "P")]
        others = [p for p in self.model.parameters() if not any(p is m for m in matrices)]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4, betas=(0.9, 0.99), eps=1e-9, fused=True,
        )  # fmt: skip
        self.ids, self.answers = map(torch.from_numpy, blocks(shape))

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.ids).flatten(0, 1), self.answers.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


class Sample:
    """Characters after a prompt, one sequence. When the context is full, its last half is read anew."""

    def __init__(self, shape: Shape, n: int) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)  # faster than two for a single token
        self.model, self.n = Model(shape).eval(), n
        self.prompt = torch.from_numpy(blocks(shape)[0][:1, :16])
        self.length = shape.length
        d_k = shape.d_model // shape.n_heads
        self.caches = [torch.zeros(2, 1, shape.n_heads, shape.length, d_k) for _ in range(shape.n_layers)]

    @torch.inference_mode()
    def __call__(self) -> int:
        text, unread, t = self.prompt, self.prompt, 0
        for _ in range(self.n):
            if t + unread.shape[1] > self.length:
                unread, t = text[:, -self.length // 2 :], 0
            p = self.model.read(unread, self.caches, t).softmax(-1)
            t += unread.shape[1]
            unread = torch.multinomial(p, 1)
            text = torch.cat([text, unread], 1)
        return text.shape[1] - self.prompt.shape[1]
