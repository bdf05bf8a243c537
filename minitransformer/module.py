"""Parameter and Module, of which every layer and model of this package is made.

The contract of a layer is two methods and an explicit cache:

    y, cache = layer.forward(x, ..., rng=None)    # pure: writes to no input, no parameter, not to itself
    dx = layer.backward(dy, cache)                # adds into Parameter.grad, returns the gradient(s) of x, ...

`cache` is a NamedTuple that holds what backward needs. Since it is not kept on the layer, a layer may be used
twice in one model, two forward passes may be in flight, and dropping the cache drops the memory.
`rng=None` means evaluation. In training, `rng` is a generator, from which dropout draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from minitransformer.backend import (
    Array,
    DTypeLike,
    array_module,
    castable,
    dtype_of,
    silent_overflow,
    to_device,
    to_host,
)
from minitransformer.errors import CheckpointError, describe
from minitransformer.memory import FlatMemory
from minitransformer.parameter import Constant, Parameter, arrays_of, parameters_of
from minitransformer.validation.training import as_array_of_numbers

__all__ = ["Constant", "Module", "Parameter"]

M = TypeVar("M", bound="Module")


class Module(FlatMemory):
    """Base class of layers and models, which finds its parameters by walking its attributes."""

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
        """The number of learned numbers in all parameters."""
        return sum(p.size for p in self.parameters().values())

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for p in self.parameters().values():
            p.grad[...] = 0

    def to(self: M, device: str | None = None, dtype: DTypeLike = None) -> M:
        """Move to a device ("cpu", "cuda") and/or convert to a dtype, in place; returns itself."""

        def moved(x: Array) -> Array:
            x = x if dtype is None else x.astype(dtype_of(dtype), order="C")
            return x if device is None else to_device(x, device)

        for leaf in arrays_of(self):
            if isinstance(leaf, Constant):
                leaf.data = moved(leaf.data if dtype is None else array_module(leaf.data).asarray(leaf.exact))
        for p in self.parameters().values():
            p.convert(moved)
        return self

    def state_dict(self) -> dict[str, Array]:
        """Path -> a copy of the parameter as a NumPy array."""
        return {name: to_host(p.data).copy() for name, p in self.parameters().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set all parameters from a dict as `state_dict` returns it.

        Raises CheckpointError, and changes nothing, if a name is missing or unknown, a shape differs, a dtype cannot be
        cast, or a number is not finite in it; InputError for another library's array that NumPy cannot read.
        """
        if not isinstance(state, Mapping):
            raise CheckpointError(f"expected a state of names and arrays, got {describe(state)}")
        state = {name: as_array_of_numbers(name, x) for name, x in state.items()}
        parameters = self.parameters()
        if missing := [name for name in parameters if name not in state]:
            raise CheckpointError(
                f"state lacks {len(missing)} parameter(s) of the model, e.g. {missing[0]!r}"
            )
        if unknown := [name for name in state if name not in parameters]:
            raise CheckpointError(
                f"state has {len(unknown)} name(s) the model lacks, e.g. {describe(unknown[0])}"
            )
        for name, p in parameters.items():
            x = state[name]
            if getattr(x, "shape", None) != p.shape or not castable(x, p.data):
                raise CheckpointError(
                    f"{name}: expected {p.data.dtype} of shape {p.shape}, got {describe(x)}"
                )
            with silent_overflow():
                if not array_module(x).isfinite(x.astype(p.data.dtype)).all():
                    raise CheckpointError(f"{name}: expected numbers that {p.data.dtype} holds, all finite")
        for name, p in parameters.items():
            p.data = array_module(p.data).asarray(state[name])
