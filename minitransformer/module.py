"""Parameter and Module: what every layer and model of this package is made of.

The contract of a layer is two methods and an explicit cache:

    y, cache = layer.forward(x, ..., rng=None)    # pure: writes to no input, no parameter, not to itself
    dx = layer.backward(dy, cache)                # adds into Parameter.grad, returns the gradient(s) of x, ...

`cache` is a NamedTuple that holds what backward needs. Since it is not kept on the layer, a layer may be used
twice in one model, two forward passes may be in flight, and dropping the cache drops the memory.
`rng=None` is evaluation; with a generator, dropout draws from it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from minitransformer.backend import (
    Array,
    DTypeLike,
    array_module,
    castable,
    dtype_of,
    is_float,
    shared_zeros,
    to_device,
    to_host,
    zeros,
)
from minitransformer.errors import CheckpointError, describe

M = TypeVar("M", bound="Module")
L = TypeVar("L")


class Parameter:
    """A learned array `data` and its gradient `grad`, of one shape and dtype.

    Assigning writes into the memory that is there (`p.data = x` is `p.data[...] = x`), so that a parameter may
    live in a buffer shared by the whole model. Gradients are added: `p.grad += ...`.
    """

    def __init__(self, data: Array) -> None:
        self._data = data
        self._grad: Array | None = None  # until somebody asks for it

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        if value is not self._data:  # after `p.data -= ...` all is done
            array_module(value).copyto(self._data, value, casting="same_kind")

    @property
    def grad(self) -> Array:
        if self._grad is None:
            self._grad = array_module(self._data).zeros_like(self._data)
        return self._grad

    @grad.setter
    def grad(self, value: Array) -> None:
        if value is not self._grad:  # after `p.grad += ...` all is done
            array_module(value).copyto(self.grad, value, casting="same_kind")

    def convert(self, change: Callable[[Array], Array]) -> None:
        """Replace the arrays by what `change` makes of them."""
        self._data = change(self._data)
        self._grad = None if self._grad is None else change(self._grad)

    def rebind(self, data: Array, grad: Array) -> None:
        """Live in other memory from now on: another dtype, another device, or a part of a larger buffer."""
        self._data, self._grad = data, grad

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._data.shape)

    @property
    def size(self) -> int:
        return int(self._data.size)

    def __repr__(self) -> str:
        return f"Parameter(shape={self.shape}, dtype={self._data.dtype})"


class Constant:
    """An array that follows its module to another dtype or device but is not learned.

    `exact` stays as it was given, so that float64 is exact again after float32.
    """

    def __init__(self, exact: Array, dtype: DTypeLike) -> None:
        self.exact = exact
        self.data = exact.astype(dtype)


class Flat(NamedTuple):
    """All parameters of a module in one buffer, and all gradients in its twin."""

    data: Array  # (n_parameters,)
    grad: Array  # (n_parameters,)


class _Views(NamedTuple):
    """A flat buffer and the parameters that live in it."""

    flat: Flat
    parameters: list[Parameter]

    def hold(self, parameters: list[Parameter]) -> bool:
        """Whether `parameters` are all that live in the buffer, and still do."""
        return len(parameters) == len(self.parameters) and all(
            p is q and p.data.base is self.flat.data for p, q in zip(parameters, self.parameters, strict=True)
        )

    def places(self) -> Iterator[tuple[Parameter, Array, Array]]:
        """Each parameter and its part of the two buffers."""
        start = 0
        for p in self.parameters:
            stop = start + p.size
            yield p, self.flat.data[start:stop].reshape(p.shape), self.flat.grad[start:stop].reshape(p.shape)
            start = stop


class Module:
    """Base of layers and models: finds the parameters below it by walking its attributes."""

    _views: _Views | None = None

    def forward(self, *inputs: Any, **kwargs: Any) -> tuple[Any, Any]:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(self, dy: Any, cache: Any) -> Any:
        raise TypeError(f"{type(self).__name__} defines no backward")

    def parameters(self) -> dict[str, Parameter]:
        """Path -> Parameter, in the order of definition, e.g. "encoder.layers.0.self_attention.W_Q".

        A tied weight is one Parameter object: it is listed once, under its first path.
        """
        return parameters_of(self)

    def n_parameters(self) -> int:
        """The number of learned numbers."""
        return sum(p.size for p in self.parameters().values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for holder in self.parameters().values() if self._views is None else [self.flatten()]:
            holder.grad[...] = 0

    def flatten(self) -> Flat:
        """Put all parameters into one flat buffer, and all gradients into another; return the two.

        Each Parameter becomes a view, so zeroing, the global norm, Adam and averaging are one operation
        each. Done once: called again, it returns the same buffers, unless a parameter has come or moved since.
        """
        parameters = list(self.parameters().values())
        if self._views is not None and self._views.hold(parameters):
            return self._views.flat
        if not parameters:
            return Flat(zeros((0,)), zeros((0,)))
        return self._move(parameters, lambda n, dtype, like: zeros((n,), dtype, like))

    def share(self) -> Flat:
        """flatten(), into memory that this process will share with those forked from it."""
        return self._move(list(self.parameters().values()), shared_zeros)

    def _move(self, parameters: list[Parameter], allocate: Callable[..., Array]) -> Flat:
        first, size = parameters[0].data, sum(p.size for p in parameters)
        self._views = _Views(Flat(*(allocate(size, first.dtype, first) for _ in range(2))), parameters)
        for p, data, grad in self._views.places():  # one at a time: no second copy of them all
            data[...], grad[...] = p.data, p.grad
            p.rebind(data, grad)
        return self._views.flat

    def replica(self: M) -> M:
        """A copy that shares this module's weights, but adds up gradients of its own, in memory as in `share`.

        A change of a weight is seen by both, until one of them, or a part of one, is moved: to another dtype
        or device, or into a flat buffer of its own.
        """
        flat, parameters = self.flatten(), self.parameters().values()
        twin = _copy_sharing(
            self, [*flat, *(leaf.data for leaf in _held(self)), *(p.grad for p in parameters)]
        )
        own = Flat(flat.data, shared_zeros(flat.grad.size, flat.grad.dtype, flat.grad))
        twin._views = _Views(own, list(twin.parameters().values()))
        for p, data, grad in twin._views.places():
            p.rebind(data, grad)
        return twin

    def to(self: M, device: str | None = None, dtype: DTypeLike = None) -> M:
        """Move to a device ("cpu", "cuda") and/or convert to a dtype, in place; returns itself."""

        def moved(x: Array) -> Array:
            x = x if dtype is None else x.astype(dtype_of(dtype), order="C")
            return x if device is None else to_device(x, device)

        for leaf in _held(self):
            if isinstance(leaf, Constant):
                leaf.data = moved(leaf.exact.astype(leaf.data.dtype) if dtype is None else leaf.exact)
        for p in self.parameters().values():
            p.convert(moved)
        return self

    def state_dict(self) -> dict[str, Array]:
        """Path -> a copy of the parameter as a NumPy array."""
        return {name: to_host(p.data).copy() for name, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set all parameters from what `state_dict` returned.

        Raises CheckpointError, and changes nothing, if a name is missing or unknown, or a shape or kind of
        number differs.
        """
        if not isinstance(state, Mapping):
            raise CheckpointError(f"expected a state of names and arrays, got {describe(state)}")
        parameters = self.parameters()
        if missing := [name for name in parameters if name not in state]:
            raise CheckpointError(
                f"state lacks {len(missing)} parameter(s) of the model, e.g. {missing[0]!r}"
            )
        if unknown := [name for name in state if name not in parameters]:
            raise CheckpointError(f"state has {len(unknown)} name(s) the model lacks, e.g. {unknown[0]!r}")
        for name, p in parameters.items():
            x = state[name]
            if getattr(x, "shape", None) != p.shape or not castable(x, p.data):
                raise CheckpointError(
                    f"{name}: expected {p.data.dtype} of shape {p.shape}, got {describe(x)}"
                )
        for name, p in parameters.items():
            p.data = array_module(p.data).asarray(state[name])


