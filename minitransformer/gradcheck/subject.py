"""The layer under test: a float64 copy of it and its inputs, and L = Σ forward · dy as a function of their numbers."""

from __future__ import annotations

import inspect
import warnings
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from minitransformer.backend import (
    Array,
    ComplexWarning,
    array_module,
    generator,
    is_float,
    silent_overflow,
    to_host,
)
from minitransformer.errors import InputError, describe
from minitransformer.gradcheck.derivatives import Function
from minitransformer.memory import converted
from minitransformer.parameter import Parameter, is_layer, parameters_of

# So small that its square vanishes beside 1; nothing is subtracted, so the step may be that small.
COMPLEX_STEP = 1e-30
EPS = 2.0**-52
SPREAD = 0.5  # added to parameters whose entries are all equal, at most
ASIDE = 1e-2  # how far `step_aside` moves each number, about
ANALYTIC = "is forward analytic (no abs, norm, conj, real, float)? If not, use method='central'"


class Subject:
    """A layer in float64, its inputs, and a random upstream gradient dy.

    Parameters whose entries are all equal are made random: a gamma of ones and a bias of zeros hide mistakes.
    `broken` lists the rules of the contract that the layer was seen to break.
    """

    def __init__(self, layer: Any, inputs: tuple[Any, ...], dropout_seed: int | None, seed: int) -> None:
        check_arguments(layer, inputs, dropout_seed)
        self.broken: list[str] = []
        copied: dict[int, Any] = {}
        self.layer = converted(layer, "float64", copied)
        self.inputs = [as_dtype(x, "float64") for x in inputs]
        self.dropout_seed, self.rng = dropout_seed, generator(seed)
        self.parameters = parameters_of(self.layer)
        found = {id(p) for p in self.parameters.values()}
        if n_hidden := sum(isinstance(p, Parameter) and id(p) not in found for p in copied.values()):
            self.broken.append(
                f"{n_hidden} Parameter(s) not found: not in an attribute, list or dict of a layer"
            )
        for p in self.parameters.values():
            if p.size and bool((p.data == p.data.ravel()[0]).all()):
                p.data += array_module(p.data).asarray(self.rng.uniform(-SPREAD, SPREAD, p.shape))
        names = input_names(layer, len(inputs), taken=self.parameters)
        self.arrays = {name: x for name, x in zip(names, self.inputs, strict=True) if is_array(x)}
        self.floats = {name: x for name, x in self.arrays.items() if is_float(x)}
        self.variables: dict[str, Array] = self.floats | {name: p.data for name, p in self.parameters.items()}
        self.n_numbers = sum(int(x.size) for x in self.variables.values())
        if not self.n_numbers:
            raise InputError("gradcheck: expected a floating-point input or a Parameter, got neither")
        self.y = self._first_forward()
        self.dy = array_module(self.y).asarray(self.rng.normal(size=self.y.shape))
        self.noise = 4 * EPS * float(((self.y * self.dy) ** 2).sum()) ** 0.5  # about the rounding error of L

    def forward(self, layer: Any, inputs: list[Any], stream: int = 0) -> tuple[Array, Any]:
        """y and cache of layer.forward, with the same random numbers each time for the same `stream`."""
        seed = (self.dropout_seed, stream) if stream else (self.dropout_seed,)
        how = {} if self.dropout_seed is None else {"rng": generator(*seed)}
        y, cache = layer.forward(*inputs, **how)
        if not is_float(y):
            raise InputError(
                f"forward: expected (y, cache), y an array of floats; got a {type(y).__name__} for y"
            )
        return y, cache

    def _first_forward(self) -> Array:
        """y as a copy: it may be an input itself, or a view of one, and those will move. Checks what forward writes."""
        before = self._state()
        y = self.forward(self.layer, self.inputs)[0].copy()
        self._check_unchanged("forward", before)
        if y.dtype != "float64":
            self._record_broken(f"forward gives {y.dtype}, though all it was given is float64")
        if not same(y, self.forward(self.layer, self.inputs)[0]):
            self._record_broken(
                "forward gives another y for the same inputs: random without its rng, or a hidden state?"
            )
        self._check_unchanged("forward", before)
        return y

    def analytic_gradients(self) -> dict[str, Array]:
        """Name -> gradient, from backward.

        backward is called twice and must return the same twice; parameter gradients add up, so `=` in place of `+=`
        shows as a half. A forward on other inputs comes before, so all that backward needs has to be in the cache.
        """
        for p in self.parameters.values():
            p.grad[...] = 0
        before = self._state()
        _, cache = self.forward(self.layer, self.inputs)
        self._forward_on_other_inputs()
        first, again = (self._backward(cache) for _ in range(2))
        self._check_unchanged("backward", before)
        if not all(map(same, first, again)):
            self._record_broken(
                "backward gives another gradient for the same dy and cache when it is called again"
            )
        for p in self.parameters.values():
            p.grad *= 0.5
        return dict(zip(self.floats, first, strict=True)) | {
            name: p.grad for name, p in self.parameters.items()
        }

    def _backward(self, cache: Any) -> list[Array]:
        dy = self.dy.copy()
        returned = self.layer.backward(dy, cache)
        dxs = [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]
        expected = {name: tuple(x.shape) for name, x in self.floats.items()}
        if [getattr(dx, "shape", None) for dx in dxs] != list(expected.values()):
            got = ", ".join(map(describe, dxs)) or "nothing"
            raise InputError(
                f"backward: expected a gradient for each input of floats (a mask is to be boolean), of shapes "
                f"{expected}, got {got}"
            )
        dxs = [dx.copy() for dx in dxs]
        if not same(dy, self.dy):
            self._record_broken("backward writes to dy")
        return dxs

    def _forward_on_other_inputs(self) -> None:
        """Run forward on other numbers, ids, masks and dropout, to overwrite anything that the layer kept on itself."""
        floats_moved = [0.9 * x if is_float(x) else x for x in self.inputs]
        all_moved = [x.ravel()[::-1].reshape(x.shape) if is_array(x) else x for x in floats_moved]
        with silent_overflow():
            try:
                self.forward(self.layer, all_moved, stream=1)
            except Exception:  # not every layer accepts every order of ids
                self.forward(self.layer, floats_moved, stream=1)

    def _state(self) -> tuple[dict[str, Array], dict[str, int]]:
        """Copies of the inputs, and checksums of the parameters, whose copies might take too much memory."""
        inputs = {name: x.copy() for name, x in self.arrays.items()}
        return inputs, {name: checksum(p.data) for name, p in self.parameters.items()}

    def _check_unchanged(self, who: str, before: tuple[dict[str, Array], dict[str, int]]) -> None:
        """Record which inputs and parameters have changed since `before`, and restore the inputs."""
        inputs, sums = before
        for name, x in inputs.items():
            if not same(self.arrays[name], x):
                self._record_broken(f"{who} writes to {name}")
                self.arrays[name][...] = x
        for name, p in self.parameters.items():
            if checksum(p.data) != sums[name]:
                self._record_broken(f"{who} writes to {name}")

    def _record_broken(self, rule: str) -> None:
        if rule not in self.broken:
            self.broken.append(rule)

    def change(self, move: Callable[[float], None]) -> Function:
        """L as a function f(t), minus L at 0. `move(t)` puts the variables in their places at t; f leaves them so."""

        def f(t: float) -> float:
            move(t)
            with silent_overflow():
                y, _ = self.forward(self.layer, self.inputs)
            return float(((y - self.y) * self.dy).sum())  # a sum of small differences, to keep their digits

        return f

    def complex_change(self) -> tuple[dict[str, Array], Callable[[], float]]:
        """The variables of a complex copy, and a function that returns Im L / COMPLEX_STEP at their values."""
        layer = converted(self.layer, "complex128")
        inputs = [as_dtype(x, "complex128") for x in self.inputs]
        variables = [x for x in inputs if is_float(x)] + [p.data for p in parameters_of(layer).values()]

        def imaginary() -> float:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", ComplexWarning)
                    y, _ = self.forward(layer, inputs)
            except (TypeError, ComplexWarning) as error:
                raise InputError(f"forward: cannot run in complex numbers ({error}): {ANALYTIC}") from error
            if y.dtype.kind != "c":
                raise InputError(f"forward: turned complex numbers into {y.dtype}: {ANALYTIC}")
            return float((y.imag / COMPLEX_STEP * self.dy).sum())

        return dict(zip(self.variables, variables, strict=True)), imaginary

    def random_direction(self) -> dict[str, Array]:
        """A unit vector over all variables, no component of which is near zero."""
        direction = {}
        for name, x in self.variables.items():
            u = self.rng.uniform(0.5, 1.5, x.shape) * self.rng.choice([-1.0, 1.0], x.shape)
            direction[name] = array_module(x).asarray(u)
        length = sum(float((u * u).sum()) for u in direction.values()) ** 0.5
        for u in direction.values():
            u /= length
        return direction

    def step_aside(self) -> None:
        """Move every number by about ASIDE."""
        for name, u in self.random_direction().items():
            self.variables[name][...] += ASIDE * self.n_numbers**0.5 * u
        self.y = self.forward(self.layer, self.inputs)[0].copy()

    def sizes(self) -> dict[int, str]:
        """Number -> which axes of the inputs and of y have that size; products of y's first axes, too."""
        found: dict[int, str] = {}
        for name, x in (*self.floats.items(), ("y", self.y)):
            for axis, size in enumerate(x.shape):
                found.setdefault(int(size), f"the size of axis {axis} of {name}")
        product = 1
        for axis, size in enumerate(self.y.shape):
            product *= int(size)
            found.setdefault(product, f"the product of axes 0 to {axis} of y")
        return {size: axes for size, axes in found.items() if size > 1}


