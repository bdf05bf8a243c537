"""The tables of docs/gradient-checkers.md: which checker finds which fault, and which right code it calls wrong.

    python tests/benchmarks/gradient_checkers.py [table | directions]

`table` runs every checker that is installed (PyTorch, JAX, SciPy, Autograd; ours always) on the examples of
gradient_faults.py, each as its documentation says, with its own tolerances. Other checkers see a layer as a function
of its inputs and parameters. `directions` counts how often directions miss a fault that number by number is found.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gradient_faults import FAULTS, RIGHT, Elementwise, Example

import minitransformer as mt
from minitransformer.gradcheck import directions as random_directions
from minitransformer.parameter import parameters_of

SEEDS = 100  # for `directions`


def one_of(n: int, share: float) -> Example:
    """Gradients of which one in `n` is wrong by this share of itself."""

    def derivative(x: np.ndarray) -> np.ndarray:
        dx = np.cos(x)
        dx[0] *= 1 + share
        return dx

    x = np.random.default_rng(0).normal(size=n)
    return Example(f"one gradient in {n:,} wrong by {share:.0e}", Elementwise(np.sin, derivative), (x,))


class Function:
    """An example as a function of arrays, its inputs and parameters: y = f(*arrays), gradients = vjp(dy, *arrays)."""

    def __init__(self, example: Example) -> None:
        self.layer = copy.deepcopy(example.layer)
        self.parameters = list(parameters_of(self.layer).values())
        self.n_inputs = len(example.inputs)
        self.arrays = [*(a.copy() for a in example.inputs), *(p.data.copy() for p in self.parameters)]

    def f(self, *arrays: np.ndarray) -> np.ndarray:
        return np.array(self._forward(*arrays)[0])

    def vjp(self, dy: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
        _, cache = self._forward(*arrays)
        for p in self.parameters:
            p.grad = np.zeros_like(p.grad)
        dx = self.layer.backward(dy, cache)
        return [*(dx if isinstance(dx, tuple) else (dx,)), *(p.grad.copy() for p in self.parameters)]

    def _forward(self, *arrays: np.ndarray) -> tuple[np.ndarray, Any]:
        for p, a in zip(self.parameters, arrays[self.n_inputs :], strict=True):
            p.data = a
        return self.layer.forward(*arrays[: self.n_inputs])


# ---- the checkers: each answers "ok" or "wrong", ours also "undecided"


def ours(example: Example, **how: Any) -> str:
    report = mt.gradcheck(example.layer, *example.inputs, **how)
    return "ok" if report.ok else "wrong" if report.wrong or report.broken else "undecided"


def pytorch(example: Example, fast_mode: bool) -> str:
    import torch

    function = Function(example)

    class Op(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return torch.from_numpy(function.f(*(t.numpy() for t in tensors)))

        @staticmethod
        def backward(ctx, dy):
            found = function.vjp(dy.numpy(), *(t.numpy() for t in ctx.saved_tensors))
            return tuple(torch.from_numpy(np.array(g)) for g in found)

    inputs = [torch.from_numpy(a).requires_grad_() for a in function.arrays]
    right = torch.autograd.gradcheck(Op.apply, inputs, fast_mode=fast_mode, raise_exception=False)
    return "ok" if right else "wrong"


def jax(example: Example) -> str:
    import jax
    from jax.test_util import check_grads

    jax.config.update("jax_enable_x64", True)
    function = Function(example)
    shape = jax.ShapeDtypeStruct(function.f(*function.arrays).shape, np.float64)
    shapes = [jax.ShapeDtypeStruct(a.shape, np.float64) for a in function.arrays]

    def as_numpy(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays: call(*(np.array(a) for a in arrays))

    @jax.custom_vjp
    def op(*arrays):
        return jax.pure_callback(as_numpy(function.f), shape, *arrays)

    def backward(arrays, dy):
        return tuple(jax.pure_callback(as_numpy(function.vjp), shapes, dy, *arrays))

    op.defvjp(lambda *arrays: (op(*arrays), arrays), backward)
    return verdict(lambda: check_grads(op, function.arrays, order=1, modes=["rev"]))


def autograd(example: Example) -> str:
    from autograd.extend import defvjp, primitive
    from autograd.test_util import check_grads

    function = Function(example)
    op = primitive(function.f)
    rules = [
        lambda y, *arrays, i=i: lambda dy: function.vjp(np.array(dy), *arrays)[i]
        for i in range(len(function.arrays))
    ]
    defvjp(op, *rules)
    numbers = tuple(range(len(function.arrays)))  # by default, only the first argument is checked
    return verdict(lambda: check_grads(op, numbers, modes=["rev"], order=1)(*function.arrays))


def scipy(example: Example) -> str:
    """check_grad takes a function of one vector to a number, and returns an error; here it is compared with 1e-5."""
    from scipy.optimize import check_grad

    function = Function(example)
    ends = np.cumsum([a.size for a in function.arrays])
    dy = np.random.default_rng(8).normal(size=function.f(*function.arrays).shape)

    def parts(vector: np.ndarray) -> list[np.ndarray]:
        pieces = np.split(vector, ends[:-1])
        return [piece.reshape(a.shape) for piece, a in zip(pieces, function.arrays, strict=True)]

    def gradient(vector: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ravel(g) for g in function.vjp(dy.copy(), *parts(vector))])

    start = np.concatenate([a.ravel() for a in function.arrays])
    error = check_grad(lambda vector: (function.f(*parts(vector)) * dy).sum(), gradient, start)
    return "ok" if error < 1e-5 else "wrong"


def verdict(call: Callable[[], None]) -> str:
    try:
        call()
    except AssertionError:
        return "wrong"
    return "ok"


CHECKERS: dict[str, tuple[str, Callable[[Example], str]]] = {
    "PyTorch": ("torch", partial(pytorch, fast_mode=False)),
    "fast": ("torch", partial(pytorch, fast_mode=True)),
    "JAX": ("jax", jax),
    "SciPy": ("scipy", scipy),
    "Autograd": ("autograd", autograd),
    "ours": ("numpy", ours),
    "complex": ("numpy", partial(ours, method="complex")),
}


# ---- the tables


def row(example: Example, checkers: list[str], expected: str) -> str:
    """A line of the table: the verdicts, those that are not right in bold."""
    found = [CHECKERS[name][1](example) for name in checkers]
    cells = [answer if answer == expected else f"**{answer}**" for answer in found]
    return f"| {example.what} | {' | '.join(cells)} |"


def table(checkers: list[str]) -> list[str]:
    """The lines of the table, for the checkers that are asked for."""
    head = [f"| | {' | '.join(checkers)} |", "|---" * (len(checkers) + 1) + "|"]
    faults = [row(example, checkers, "wrong") for example in FAULTS]
    right = [row(example, checkers, "ok") for example in RIGHT]
    return [*head, *faults, f"| *right, but hard to check:* {'| ' * len(checkers)}|", *right]


def missed(example: Example, n: int, method: str) -> float:
    """The share of SEEDS checks along n directions that do not find the fault."""
    random_directions.DIRECTIONS = n
    how = {"directional": True, "method": method}
    return sum(ours(example, seed=seed, **how) != "wrong" for seed in range(SEEDS)) / SEEDS


def directions() -> list[str]:
    """Lines with the share of checks that miss a fault, along one direction and along two."""
    lines = ["| fault | one | two | one, complex | two, complex |", "|---|---|---|---|---|"]
    found = [example for example in FAULTS if ours(example) == "wrong"]
    for example in found + [one_of(2000, share) for share in (1e-4, 1e-5, 1e-6, 1e-7)]:
        shares = [missed(example, n, method) for method in ("central", "complex") for n in (1, 2)]
        lines.append(f"| {example.what} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return lines


def main() -> None:
    """Print the table that is asked for."""
    if sys.argv[1:] == ["directions"]:
        print("\n".join(directions()))
    else:
        installed = [name for name, (package, _) in CHECKERS.items() if importlib.util.find_spec(package)]
        print("\n".join(table(installed)))


if __name__ == "__main__":
    main()
