"""The memory of a module's parameters: one flat buffer, which forked processes and copies of the module can share."""

from __future__ import annotations

import copy
import mmap
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import accumulate
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from minitransformer.backend import Array, DTypeLike, array_module, on_gpu, zeros
from minitransformer.errors import InputError, describe
from minitransformer.parameter import Constant, Parameter, arrays_of, leaves_of, parameters_of

L = TypeVar("L")
M = TypeVar("M", bound="FlatMemory")


class Flat(NamedTuple):
    """All parameters of a module in one flat buffer, and all gradients in another."""

    data: Array  # (n_parameters,)
    grad: Array  # (n_parameters,)


class FlatMemory:
    """The part of a Module that moves its parameters into one flat buffer."""

    _views: _Views | None = None

    def flatten(self) -> Flat:
        """Put all parameters into one flat buffer, and all gradients into another; return the two.

        Each Parameter becomes a view, so the global norm, Adam and averaging are one operation each. A second
        call returns the same buffers, unless a parameter was added or moved since.
        """
        parameters = list(parameters_of(self).values())
        if self._views is not None and self._views.hold(parameters):
            return self._views.flat
        if not parameters:
            return Flat(zeros((0,)), zeros((0,)))
        return self._move(parameters, lambda n, dtype, like: zeros((n,), dtype, like))

    def lies_in(self, flat: Flat) -> bool:
        """Whether the parameters that were put into this buffer are all still there."""
        views = self._views
        return views is not None and views.flat.data is flat.data and views.hold(views.parameters)

    def share(self) -> Flat:
        """Flatten into memory that this process shares with processes forked from it later."""
        return self._move(list(parameters_of(self).values()), shared_zeros)

    def _move(self, parameters: list[Parameter], allocate: Callable[..., Array]) -> Flat:
        first, size = parameters[0].data, sum(p.size for p in parameters)
        if other := {str(p.data.dtype) for p in parameters} - {str(first.dtype)}:
            raise InputError(
                f"{type(self).__name__}: expected parameters of one dtype, to lie side by side, got {first.dtype} and "
                f"{', '.join(sorted(other))}; layer.to(dtype='float32') gives all of them one"
            )
        self._views = _Views(Flat(*(allocate(size, first.dtype, first) for _ in range(2))), parameters)
        # one at a time, since a second copy of all parameters may not fit into memory
        for p, data, grad in self._views.places():
            data[...], grad[...] = p.data, p.grad
            p.rebind(data, grad)
        return self._views.flat

    def replica(self: M) -> M:
        """A copy that shares this module's weights but has its own gradients, in memory that forks share.

        Both see every change of a weight, until one of them, or a part of one, is moved: to another dtype or
        device, or into a flat buffer of its own.
        """
        flat, parameters = self.flatten(), parameters_of(self).values()
        shared = [*flat, *(leaf.data for leaf in arrays_of(self)), *(p.grad for p in parameters)]
        twin = copy_sharing(self, shared)
        own = Flat(flat.data, shared_zeros(flat.grad.size, flat.grad.dtype, flat.grad))
        twin._views = _Views(own, list(parameters_of(twin).values()))
        for p, data, grad in twin._views.places():
            p.rebind(data, grad)
        return twin