def check_arguments(layer: Any, inputs: tuple[Any, ...], dropout_seed: int | None) -> None:
    """Raise InputError for what cannot be checked at all."""
    if not is_layer(layer):
        raise InputError(f"gradcheck: expected an object with forward and backward, got {describe(layer)}")
    if any(is_float(x) and x.dtype.kind == "c" for x in inputs):
        raise InputError("gradcheck: expected real inputs, got complex ones")
    arguments = inspect.signature(layer.forward).parameters
    takes_rng = "rng" in arguments or any(a.kind == a.VAR_KEYWORD for a in arguments.values())
    if dropout_seed is not None and not takes_rng:
        raise InputError("dropout_seed: expected a forward(..., rng=None), got one without rng")


def is_array(x: Any) -> bool:
    """Whether `x` is an array of any library, of floats, ids or booleans."""
    return hasattr(x, "dtype") and hasattr(x, "shape")


def checksum(x: Array) -> int:
    """A number that two different arrays share only by chance."""
    return zlib.crc32(to_host(x).tobytes())


def as_dtype(x: Any, dtype: str) -> Any:
    """A copy of an array, converted to `dtype` if it holds floats; anything else as it is."""
    if is_float(x):
        return array_module(x).asarray(x.astype(dtype, order="C"))
    return x.copy() if is_array(x) else x


def same(a: Array, b: Array) -> bool:
    """Whether all entries are equal, NaN to NaN."""
    return bool(((a == b) | ((a != a) & (b != b))).all())


def input_names(layer: Any, n: int, taken: Iterable[str]) -> list[str]:
    """The names of forward's inputs, e.g. query, key, value; "input 0" … if it has none for them."""
    arguments = inspect.signature(layer.forward).parameters.values()
    names = [a.name for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) and names[i] not in taken else f"input {i}" for i in range(n)]
