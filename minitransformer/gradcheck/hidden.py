"""Parameters in places where the check does not look for them, so that their gradients would silently go unchecked."""

from __future__ import annotations

import dis
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

from minitransformer.parameter import Parameter, is_layer, parameters_of, walk


def hidden_parameters(layer: Any, objects: Iterable[Any], found: Iterable[Parameter]) -> list[str]:
    """A sentence for each Parameter of a class or in a closure, and one for all others that were not `found`.

    `objects` are all objects in a copy of the layer, and `found` its parameters.
    """
    told, objects, known = [], list(objects), {id(p) for p in found}
    if n_others := sum(isinstance(x, Parameter) and id(x) not in known for x in objects):
        told.append(f"{n_others} Parameter(s) not found: not in an attribute, list or dict of a layer")
    for name in parameters_of_classes([layer, *objects]):
        told.append(f"{name} is a Parameter of a class, and not found: make it in __init__, on self")
    for where, names in parameters_outside(layer).items():
        told += [f"{name} is a Parameter in {where}, and not found: make it an attribute" for name in names]
    return told


def parameters_of_classes(objects: Iterable[Any]) -> list[str]:
    """The names of the Parameters that are attributes of the objects' classes, and so belong to no layer."""
    classes = {cls for x in objects for cls in type(x).__mro__}
    found = [(cls, walk(vars(cls).items(), is_layer, set())) for cls in classes]
    return sorted(f"{cls.__name__}.{name}" for cls, x in found for name, p in x if isinstance(p, Parameter))


def parameters_outside(layer: Any) -> dict[str, list[str]]:
    """The paths of the Parameters in closures and in globals.

    They are those of the methods of all layers, of functions among their attributes, and of functions that these use.
    Parameters that are attributes of a layer as well are left out.
    """
    layers, own = [], {id(p) for p in parameters_of(layer).values()}
    closures, globals_used = set[str](), set[str]()

    def is_layer_below(node: Any) -> bool:
        if is_layer(node):
            layers.append(node)
        return is_layer(node)

    functions = [leaf for _, leaf in walk([("", layer)], is_layer_below, set()) if is_function(leaf)]
    classes = {cls for x in layers for cls in type(x).__mro__}
    functions += [x for cls in classes for member in vars(cls).values() for x in functions_in(member)]
    for function in functions:  # grows: functions may lie in the closures of others, or be called by them
        for used, names in ((closure_of(function), closures), (globals_of(function), globals_used)):
            for path, leaf in walk(used, is_layer, set()):
                if isinstance(leaf, Parameter):
                    names |= set() if id(leaf) in own else {path}
                elif is_function(leaf) and leaf not in functions:
                    functions.append(leaf)
    return {"the closure of a function": sorted(closures), "a global variable": sorted(globals_used)}


def is_function(x: Any) -> bool:
    """Whether `x` is a function written in Python, which may have a closure."""
    return isinstance(x, FunctionType)


def functions_in(member: Any) -> list[FunctionType]:
    """The function that a member of a class is, or that a method, a property or a class method has inside."""
    inside = [member, *(getattr(member, name, None) for name in ("__func__", "fget", "func"))]
    return [x for x in inside if is_function(x)]


def globals_of(function: FunctionType) -> list[tuple[str, Any]]:
    """Name and value of the globals that `function` uses."""
    values = {name: function.__globals__.get(name) for name in global_names(function.__code__)}
    return [(name, x) for name, x in values.items() if not isinstance(x, type | ModuleType)]


def global_names(code: CodeType) -> Iterator[str]:
    """The names of the globals in some code, and in the functions defined within it."""
    yield from (str(x.argval) for x in dis.get_instructions(code) if x.opname == "LOAD_GLOBAL")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)


def closure_of(function: FunctionType) -> list[tuple[str, Any]]:
    """Name and value of the variables of enclosing functions that `function` uses."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # no value has been assigned yet
            found.append((name, cell.cell_contents))
    return found
