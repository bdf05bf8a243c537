"""§5.3: Adam (Kingma and Ba 2015), and clipping by the global norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from minitransformer import kernels
from minitransformer.backend import Array, array_module, castable, to_host
from minitransformer.config import FLOAT32, INT64, as_integer, between, require
from minitransformer.errors import CheckpointError, InputError, describe
from minitransformer.module import Module

CHUNK = 1 << 17  # numbers updated at a time: what the update touches stays in the processor's cache


class Adam:
    """One update of all parameters of `model`, which lie in one flat buffer.

    With g the gradient and t the number of this step, for each number p:

        m = beta1 · m + (1 - beta1) · g            m_hat = m / (1 - beta1^t)
        v = beta2 · v + (1 - beta2) · g²           v_hat = v / (1 - beta2^t)
        p = p - lr · m_hat / (sqrt(v_hat) + adam_eps)

    The two corrections leave the loop over the numbers: with c = sqrt(1 - beta2^t), the last line is

        p = p - lr · c / (1 - beta1^t) · m / (sqrt(v) + c · adam_eps)
    """

    def __init__(
        self, model: Module, betas: tuple[float, float] = (0.9, 0.98), adam_eps: float = 1e-9
    ) -> None:
        pair = isinstance(betas, tuple | list) and len(betas) == 2 and all(between(b, 0, 1) for b in betas)
        require(pair, "betas", "two numbers 0 <= beta < 1", betas)
        holds = between(adam_eps, *FLOAT32)
        require(holds, "adam_eps", "a number above 0 that float32 can hold", adam_eps)
        self.model = model
        self.betas = betas
        self.adam_eps = adam_eps
        self.t = 0
        flat = model.flatten().data
        xp = array_module(flat)
        self.m, self.v = xp.zeros_like(flat), xp.zeros_like(flat)

    def step(self, lr: float, n_parts: int = 1, map: Callable[..., Iterable[Any]] = map) -> None:
        """Move every parameter against its gradient. Raises InputError unless `lr` is a number, 0 or more.

        `map` does so for `n_parts` parts of the buffer, perhaps in threads.
        """
        if not between(lr, 0, FLOAT32[1]):
            raise InputError(f"lr: expected a number, 0 or more, got {describe(lr)}")
        self.t += 1
        data, grad = self.model.flatten()
        list(map(partial(self._update, data, grad, lr), parts(data.size, n_parts)))

    def _update(self, data: Array, grad: Array, lr: float, part: slice) -> None:
        """The step for a part of the numbers: chunk by chunk, and written over m, v and p."""
        xp = array_module(data)
        beta1, beta2 = self.betas
        c = math.sqrt(1 - beta2**self.t)
        if kernels.usable(data):
            rate = lr * c / (1 - beta1**self.t)
            kernels.adam(
                data[part], self.m[part], self.v[part], grad[part], self.betas, rate, c * self.adam_eps
            )
            return
        for start in range(part.start, part.stop, CHUNK):
            chunk = slice(start, min(start + CHUNK, part.stop))
            p, g, m, v = data[chunk], grad[chunk], self.m[chunk], self.v[chunk]
            m *= beta1
            m += (1 - beta1) * g
            v *= beta2
            v += (1 - beta2) * (g * g)
            root = xp.sqrt(v)
            root += c * self.adam_eps
            step = xp.divide(m, root, out=root)
            step *= lr * c / (1 - beta1**self.t)
            p -= step

    def state_dict(self) -> dict[str, Array]:
        """What a resumed run needs: m, v and t."""
        return {"m": to_host(self.m).copy(), "v": to_host(self.v).copy(), "t": to_host(self.t)}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Continue from what `state_dict` returned. Raises CheckpointError if it is another model's."""
        xp = array_module(self.m)
        if not isinstance(state, Mapping):
            raise CheckpointError(f"Adam: expected a state of names and arrays, got {describe(state)}")
        if missing := [name for name in ("m", "v", "t") if name not in state]:
            raise CheckpointError(f"Adam: the state lacks {', '.join(missing)}")
        for name in ("m", "v"):
            if getattr(state[name], "shape", None) != self.m.shape or not castable(state[name], self.m):
                got = describe(state[name])
                raise CheckpointError(f"Adam: {name}: expected {self.m.size} numbers, got {got}")
        if not (state["v"] >= 0).all():
            raise CheckpointError("Adam: v: expected means of squares, none below 0")
        t = as_integer("Adam: t", state["t"], 0, INT64, "a number of steps, 0 or more")
        self.m[...], self.v[...] = xp.asarray(state["m"]), xp.asarray(state["v"])
        self.t = t


def parts(size: int, n: int) -> list[slice]:
    """`size` numbers in `n` parts of about the same size."""
    bounds = [size * i // n for i in range(n + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def clip_grad_norm(model: Module, max_norm: float | None) -> float:
    """Scale all gradients so that their common Euclidean norm is at most `max_norm`; the norm before that.

    None leaves them as they are. Raises InputError for a `max_norm` that is not a number above 0.
    """
    if max_norm is not None and not between(max_norm, *FLOAT32):
        raise InputError(f"max_norm: expected a number above 0, or None, got {describe(max_norm)}")
    norm = float(grad_norm(model))
    scale_down(model, norm, max_norm)
    return norm


def grad_norm(model: Module) -> Array:
    """The common Euclidean norm of all gradients: a number of their array library, on a GPU one to wait for."""
    grad: Array = model.flatten().grad
    return array_module(grad).sqrt((grad @ grad).astype("float64"))


def scale_down(model: Module, norm: float, max_norm: float | None) -> None:
    """Scale gradients of this norm to `max_norm`, if that is less and they are finite."""
    if max_norm is not None and max_norm < norm < math.inf:
        grad: Array = model.flatten().grad
        grad *= max_norm / norm
