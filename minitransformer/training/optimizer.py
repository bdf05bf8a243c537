"""§5.3: Adam (Kingma and Ba 2015). Not in the paper: weight decay, gradient clipping by the global norm."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minitransformer import kernels
from minitransformer.backend import Array, array_module, castable, silent_overflow, to_floats, to_host, zeros
from minitransformer.errors import CheckpointError, describe
from minitransformer.kernels import fused
from minitransformer.memory import Buffer, Flat
from minitransformer.module import Module
from minitransformer.parts import in_parts
from minitransformer.validation import checked
from minitransformer.validation.settings import FLOAT32, INT64, as_integer, between, require
from minitransformer.validation.training import as_array_of_numbers, largest_norm, learning_rate_of


@fused(kernels.adam)
@in_parts
@silent_overflow()
def adam(
    p: Array, m: Array, v: Array, g: Array, lr: float, t: int, beta1: float, beta2: float, adam_eps: float
) -> None:
    """Step t of Adam, by the formulas of the class, for numbers p with gradients g. Changes p, m and v in place."""
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    p -= lr * m_hat / (array_module(p).sqrt(v_hat) + adam_eps)


@in_parts
@silent_overflow()
def decay(p: Array, lr: float, weight_decay: float) -> None:
    """p = p - lr · weight_decay · p, in place."""
    p -= lr * weight_decay * p


class Adam:
    """Adam for all parameters of `model`, which lie in one flat buffer.

    With g the gradient and t the number of this step, for each number p:

        m = beta1 · m + (1 - beta1) · g            m_hat = m / (1 - beta1^t)
        v = beta2 · v + (1 - beta2) · g²           v_hat = v / (1 - beta2^t)
        p = p - lr · m_hat / (sqrt(v_hat) + adam_eps)

    Not in the paper: with `weight_decay`, a matrix W (a parameter whose name begins with W) shrinks before each step,

        W = W - lr · weight_decay · W

    whatever its gradients are (AdamW, Loshchilov and Hutter 2019). Biases, norms, embeddings and positions do not.
    """

    def __init__(
        self,
        model: Module,
        betas: tuple[float, float] = (0.9, 0.98),
        adam_eps: float = 1e-9,
        weight_decay: float = 0.0,
    ) -> None:
        pair = isinstance(betas, tuple | list) and len(betas) == 2 and all(between(b, 0, 1) for b in betas)
        require(pair, "betas", "two numbers 0 <= beta < 1", betas)
        holds = between(adam_eps, *FLOAT32)
        require(holds, "adam_eps", "a number above 0 that float32 can hold", adam_eps)
        require(between(weight_decay, 0, FLOAT32[1]), "weight_decay", "a number, 0 or more", weight_decay)
        self.model = model
        self.betas = betas
        self.adam_eps = float(adam_eps)
        self.weight_decay = float(weight_decay)
        self.t = 0
        self._buffer = Buffer(model, "Adam")
        p, _ = self.numbers()
        self.m, self.v = (zeros(p.shape, p.dtype, p) for _ in range(2))

    def numbers(self) -> Flat:
        """The numbers that `step` updates, and their gradients. Raises InputError if the model has changed since."""
        return self._buffer.flat()

    def matrices(self) -> list[slice]:
        """Where the matrices W lie among these numbers."""
        places = self._buffer.places().items()
        return [place for name, place in places if name.rpartition(".")[2].startswith("W")]

    @checked(learning_rate_of)
    def step(self, lr: float) -> None:
        """Move every parameter against its gradient. Raises InputError unless `lr` is a number, 0 or more."""
        p, g = self.numbers()
        self.t += 1
        if self.weight_decay:
            for place in self.matrices():
                decay(p[place], lr, self.weight_decay)
        beta1, beta2 = map(float, self.betas)
        adam(p, self.m, self.v, g, lr, self.t, beta1, beta2, self.adam_eps)

    def state_dict(self) -> dict[str, Array]:
        """m, v and t, which a resumed run needs, and the layout of the model, as NumPy arrays."""
        numbers = {"m": to_host(self.m).copy(), "v": to_host(self.v).copy()}
        return {**numbers, "t": to_host(self.t), "layout": to_host(self._buffer.layout())}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Continue from the m, v and t of `state_dict`. Raises CheckpointError if they are another model's.

        Raises InputError if t or the layout is not made of whole numbers, 0 or more.
        """
        if not isinstance(state, Mapping):
            raise CheckpointError(f"Adam: expected a state of names and arrays, got {describe(state)}")
        state = {name: as_array_of_numbers(name, x) for name, x in state.items()}
        if missing := [name for name in ("m", "v", "t") if name not in state]:
            raise CheckpointError(f"Adam: the state lacks {', '.join(missing)}")
        for name in ("m", "v"):
            if getattr(state[name], "shape", None) != self.m.shape or not castable(state[name], self.m):
                got = describe(state[name])
                raise CheckpointError(f"Adam: {name}: expected {self.m.size} numbers, got {got}")
        with silent_overflow():
            m, v = (state[name].astype(self.m.dtype) for name in ("m", "v"))
        finite = all(array_module(x).isfinite(x).all() for x in (m, v))
        if not finite or not (state["v"] >= 0).all():
            raise CheckpointError("Adam: m, v: expected finite means, and no mean of squares below 0")
        own = self._buffer.layout()
        layout = state.get("layout", own)  # older states have none
        if as_integer("Adam: layout", layout, 0, INT64, "a number that tells models apart") != own:
            raise CheckpointError(
                "Adam: expected the moments of this model, got those of one with other parameters"
            )
        t = as_integer("Adam: t", state["t"], 0, INT64, "a number of steps, 0 or more")
        self.m[...], self.v[...] = (array_module(self.m).asarray(state[name]) for name in ("m", "v"))
        self.t = t


@checked(largest_norm)
def clip_grad_norm(model: Module, max_norm: float | None) -> float:
    """Scale all gradients so that their joint Euclidean norm is at most `max_norm`; return the norm they had before.

    With max_norm=None they stay as they are. Raises InputError for a `max_norm` that is not above 0 in float32.
    """
    grad = model.flatten().grad
    norm = euclidean_norm(grad)
    scale_down(grad, norm, max_norm)
    return norm


@silent_overflow()
def euclidean_norm(x: Array) -> float:
    """The root of Σ x², also where squares in float32 overflow, vanish or lose digits (below 1e-31)."""
    norm = math.sqrt(to_floats(sum_of_squares(x))[0])
    if 1e-15 < norm < math.inf:
        return norm
    (largest,) = to_floats(abs(x).max())
    if not 0 < largest < math.inf:
        return norm
    return largest * math.sqrt(to_floats(sum_of_squares(x / largest))[0])


def sum_of_squares(x: Array) -> Array:
    """Σ x² as an array scalar; reading its value waits for a GPU."""
    return (x @ x).astype("float64")


def scale_down(grad: Array, norm: float, max_norm: float | None) -> None:
    """Scale `grad` from its norm, `norm`, down to `max_norm`, unless it is smaller already or not finite."""
    if max_norm is not None and max_norm < norm < math.inf:
        grad *= max_norm / norm
