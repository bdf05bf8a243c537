"""§3.1, §5.4: the residual step around every sub-layer, "Add & Norm" in figure 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.normalization import LayerNorm, LayerNormCache, RMSNormCache
from minitransformer.module import Module
from minitransformer.validation import checked
from minitransformer.validation.layers import add_norm_inputs, layer_inputs


class AddNormCache(NamedTuple):
    dropout: DropoutCache
    norm: LayerNormCache | RMSNormCache


class AddNorm(Module):
    """LayerNorm(x + Dropout(Sublayer(x))), the paper's post-norm order, given x and Sublayer(x).

    forward   y = LayerNorm(x + Dropout(s))                   x, s, y: (..., d_model)
    backward  (dx, ds): the sum passes the norm's gradient to both; ds then passes back through dropout

    `Norm` may be RMSNorm.
    """

    def __init__(
        self,
        d_model: int,
        dropout: float = 0.0,
        eps: float = 1e-5,
        dtype: DTypeLike = "float32",
        Norm: Callable[[int, float, DTypeLike], Module] = LayerNorm,
    ) -> None:
        self.dropout = Dropout(dropout)
        self.norm = Norm(d_model, eps, dtype)

    @layer_inputs
    @checked(add_norm_inputs)
    def forward(self, x: Array, s: Array, rng: Generator | None = None) -> tuple[Array, AddNormCache]:
        dropped, cache_dropout = self.dropout.forward(s, rng)
        y, cache_norm = self.norm.forward(x + dropped)
        return y, AddNormCache(cache_dropout, cache_norm)

    def backward(self, dy: Array, cache: AddNormCache) -> tuple[Array, Array]:
        dx = self.norm.backward(dy, cache.norm)
        ds = self.dropout.backward(dx, cache.dropout)
        return dx, ds