def parameters_of(layer: Any) -> dict[str, Parameter]:
    """What `Module.parameters` returns, for any object with a forward and a backward."""
    found: dict[int, tuple[str, Parameter]] = {}
    for path, leaf in _leaves(layer):
        if isinstance(leaf, Parameter):
            found.setdefault(id(leaf), (path, leaf))
    return dict(found.values())


def converted(layer: L, dtype: DTypeLike, copied: dict[int, Any] | None = None) -> L:
    """A copy of any object with a forward and a backward, in another dtype, its gradients zero.

    All objects that had to be copied can be looked up in `copied` afterwards.
    """
    arrays = [x for p in parameters_of(layer).values() for x in (p.data, p.grad)]
    buffers = [x.base for x in arrays if x.base is not None]
    twin = _copy_sharing(layer, arrays + buffers, copied)
    for p in parameters_of(twin).values():
        data = p.data.astype(dtype, order="C")
        p.rebind(data, zeros(data.shape, dtype, like=data))
    for leaf in _held(twin):
        if isinstance(leaf, Constant):
            leaf.data = array_module(leaf.data).asarray(leaf.exact.astype(dtype))
    return twin


def loose_arrays(layer: Any) -> list[str]:
    """The paths of the arrays of floats in `layer` that are neither Parameter nor Constant."""
    return [path for path, leaf in _leaves(layer) if is_float(leaf)]


def _copy_sharing(layer: L, arrays: list[Array], copied: dict[int, Any] | None = None) -> L:
    """A deep copy that shares `arrays` with the original."""
    copied = {} if copied is None else copied
    copied |= {id(x): x for x in arrays}  # deepcopy takes these for copied already
    return copy.deepcopy(layer, copied)


def _held(layer: Any) -> Iterator[Parameter | Constant]:
    """The Parameters and Constants below `layer`; what is tied comes more than once."""
    return (leaf for _, leaf in _leaves(layer) if isinstance(leaf, Parameter | Constant))


def is_layer(node: Any) -> bool:
    """Whether `node` has the two methods of the contract."""
    return not isinstance(node, type) and hasattr(node, "forward") and hasattr(node, "backward")


def _leaves(layer: Any) -> list[tuple[str, Any]]:
    """All that is no layer and no collection among the attributes below `layer`, with its path."""
    found: list[tuple[str, Any]] = []

    def walk(children: Iterable[tuple[Any, Any]], path: str) -> None:
        for name, child in children:
            if isinstance(child, Parameter):  # most of what there is, and every training step walks the model
                found.append((f"{path}{name}", child))
            elif is_layer(child):
                walk(vars(child).items(), f"{path}{name}.")
            elif isinstance(child, dict):
                walk(child.items(), f"{path}{name}.")
            elif isinstance(child, _Views):
                continue
            elif isinstance(child, list | tuple):
                walk(enumerate(child), f"{path}{name}.")
            else:
                found.append((f"{path}{name}", child))

    walk(vars(layer).items(), "")
    return found
