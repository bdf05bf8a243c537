"""The layer under test: a float64 copy of it and its inputs, and L = Σ forward · dy as a function of their numbers."""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from types import ModuleType
from typing import Any

from minitransformer.backend import (
    Array,
    ComplexWarning,
    array_module,
    generator,
    is_array,
    is_float,
    to_host,
)
from minitransformer.errors import InputError, MinitransformerError, describe
from minitransformer.gradcheck.arguments import check_arguments, check_methods, input_names
from minitransformer.gradcheck.derivatives import EPS, Function
from minitransformer.gradcheck.hidden import hidden_parameters
from minitransformer.memory import converted, copy_sharing
from minitransformer.parameter import parameters_of, walk

# So small that its square vanishes beside 1; nothing is subtracted, so the step may be that small.
COMPLEX_STEP = 1e-30
SPREAD = 0.5  # by how much parameters whose entries are all equal are spread out: this share of a number other than 0
ASIDE = 1e-2  # about how far `step_aside` moves each number
ANALYTIC = "is forward analytic (no abs, norm, conj, real, float)? If not, use method='central'"


class Subject:
    """A layer in float64, its inputs, and a random upstream gradient dy.

    Parameters whose entries are all equal are made random, because a gamma of ones and a bias of zeros hide mistakes.
    `broken` lists the rules of the contract that the layer was seen to break.
    """

    def __init__(
        self,
        layer: Any,
        inputs: Sequence[Any],
        dropout_seed: int | None,
        seed: int,
        names: Sequence[str] | None = None,
    ) -> None:
        check_methods(layer)
        names = names or input_names(layer.forward, len(inputs))
        check_arguments(layer, inputs, names, dropout_seed)
        self.broken: list[str] = []
        self.evaluated: Callable[[], None] = lambda: None  # called for each evaluation of L
        self.writes = False  # whether it writes to its parameters, which are then put back after each call
        copied: dict[int, Any] = {}
        self.layer = converted(layer, "float64", copied)
        self.inputs = [as_dtype(x, "float64") for x in inputs]
        self.dropout_seed, self.rng = dropout_seed, generator(seed)
        self.parameters = parameters_of(self.layer)
        self.not_found = hidden_parameters(layer, copied.values(), self.parameters.values())
        for p in self.parameters.values():
            if p.size and bool((p.data == (first := p.data.ravel()[0])).all()):
                spread = SPREAD * (abs(float(first)) or 1)  # a variance stays positive
                p.data += array_module(p.data).asarray(self.rng.uniform(-spread, spread, p.shape))
        free = (f"input {i}" if name in self.parameters else name for i, name in enumerate(names))
        self.named = dict(zip(free, self.inputs, strict=True))
        self.floats = {name: x for name, x in self.named.items() if is_float(x)}
        self.variables: dict[str, Array] = self.floats | {name: p.data for name, p in self.parameters.items()}
        self.n_numbers = sum(int(x.size) for x in self.variables.values())
        if not self.n_numbers:
            raise InputError(
                f"gradcheck: expected a floating-point input or a Parameter, got neither{self._others()}"
            )
        # a copy with the same Parameters, on which forward is never called
        self.untouched = copy_sharing(self.layer, list(self.parameters.values()))
        self.y = self._first_y()
        if late := parameters_of(self.layer).keys() - self.parameters.keys():
            raise InputError(f"forward: expected no new Parameters, got {min(late)}: make it in __init__")
        self.draw_upstream()

    def draw_upstream(self) -> None:
        """Draw another dy, which makes another L."""
        self.dy = array_module(self.y).asarray(self.rng.normal(size=self.y.shape))
        length = norm([self.y * self.dy])
        self.size = length or 1.0  # about the size of L, and never 0
        self.noise = 4 * EPS * length  # about the rounding error of L

    def forward(self, layer: Any, inputs: list[Any], stream: int = 0) -> tuple[Array, Any]:
        """y and cache of layer.forward on copies, with the same random numbers each time for the same `stream`."""
        seed = (self.dropout_seed, stream) if stream else (self.dropout_seed,)
        how = {} if self.dropout_seed is None else {"rng": generator(*seed)}
        self.given = copies(inputs)
        returned = layer.forward(*self.given, **how)
        if not isinstance(returned, tuple) or len(returned) != 2:
            kind = type(returned).__name__
            got = f"a {kind} of {len(returned)}" if isinstance(returned, tuple | list) else describe(returned)
            raise InputError(f"forward: expected (y, cache), got {got}: end it with `return y, cache`")
        y, cache = returned
        if not (is_array(y) and is_float(y)):
            raise InputError(
                f"forward: expected (y, cache), y an array of floats; got a {type(y).__name__} for y"
            )
        return y, cache

    def _y(self, always: bool = False) -> Array:
        """A copy of y, which may itself be a view of a parameter, and parameters will be moved."""
        with self._watch("forward", self.layer, always):
            return self.forward(self.layer, self.inputs)[0].copy()

    def _first_y(self) -> Array:
        try:
            y = self._y(always=True)
        except Exception as error:
            if isinstance(error, MinitransformerError) or all(map(is_array, self.inputs)):
                raise
            raise InputError(
                f"forward: expected inputs that it can use, got {describe(error)}{self._others()}"
            ) from error
        self._compare("forward", self.given, self.inputs)
        start = time.perf_counter()
        again = self._y()
        self.seconds = time.perf_counter() - start  # about as long as any forward takes
        if y.dtype.kind == "c" or again.shape != y.shape:
            got = f"{describe(y)}, then {describe(again)}"
            raise InputError(f"forward: expected real numbers for y, of one shape, got {got}")
        if y.dtype != "float64":
            self._record_broken(f"forward gives {y.dtype}, though it was given float64 only")
        if not same(y, again):
            self._record_broken(
                "forward gives another y for the same inputs: random without its rng, or a hidden state?"
            )
        return y

    def analytic_gradients(self) -> dict[str, Array]:
        """Name -> gradient, from backward.

        backward is called twice and must return the same both times. Parameter gradients add up, so `=` in place of
        `+=` gives half of the sum. forward runs on other inputs before that, so the cache has to hold all that
        backward needs, and must not write to the y that it returned first.
        """
        for p in self.parameters.values():
            p.grad[...] = 1
        with self._watch("forward", self.layer):
            y, cache = self.forward(self.layer, self.inputs)
            y_before = y.copy()
            given, before, cached = self.given, copies(self.given), self._arrays_in(cache)
            self._forward_on_other_inputs()
            for name, p in self.parameters.items():
                if bool((p.grad != 1).any()):
                    self._record_broken(f"forward writes to the gradient of {name}")
                p.grad[...] = 0
            if not same(y, y_before):
                self._record_broken("forward writes to the y that it returned before")
            try:
                first, again = self._backward(cache), self._backward_again(cache)
            except (
                Exception
            ):  # perhaps for the larger batch: then it succeeds after a forward of the inputs themselves
                _, cache = self.forward(self.layer, self.inputs)
                for p in self.parameters.values():
                    p.grad[...] = 0
                first, again = self._backward(cache), self._backward_again(cache)
                self._record_broken("backward needs what the last forward has kept outside the cache")
        # an array in the cache may be an input
        if not self._compare("backward", given, before):
            for path in [path for path, x, was in cached if checksum(x) != was]:
                self._record_broken(f"backward writes to {path}")
        if not all(map(same, first, again)):
            self._record_broken(
                "backward gives another gradient for the same dy and cache when it is called again"
            )
        if not self.broken and not self._needs_the_cache_alone(cache, first):
            self._record_broken("backward needs what forward has kept outside the cache")
        for p in self.parameters.values():
            p.grad *= 0.5
        return dict(zip(self.floats, first, strict=True)) | {
            name: p.grad for name, p in self.parameters.items()
        }

    def _backward(self, cache: Any) -> list[Array]:
        dy = self.dy.copy()
        with self._watch("backward", self.layer, always=True):
            returned = self.layer.backward(dy, cache)
        dxs = [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]
        expected = {name: tuple(x.shape) for name, x in self.floats.items()}
        shapes = [tuple(dx.shape) if is_array(dx) and dx.dtype.kind in "biuf" else None for dx in dxs]
        if shapes != list(expected.values()):
            got = ", ".join(map(describe, dxs)) or "nothing"
            hint = "; return them as a tuple, not as a list" if isinstance(returned, list) else ""
            hint = hint or (self._others() if len(dxs) > len(expected) else "")
            raise InputError(
                f"backward: expected a gradient for each input of floats (a mask has to be boolean), of shapes "
                f"{expected}, got {got}{hint}"
            )
        dxs = [dx.copy() for dx in dxs]
        if not same(dy, self.dy):
            self._record_broken("backward writes to dy")
        return dxs

    def _needs_the_cache_alone(self, cache: Any, dxs: list[Array]) -> bool:
        """Whether backward gives the same `dxs` with a copy of the layer on which forward was never called."""
        gradients = [(p, p.grad.copy()) for p in self.parameters.values()]
        try:
            returned = self.untouched.backward(self.dy.copy(), cache)
            return all(map(same, returned if isinstance(returned, tuple) else [returned], dxs))
        except Exception:
            return False
        finally:
            for p, grad in gradients:
                p.grad[...] = grad

    def _backward_again(self, cache: Any) -> list[Array]:
        try:
            return self._backward(cache)
        except Exception as error:
            raise InputError(
                f"backward: expected to run twice with the same cache, but the second time it raised "
                f"{describe(error)}; does it free what the first call used (PyTorch: retain_graph=True)?"
            ) from error

    def _forward_on_other_inputs(self) -> None:
        """Run forward on other numbers, ids, masks and dropout, to overwrite anything that the layer kept on itself.

        Then, if the layer accepts that, on a larger batch, to overwrite the sizes that it kept.
        """
        floats_moved = [0.9 * x if is_float(x) else x for x in self.inputs]
        all_moved = [shuffled(x) if is_array(x) else x for x in floats_moved]
        larger = [array_module(x).concatenate([x, x[:1]]) if is_array(x) and x.ndim else x for x in all_moved]
        with self._watch("forward", self.layer):
            try:
                self.forward(self.layer, all_moved, stream=1)
            except Exception:  # not every layer accepts every order of ids
                self.forward(self.layer, floats_moved, stream=1)
            with suppress(Exception):
                self.forward(self.layer, larger, stream=1)

    def _others(self) -> str:
        """A hint on the inputs that are not arrays of floats, if there are any."""
        others = ", ".join(
            f"{name} is {describe(x)}" for name, x in self.named.items() if not (is_float(x) and x.size)
        )
        return f"; {others}: pass what has a gradient as numpy.asarray(…, float)" if others else ""

    def _arrays_in(self, cache: Any) -> list[tuple[str, Array, int]]:
        """Path, array and checksum of every array in the cache, except parameters and gradients."""
        own = {id(x) for p in self.parameters.values() for x in (p.data, p.grad)}
        found = walk([("cache", cache)], has_attributes, set())
        return [(path, x, checksum(x)) for path, x in found if is_array(x) and id(x) not in own]

    def _compare(self, who: str, given: list[Any], before: list[Any]) -> bool:
        """Note the inputs to which `who` has written, and return whether there are any."""
        pairs = zip(self.named, given, before, strict=True)
        written = [name for name, x, was in pairs if not unchanged(x, was)]
        for name in written:
            self._record_broken(f"{who} writes to {name}")
        return bool(written)

    @contextmanager
    def _watch(self, who: str, layer: Any, always: bool = False) -> Iterator[None]:
        """Note the parameters to which `who` writes, and put them back: `always`, or if writing is expected."""
        parameters = parameters_of(layer) if always or self.writes else {}
        before = {name: p.data.copy() for name, p in parameters.items()}
        yield
        for name, x in before.items():
            if not same(parameters[name].data, x):
                self._record_broken(f"{who} writes to {name}")
                parameters[name].data[...], self.writes = x, True

    def _record_broken(self, rule: str) -> None:
        if rule not in self.broken:
            self.broken.append(rule)

    def change(self, move: Callable[[float], None]) -> Function:
        """f(t) = L at t minus L at 0. `move(t)` puts the variables in their places at t, where f leaves them."""

        def f(t: float) -> float:
            move(t)
            self.evaluated()
            with self._watch("forward", self.layer):
                y, _ = self.forward(self.layer, self.inputs)
                # a sum of small differences, to keep their digits
                return float(((y - self.y) * self.dy).sum())

        return f

    def complex_change(self) -> tuple[dict[str, Array], Callable[[], float]]:
        """The variables of a complex copy, and a function that returns Im L / COMPLEX_STEP at their values."""
        layer = converted(self.layer, "complex128")
        inputs = [as_dtype(x, "complex128") for x in self.inputs]
        variables = [x for x in inputs if is_float(x)] + [p.data for p in parameters_of(layer).values()]

        def imaginary() -> float:
            self.evaluated()
            try:
                with warnings.catch_warnings(), self._watch("forward", layer):
                    warnings.simplefilter("error", ComplexWarning)
                    y = self.forward(layer, inputs)[0].copy()
            except (TypeError, ComplexWarning) as error:
                raise InputError(f"forward: cannot run in complex numbers ({error}): {ANALYTIC}") from error
            if y.dtype.kind != "c":
                raise InputError(f"forward: turned complex numbers into {y.dtype}: {ANALYTIC}")
            return float((y.imag / COMPLEX_STEP * self.dy).sum())

        return dict(zip(self.variables, variables, strict=True)), imaginary

    def random_direction(self, names: Iterable[str]) -> dict[str, Array]:
        """A unit vector over the variables `names`, no component of which is near zero."""
        direction = {}
        for name in names:
            x = self.variables[name]
            u = self.rng.uniform(0.5, 1.5, x.shape) * self.rng.choice([-1.0, 1.0], x.shape)
            direction[name] = array_module(x).asarray(u)
        length = sum(float((u * u).sum()) for u in direction.values()) ** 0.5
        for u in direction.values():
            u /= length
        return direction

    def step_aside(self) -> None:
        """Move every number by about ASIDE."""
        for name, u in self.random_direction(self.variables).items():
            self.variables[name][...] += ASIDE * self.n_numbers**0.5 * u
        self.y = self._y()

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