class Buffer:
    """The flat buffer of `module`, for a `user` whose own arrays have its size: an optimizer, replicas.

    It notices if the module has gained, lost or exchanged parameters since, or has moved to another dtype or device.
    """

    def __init__(self, module: FlatMemory, user: str) -> None:
        if not isinstance(module, FlatMemory):
            raise InputError(
                f"{user}: expected a model, a subclass of Module, got {describe(module)}; layers that are attributes "
                f"of one Module, or in a list there, are one model"
            )
        self.module, self.user = module, user
        self._flat, self._parameters = module.flatten(), parameters_of(module)

    def flat(self) -> Flat:
        """The buffer, wherever it is now. Raises InputError if its parameters are not those that it held at first."""
        flat = self.module.flatten()
        if flat.data is not self._flat.data:
            if wrong := self._difference(flat):
                raise InputError(
                    f"{self.user}: expected the model that it was made for, but {wrong}; make a new one"
                )
            self._flat = flat
        return flat

    def places(self) -> dict[str, slice]:
        """Path -> where in the buffer the parameter lies."""
        parameters = self._parameters.items()
        stops = accumulate(p.size for _, p in parameters)
        return {name: slice(stop - p.size, stop) for (name, p), stop in zip(parameters, stops, strict=True)}

    def layout(self) -> int:
        """A number that tells this buffer from one of another model: a checksum of the parameters' names and shapes."""
        return zlib.crc32(repr([(name, p.shape) for name, p in self._parameters.items()]).encode())

    def _difference(self, flat: Flat) -> str:
        now, then = parameters_of(self.module), self._parameters
        if lost := [name for name in then if name not in now]:
            return f"{lost[0]} is not there any more"
        if new := [name for name in now if name not in then]:
            return f"{new[0]} is new"
        if other := [a for a, b in zip(now, then, strict=True) if now[a] is not then[a] or a != b]:
            return f"{other[0]} is another parameter now"
        kinds = [(x.dtype, on_gpu(x)) for x in (flat.data, self._flat.data)]
        return "" if kinds[0] == kinds[1] else f"it is {describe(flat.data)} now, or on another device"


class _Views:
    """A flat buffer and the parameters that live in it."""

    def __init__(self, flat: Flat, parameters: list[Parameter]) -> None:
        self.flat, self.parameters = flat, parameters

    def hold(self, parameters: list[Parameter]) -> bool:
        """Whether the buffer was made for exactly these parameters, and they still live in it."""
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


def shared_zeros(n: int, dtype: DTypeLike, like: Array) -> Array:
    """`n` zeros in memory shared with processes forked from this one (on a GPU, which forks cannot use: zeros)."""
    if on_gpu(like) or n == 0:
        return zeros((n,), dtype, like)
    n_bytes = n * zeros((), dtype).itemsize
    return array_module(like).frombuffer(mmap.mmap(-1, n_bytes), dtype)


def converted(layer: L, dtype: DTypeLike, copied: dict[int, Any] | None = None) -> L:
    """A copy of any object with a forward and a backward in another dtype, its gradients zero.

    `copied` is the memo of deepcopy: afterwards it holds every object that was copied. Raises InputError, naming the
    attribute, for what cannot be copied.
    """
    arrays = [x for p in parameters_of(layer).values() for x in (p.data, p.grad)]
    buffers = [x.base for x in arrays if x.base is not None]
    twin = copy_sharing(layer, arrays + buffers, copied)
    if shared := {id(x) for x in arrays_of(layer)} & {id(x) for x in arrays_of(twin)}:
        message = f"expected a copy with Parameters of its own, got one that shares {len(shared)} of them"
        raise InputError(f"{type(layer).__name__}: {message}; is there a __deepcopy__ that does not copy?")
    for p in parameters_of(twin).values():
        data = p.data.astype(dtype, order="C")
        p.rebind(data, zeros(data.shape, dtype, like=data))
    for leaf in arrays_of(twin):
        if isinstance(leaf, Constant):
            leaf.data = array_module(leaf.data).asarray(leaf.exact.astype(dtype))
    return twin


def copy_sharing(layer: L, objects: list[Any], copied: dict[int, Any] | None = None) -> L:
    """A deep copy that shares `objects`, and all Python modules, with the original."""
    copied = {} if copied is None else copied
    candidates = [layer, *sys.modules.values(), *(leaf for _, leaf in leaves_of(layer))]
    # deepcopy takes whatever is in its memo for copied already
    copied |= {id(x): x for x in [*objects, *(x for x in candidates if isinstance(x, ModuleType))]}
    shared = dict(copied)
    try:
        return copy.deepcopy(layer, copied)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"{_culprit(layer, shared)}: cannot be copied ({describe(error)}); keep it outside the layer, or give "
            f"its class a __deepcopy__"
        ) from error


def _culprit(layer: Any, shared: dict[int, Any]) -> str:
    """Which attribute below `layer` cannot be copied."""
    for path, leaf in leaves_of(layer):
        try:
            copy.deepcopy(leaf, dict(shared))
        except Exception:
            return f"layer.{path}"
    return type(layer).__name__
