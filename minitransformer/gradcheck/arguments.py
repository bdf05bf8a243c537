"""The arguments of a check: their names, and what is refused because it cannot be checked."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from minitransformer.backend import is_array, is_float
from minitransformer.errors import InputError, describe
from minitransformer.parameter import Parameter, is_layer, parameters_of, walk


def check_methods(layer: Any) -> None:
    """Raise InputError for an object without the methods forward and backward."""
    if not is_layer(layer) or not callable(layer.forward) or not callable(layer.backward):
        raise InputError(f"gradcheck: expected an object with forward and backward, got {describe(layer)}")


def check_arguments(
    layer: Any, inputs: Sequence[Any], names: Sequence[str], dropout_seed: int | None
) -> None:
    """Raise InputError for inputs that cannot be checked, or that the layer does not take."""
    for name, x in zip(names, inputs, strict=True):
        check_input(name, x)
    parameters = [p.data for p in parameters_of(layer).values()]
    if any(is_float(x) and x.dtype.kind == "c" for x in (*inputs, *parameters)):
        raise InputError("gradcheck: expected real inputs and parameters, got complex ones")
    forward, backward = inspect.signature(layer.forward), inspect.signature(layer.backward)
    takes_rng = "rng" in forward.parameters or any(
        a.kind == a.VAR_KEYWORD for a in forward.parameters.values()
    )
    if dropout_seed is not None and not takes_rng:
        raise InputError("dropout_seed: expected a forward(..., rng=None), got one without rng")
    try:
        forward.bind(*inputs, **({} if dropout_seed is None else {"rng": None}))
        backward.bind("dy", "cache")
    except TypeError as error:
        expected = f"a forward of these {len(inputs)} inputs, by position, and backward(dy, cache)"
        got = f"forward{forward} and backward{backward}"
        raise InputError(f"gradcheck: expected {expected}, got {got}: {error}") from None


def check_input(name: str, x: Any) -> None:
    """Raise InputError for an input that may hold floats but is not an array, or is an array of objects."""
    leaves = [leaf for _, leaf in walk([(name, x)], lambda node: False, set(), plain=set())]
    odd = any(isinstance(leaf, float | Parameter) or hasattr(leaf, "dtype") for leaf in leaves)
    if odd and not isinstance(x, float) and not (is_array(x) and x.dtype.kind != "O"):
        raise InputError(
            f"gradcheck: {name}: expected an array of numbers, NumPy's or CuPy's, got {type(x).__name__}: "
            f"{describe(x)}; pass numpy.asarray(…, float), each array as an input of its own, a Parameter's .data"
        )


def input_names(function: Any, n: int) -> list[str]:
    """The names of the first `n` arguments of a function, e.g. query, key, value; "input 0" … if it has none."""
    signature = signature_of(function)
    arguments = signature.parameters.values() if signature else ()
    names = [a.name for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)]
    return [names[i] if i < len(names) else f"input {i}" for i in range(n)]


def signature_of(function: Any) -> inspect.Signature | None:
    """The signature of a function, or None if it does not tell, as some of NumPy's that are written in C do not."""
    try:
        return inspect.signature(function)
    except ValueError:
        return None