def shuffled(x: Array) -> Array:
    """The numbers of `x` in another order: every second one from the end, then the others."""
    flat = x.ravel()[::-1]
    return array_module(x).concatenate([flat[::2], flat[1::2]]).reshape(x.shape)


def has_attributes(node: Any) -> bool:
    """Whether the walk through a cache looks into `node`, which is not a collection."""
    closed = is_array(node) or isinstance(node, type | ModuleType)
    return not closed and (hasattr(node, "__dict__") or hasattr(node, "__slots__"))


def copies(inputs: Iterable[Any]) -> list[Any]:
    """The inputs, with copies of arrays and collections, and the others as they are."""
    return [copied(x) for x in inputs]


def copied(x: Any) -> Any:
    """A copy of an array or a collection; anything else as it is."""
    return x.copy() if is_array(x) else deepcopy(x) if isinstance(x, list | dict | set) else x


def unchanged(x: Any, was: Any) -> bool:
    """Whether an input is as its copy `was`."""
    return same(x, was) if is_array(x) else not isinstance(x, list | dict | set) or x == was


def norm(arrays: Iterable[Array]) -> float:
    """The root of the sum of all squares, none of which overflows or vanishes."""
    arrays = [x for x in arrays if x.size]
    largest = max((float(abs(x).max()) for x in arrays), default=0.0)
    return largest and largest * float(sum(float(((x / largest) ** 2).sum()) for x in arrays)) ** 0.5


def checksum(x: Array) -> int:
    """A number that two different arrays share only by chance."""
    return zlib.crc32(to_host(x).tobytes())


def as_dtype(x: Any, dtype: str) -> Any:
    """A copy of an array, converted to `dtype` if it holds floats, or of a collection; anything else as it is."""
    if is_float(x):
        return array_module(x).asarray(x.astype(dtype, order="C"))
    return copied(x)


def same(a: Array, b: Array) -> bool:
    """Whether all entries are equal, NaN to NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
