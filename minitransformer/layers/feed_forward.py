"""§3.3: the position-wise feed-forward network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, Seed, generator, xavier_uniform, zeros
from minitransformer.layers.activations import ReLU, ReLUCache
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.layers.gelu import GELU, GELUCache, GELUTanh
from minitransformer.layers.linear import linear, linear_backward
from minitransformer.module import Module, Parameter
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import layer_inputs
from minitransformer.validation.settings import layer_sizes

ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "gelu": GELU, "gelu_tanh": GELUTanh}


class FeedForwardCache(NamedTuple):
    x: Array  # (..., d_model)
    activation: ReLUCache | GELUCache
    dropout: DropoutCache
    hidden: Array  # (..., d_ff) after ReLU and dropout (the ReLU's own array if nothing was dropped)


class FeedForward(Module):
    """Two linear maps with a ReLU between, the same at every position (equation 2).

    forward   y = max(0, x W_1 + b_1) W_2 + b_2    x, y: (..., d_model); W_1: (d_model, d_ff); W_2: (d_ff, d_model)
    backward  dhidden = dy W_2ᵀ where hidden > 0, else 0,   dx = dhidden W_1ᵀ
              dW_2 = hiddenᵀ dy,   db_2 = Σ dy,   dW_1 = xᵀ dhidden,   db_1 = Σ dhidden    sums over positions

    `dropout` acts on the ReLU's output, and dhidden passes back through it first. The paper has no dropout here, though
    its reference implementation can do it.
    `Activation` may be another activation, such as GELU; dhidden then passes back through that instead of the ReLU.
    """

    @layer_sizes
    def __init__(
        self,
        d_model: int,
        d_ff: int,
        dropout: float = 0.0,
        *,
        Activation: Callable[[], Module] = ReLU,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> None:
        rng = generator(rng)
        self.W_1 = Parameter(xavier_uniform(rng, d_model, d_ff, dtype))
        self.b_1 = Parameter(zeros((d_ff,), dtype))
        self.W_2 = Parameter(xavier_uniform(rng, d_ff, d_model, dtype))
        self.b_2 = Parameter(zeros((d_model,), dtype))
        self.activation = Activation()
        self.dropout = Dropout(dropout)

    @layer_inputs
    def forward(self, x: Array, rng: Generator | None = None) -> tuple[Array, FeedForwardCache]:
        hidden, cache_activation = self.activation.forward(linear(x, self.W_1, self.b_1))
        hidden, cache_dropout = self.dropout.forward(hidden, rng)
        y = linear(hidden, self.W_2, self.b_2)
        return y, FeedForwardCache(x, cache_activation, cache_dropout, hidden)

    @gradient_of_shape(lambda layer, cache: cache.x.shape)
    def backward(self, dy: Array, cache: FeedForwardCache) -> Array:
        dhidden = linear_backward(dy, cache.hidden, self.W_2, self.b_2)
        dhidden = self.dropout.backward(dhidden, cache.dropout)
        dhidden = self.activation.backward(dhidden, cache.activation)
        return linear_backward(dhidden, cache.x, self.W_1, self.b_1)
