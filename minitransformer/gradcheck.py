"""Is a backward pass the derivative of its forward pass? Compares it with numerical derivatives.

For a random dy, the number L = Σ forward(x) · dy has the gradient backward(dy). Two independent methods find
the same gradient from forward alone:

    complex step         dL/dx = Im L(x + ih) / h, h = 1e-30        no subtraction, so right to the last digits;
                                                                    forward must be analytic, and run in complex128
    central difference   dL/dx = [8 (L(x+h) - L(x-h)) - (L(x+2h) - L(x-2h))] / 12h, in float64
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from minitransformer.backend import Array, array_module, generator
from minitransformer.errors import InputError
from minitransformer.module import Module

COMPLEX_STEP = 1e-30
CENTRAL_STEP = 5e-4  # near eps^(1/5), where the error of the formula (h^4) meets that of rounding (eps / h)
TOLERANCE = {"complex": 1e-11, "central": 1e-7}
FLOOR = 1e-3  # gradients below this share of the largest are compared with that share, not with themselves
MOST_ELEMENTS = 20_000  # above this many numbers, one directional derivative is checked instead of each


@dataclass(frozen=True)
class Row:
    """The worst entry of one input or parameter."""

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    relative_error: float
    kinks: int  # entries left out: forward has no derivative there (ReLU at 0, a tie of a maximum)


@dataclass(frozen=True)
class GradcheckReport:
    """What `gradcheck` found; `str(report)` is a table."""

    layer: str
    method: str
    tolerance: float
    rows: list[Row] = field(default_factory=list)

    @property
    def max_relative_error(self) -> float:
        return max(row.relative_error for row in self.rows)

    @property
    def ok(self) -> bool:
        """Whether every entry agrees. (Written so that NaN does not.)"""
        return all(row.relative_error <= self.tolerance for row in self.rows)

    def __str__(self) -> str:
        lines = [f"{self.layer}: {self.method}, tolerance {self.tolerance:.0e}"]
        width = max(len(row.name) for row in self.rows)
        for row in self.rows:
            verdict = "ok" if row.relative_error <= self.tolerance else "WRONG"
            kinks = f", {row.kinks} kinks" if row.kinks else ""
            lines.append(
                f"  {row.name:<{width}}  {verdict:<5}  error {row.relative_error:.1e}"
                f"  analytic {row.analytic:+.10e}  numeric {row.numeric:+.10e}  at {list(row.index)}{kinks}"
            )
        return "\n".join(lines)


def gradcheck(
    layer: Module,
    *inputs: Any,
    method: str = "central",
    directional: bool | None = None,
    dropout_seed: int | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> GradcheckReport:
    """Check `layer.backward` for `layer.forward(*inputs)`.

    Gradients are checked for every floating-point input, in their order, and every parameter; inputs of
    other types (ids, masks, None) are passed on as they are. The layer itself is not touched: a float64 copy
    is checked. The upstream gradient dy is random (`seed`).

    method        "central" or "complex"
    directional   False: every number by itself. True: one derivative along a random direction of all inputs
                  and parameters at once. None: the second above 20,000 numbers
    dropout_seed  checks the layer in training, each forward drawing the same random numbers
    tolerance     of the relative error |analytic - numeric| / max(|analytic|, |numeric|, 0.1 % of the largest
                  gradient), in a single direction / max(|analytic|, |numeric|); by default 1e-11 for complex
                  steps, 1e-7 for central differences

    Raises InputError if the method is unknown, if there is nothing to differentiate, or if backward does not
    return a gradient of the right shape for each floating-point input.
    """
    if method not in TOLERANCE:
        raise InputError(f"method: expected 'central' or 'complex', got {method!r}")
    check = _Check(layer, inputs, dropout_seed, seed)
    analytic = check.analytic_gradients()
    if directional is None:
        directional = sum(x.size for x in check.variables.values()) > MOST_ELEMENTS
    rows = check.along_direction(analytic, method) if directional else check.each_element(analytic, method)
    name = type(layer).__name__
    return GradcheckReport(name, method, TOLERANCE[method] if tolerance is None else tolerance, list(rows))


class _Check:
    """A float64 copy of a layer and its inputs, and L as a function of all of their numbers."""

    def __init__(self, layer: Module, inputs: tuple[Any, ...], dropout_seed: int | None, seed: int) -> None:
        self.layer = copy.deepcopy(layer).to(dtype="float64")
        self.inputs = [x.astype("float64", order="C") if _is_float(x) else x for x in inputs]
        self.dropout_seed, self.rng = dropout_seed, generator(seed)
        named = zip(_input_names(layer, len(inputs)), self.inputs, strict=True)
        self.variables: dict[str, Array] = {name: x for name, x in named if _is_float(x)}
        self.n_inputs = len(self.variables)
        self.variables |= {name: p.data for name, p in self.layer.parameters().items()}
        if not self.variables:
            raise InputError("gradcheck: expected a floating-point input or a parameter, got neither")

    def forward(self, layer: Module, inputs: list[Any]) -> tuple[Array, Any]:
        rng = None if self.dropout_seed is None else generator(self.dropout_seed)
        return layer.forward(*inputs, rng=rng)

    def analytic_gradients(self) -> dict[str, Array]:
        """Name -> gradient, from backward."""
        y, cache = self.forward(self.layer, self.inputs)
        xp = array_module(y)
        self.y, self.dy = y, xp.asarray(self.rng.normal(size=y.shape))
        for p in self.layer.parameters().values():
            p.grad[...] = 0
        returned = self.layer.backward(self.dy, cache)
        self.layer.backward(self.dy, cache)  # again: gradients add up, and `=` for `+=` will show as half
        dxs = [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]
        names = list(self.variables)[: self.n_inputs]
        shapes = [tuple(self.variables[name].shape) for name in names]
        got = [tuple(dx.shape) if hasattr(dx, "shape") else dx for dx in dxs]
        if got != shapes:
            raise InputError(f"backward: expected gradients of shapes {shapes}, got {got}")
        gradients = dict(zip(names, dxs, strict=True))
        return gradients | {name: p.grad / 2 for name, p in self.layer.parameters().items()}

    def change(self, move: Callable[[float], None], t: float) -> float:
        """L at `move(t)`, which sets the variables to their place at t, minus L at 0."""
        move(t)
        y, _ = self.forward(self.layer, self.inputs)
        move(0.0)
        return float(((y - self.y) * self.dy).sum())  # of small differences, each with all its digits

    def difference(self, move: Callable[[float], None], h: float = CENTRAL_STEP) -> float:
        """Central difference of L along `move`."""
        near = self.change(move, h) - self.change(move, -h)
        far = self.change(move, 2 * h) - self.change(move, -2 * h)
        return (8 * near - far) / (12 * h)

    def refined_difference(self, move: Callable[[float], None]) -> float:
        """The central difference at the step where it depends least on the step.

        A long step reaches over a bend of L that is near, a short one loses digits to rounding.
        """
        found = [self.difference(move, CENTRAL_STEP / 5**k) for k in range(5)]
        jumps = [abs(b - a) for a, b in itertools.pairwise(found)]
        return found[1 + jumps.index(min(jumps))]

    def each_element(self, analytic: dict[str, Array], method: str) -> Iterator[Row]:
        """The worst entry of each variable, every entry moved by itself."""
        numeric = self._complex_elements() if method == "complex" else self._central_elements()
        largest = max(float(abs(g).max()) for g in numeric.values())
        xp = array_module(self.y)
        for name, n in numeric.items():
            a, kinks = analytic[name], 0

            def error(a: Array = a, n: Array = n) -> Array:
                error = abs(a - n) / xp.maximum(xp.maximum(abs(a), abs(n)), FLOOR * largest or 1.0)
                return xp.where(xp.isnan(error), xp.inf, error)

            for i in xp.argwhere(error().ravel() > TOLERANCE[method] / 10).ravel().tolist():
                move = self._mover(self.variables[name], i)
                if method == "central":
                    n.reshape(-1)[i] = self.refined_difference(move)
                if error().ravel()[i] > TOLERANCE[method] and self._is_kink(move, float(a.ravel()[i])):
                    n.reshape(-1)[i] = a.ravel()[i]
                    kinks += 1
            worst = int(error().argmax())
            index = tuple(int(i) for i in xp.unravel_index(worst, n.shape))
            yield Row(name, index, float(a[index]), float(n[index]), float(error()[index]), kinks)

    def _central_elements(self) -> dict[str, Array]:
        numeric = {name: array_module(x).zeros_like(x) for name, x in self.variables.items()}
        for name, x in self.variables.items():
            for i in range(x.size):
                numeric[name].ravel()[i] = self.difference(self._mover(x, i))
        return numeric

    def _mover(self, x: Array, i: int) -> Callable[[float], None]:
        flat, start = x.reshape(-1), float(x.reshape(-1)[i])

        def move(t: float) -> None:
            flat[i] = start + t

        return move

    def _complex_elements(self) -> dict[str, Array]:
        layer, inputs, variables = self._complex_copy()
        numeric = {name: array_module(x).zeros_like(x) for name, x in self.variables.items()}
        for name, x in variables.items():
            flat = x.reshape(-1)
            for i in range(x.size):
                flat[i] += 1j * COMPLEX_STEP
                y, _ = self.forward(layer, inputs)
                numeric[name].ravel()[i] = float((y.imag / COMPLEX_STEP * self.dy).sum())
                flat[i] = flat[i].real
        return numeric

    def _complex_copy(self) -> tuple[Module, list[Any], dict[str, Array]]:
        layer = copy.deepcopy(self.layer).to(dtype="complex128")
        inputs = [x.astype("complex128", order="C") if _is_float(x) else x for x in self.inputs]
        variables = [x for x in inputs if _is_float(x)] + [p.data for p in layer.parameters().values()]
        return layer, inputs, dict(zip(self.variables, variables, strict=True))

    def _is_kink(self, move: Callable[[float], None], analytic: float) -> bool:
        """Whether L bends right here: its slopes to both sides differ, as much at a short step as at a long one.

        The analytic value must then lie between the two.
        """
        slopes: list[float] = []
        bends: list[float] = []
        for h in (CENTRAL_STEP, CENTRAL_STEP / 100):
            slopes = [self.change(move, t) / t for t in (-h, h)]
            bends.append(abs(slopes[1] - slopes[0]))
        margin = 0.01 * bends[1]
        return bends[1] > 0.5 * bends[0] > 0 and min(slopes) - margin <= analytic <= max(slopes) + margin

    def along_direction(self, analytic: dict[str, Array], method: str) -> Iterator[Row]:
        """One derivative of L along a random direction of all variables, no component of which is near zero."""
        direction = {}
        for name, x in self.variables.items():
            u = self.rng.uniform(0.5, 1.5, x.shape) * self.rng.choice([-1.0, 1.0], x.shape)
            direction[name] = array_module(x).asarray(u)
        length = sum(float((u * u).sum()) for u in direction.values()) ** 0.5
        a = sum(float((analytic[name] * u).sum()) for name, u in direction.items()) / length
        n = self._directional_complex(direction, length) if method == "complex" else None
        if n is None:
            start = {name: x.copy() for name, x in self.variables.items()}

            def move(t: float) -> None:
                for name, x in self.variables.items():
                    x[...] = start[name] + t / length * direction[name]

            n = self.difference(move)
        error = abs(a - n) / max(abs(a), abs(n), 1e-300)
        yield Row("all, along one direction", (), a, n, error, 0)

    def _directional_complex(self, direction: dict[str, Array], length: float) -> float:
        layer, inputs, variables = self._complex_copy()
        for name, x in variables.items():
            x += 1j * (COMPLEX_STEP / length) * direction[name]
        y, _ = self.forward(layer, inputs)
        return float((y.imag / COMPLEX_STEP * self.dy).sum())


def _input_names(layer: Module, n: int) -> list[str]:
    """What forward calls its inputs, e.g. query, key, value; "input 0" … where it does not say."""
    parameters = inspect.signature(layer.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"input {i}" for i in range(n)]


def _is_float(x: Any) -> bool:
    return getattr(getattr(x, "dtype", None), "kind", "") in "fc" and hasattr(x, "astype")
