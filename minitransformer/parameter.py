"""Parameter and Constant, the arrays of a module, and the walk over its attributes that finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

from minitransformer.backend import Array, DTypeLike, array_module, castable, is_array, is_float
from minitransformer.errors import InputError, describe

COLLECTIONS = (list, tuple)
# the types of most attributes, which the walk skips
PLAIN = {int, float, bool, str, type(None)}


class Parameter:
    """A learned array `data` and its gradient `grad`, of one shape and dtype.

    Assigning writes into the memory that is there (`p.data = x` is `p.data[...] = x`), so that a parameter may
    live in a buffer shared by the whole model. Gradients are added: `p.grad += ...`.
    """

    def __init__(self, data: Array) -> None:
        if not (is_array(data) and is_float(data)):
            expected = "an array of floats, NumPy's or CuPy's (numpy.asarray(…, 'float32') makes one)"
            raise InputError(f"Parameter: expected {expected}, got {describe(data)}")
        # a NumPy scalar becomes an array, which can be written to; rows are contiguous, as `add_rows` needs them
        self._data = array_module(data).asarray(data, order="C")
        self._grad: Array | None = None  # allocated on first use

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        if value is not self._data:  # else `p.data -= ...` has written in place already
            self._write(self._data, value)

    @property
    def grad(self) -> Array:
        if self._grad is None:
            self._grad = array_module(self._data).zeros_like(self._data)
        return self._grad

    @grad.setter
    def grad(self, value: Array) -> None:
        if value is not self._grad:  # else `p.grad += ...` has written in place already
            self._write(self.grad, value)

    def _write(self, out: Array, value: Array) -> None:
        """out[...] = value. Raises InputError for another shape, which would be broadcast, and for another kind."""
        fits = is_array(value) and value.shape == self.shape
        if not (fits and castable(value, out)):
            raise InputError(f"Parameter: expected {describe(out)} to write there, got {describe(value)}")
        array_module(value).copyto(out, value, casting="same_kind")

    def convert(self, change: Callable[[Array], Array]) -> None:
        """Replace `data` and `grad` by what `change` returns for each."""
        self._data = change(self._data)
        self._grad = None if self._grad is None else change(self._grad)

    def rebind(self, data: Array, grad: Array) -> None:
        """Use these arrays from now on, perhaps of another dtype or device, or views of a larger buffer."""
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

    `exact` is kept as it was given, so that going to float32 and back to float64 loses nothing.
    """

    def __init__(self, exact: Array, dtype: DTypeLike) -> None:
        self.exact = exact
        self.data = exact.astype(dtype)


def parameters_of(layer: Any) -> dict[str, Parameter]:
    """Path -> Parameter for any object with a forward and a backward: see `Module.parameters`.

    Raises InputError if two Parameters have the same path, as those at the keys 1 and "1" of a dict would.
    """
    found: dict[int, tuple[str, Parameter]] = {}
    for path, leaf in leaves_of(layer):
        if isinstance(leaf, Parameter):
            found.setdefault(id(leaf), (path, leaf))
    parameters = dict(found.values())
    if len(parameters) < len(found):
        paths = [path for path, _ in found.values()]
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(
            f"{type(layer).__name__}: expected one Parameter at {twice!r}, got several; rename a key"
        )
    return parameters


def arrays_of(layer: Any) -> Iterator[Parameter | Constant]:
    """The Parameters and Constants below `layer`; a tied one is yielded more than once."""
    return (leaf for _, leaf in leaves_of(layer) if isinstance(leaf, Parameter | Constant))


def loose_arrays(layer: Any) -> list[str]:
    """The paths of the floating-point arrays in `layer` that are neither Parameter nor Constant."""
    return [path for path, leaf in leaves_of(layer) if is_float(leaf)]


def is_layer(node: Any) -> bool:
    """Whether `node` is an object with the methods forward and backward."""
    return not isinstance(node, type) and hasattr(node, "forward") and hasattr(node, "backward")


def leaves_of(layer: Any) -> list[tuple[str, Any]]:
    """Path and value of each attribute below `layer` that is not a layer, a collection, or of a type in PLAIN."""
    return walk(_attributes(layer), is_layer, seen={id(layer)})


def walk(
    children: Iterable[tuple[Any, Any]],
    has_attributes: Callable[[Any], bool],
    seen: set[int],
    plain: Set[type] = PLAIN,
) -> list[tuple[str, Any]]:
    """The leaves among `children`, in collections, and in objects that `has_attributes` names, with their paths.

    Whatever holds others is entered once, by the first path to it, because such objects may hold one another or
    themselves.
    """
    found: list[tuple[str, Any]] = []
    open_ones = [(iter(children), "")]
    while open_ones:
        children, path = open_ones[-1]
        for name, child in children:
            # Parameters first, since most leaves are Parameters, and every training step walks the model.
            if isinstance(child, Parameter):
                found.append((f"{path}{name}", child))
                continue
            if type(child) in plain:
                continue
            inside: Iterable[tuple[Any, Any]]
            if has_attributes(child):
                inside = _attributes(child)
            elif isinstance(child, dict):
                inside = child.items()
            elif isinstance(child, COLLECTIONS):
                inside = enumerate(child)
            else:
                found.append((f"{path}{name}", child))
                continue
            if id(child) not in seen:
                seen.add(id(child))
                open_ones.append((iter(inside), f"{path}{name}."))
                break
        else:
            open_ones.pop()
    return found


def _attributes(node: Any) -> Iterable[tuple[str, Any]]:
    """Name and value of what `node` holds in its dictionary and its slots."""
    state: Any = object.__getstate__(node)
    if isinstance(state, tuple):
        state = {**(state[0] or {}), **state[1]}
    return state.items() if state else ()
