"""Gradient checks of plain functions: a function and its backward, or a loss that returns its gradients itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from minitransformer.backend import Array, array_module, is_array, is_float, silent_overflow
from minitransformer.errors import InputError, describe
from minitransformer.gradcheck.arguments import input_names, signature_of
from minitransformer.gradcheck.check import checked_tolerance, compare
from minitransformer.gradcheck.report import GradcheckReport
from minitransformer.gradcheck.subject import Subject


@silent_overflow()
def gradcheck_function(
    f: Callable[..., Any],
    f_backward: Callable[..., Any] | None,
    *arguments: Any,
    method: str = "central",
    directional: bool | None = None,
    seed: int = 0,
    tolerance: float | None = None,
) -> GradcheckReport:
    """Check the gradients of a plain function of arrays.

    f(*arguments)                 returns y, or (y, cache)
    f_backward(dy, *arguments)    returns the gradients of the floating-point arrays among the arguments, in their
                                  order: an array, a tuple or a list. If f returns a cache: f_backward(dy, cache)

    With None for f_backward, f is a loss that returns its gradients itself: (loss, gradients), as in course work.
    An argument may be a dictionary of arrays, nested or not; its gradient is a dictionary with the same keys.
    Arguments of other types (ids, masks, settings) are passed on as they are and have no gradient. If a
    floating-point array has none either, leave it out: `gradcheck_function(lambda W: loss(W, X), None, W)`.

    The options are those of `gradcheck`, and so is the report, in which f is called forward and f_backward backward.
    Neither may write to the arrays that it is given, and both must give the same results for the same arrays.

    Raises InputError for arguments that f does not take, for gradients of another number or shape, for a loss that
    is not one number, and wherever `gradcheck` does.
    """
    tolerance = checked_tolerance(method, tolerance)
    function = PlainFunction(f, f_backward, arguments)
    leaves = [
        leaf for name, x in zip(function.arguments, arguments, strict=True) for leaf in leaves_of(name, x)
    ]
    names, inputs = [name for name, _ in leaves], [x for _, x in leaves]
    check_names(names)
    subject = Subject(function, inputs, None, seed, names)
    rows = compare(subject, method, directional, tolerance)
    notes = ["f holds Parameters: mt.gradcheck(layer, …) checks their gradients, too"]
    name = getattr(f, "__name__", type(f).__name__)
    return GradcheckReport(
        name, method, tolerance, subject.n_numbers, rows, subject.broken, notes * bool(subject.not_found)
    )


class Given(NamedTuple):
    """The cache of a function that returns none: the arguments that it was given."""

    arguments: list[Any]


class PlainFunction:
    """A function and its backward as a layer; its inputs are the leaves of all arguments, dictionaries taken apart."""

    def __init__(
        self, f: Callable[..., Any], f_backward: Callable[..., Any] | None, arguments: Sequence[Any]
    ) -> None:
        check_call("f", f, arguments)
        self.f, self.f_backward = f, f_backward
        names = input_names(f, len(arguments))
        self.arguments = {name: tree_of(x) for name, x in zip(names, arguments, strict=True)}

    def forward(self, *leaves: Any) -> tuple[Array, Any]:
        rest = iter(leaves)
        arguments = [rebuilt(tree, rest) for tree in self.arguments.values()]
        if self.f_backward is None:
            return self._loss_and_gradients(arguments)[0], Given(arguments)
        returned = self.f(*arguments)
        if not isinstance(returned, tuple):
            return as_array(returned), Given(arguments)
        if len(returned) != 2:
            raise InputError(f"f: expected y, or (y, cache), got a tuple of {len(returned)}")
        return as_array(returned[0]), returned[1]

    def backward(self, dy: Array, cache: Any) -> tuple[Any, ...]:
        if self.f_backward is None:
            gradients = self._in_order("f", self._loss_and_gradients(cache.arguments)[1])
            return tuple(dy * g if is_array(g) else g for g in gradients)
        given = (dy, *cache.arguments) if isinstance(cache, Given) else (dy, cache)
        check_call("f_backward", self.f_backward, given)
        return tuple(self._in_order("f_backward", self.f_backward(*given)))

    def _loss_and_gradients(self, arguments: list[Any]) -> tuple[Array, Any]:
        returned = self.f(*arguments)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise InputError(
                f"f: expected (loss, gradients), since f_backward is None, got {describe(returned)}"
            )
        loss = as_array(returned[0])
        if not is_float(loss) or loss.shape != ():
            raise InputError(f"f: expected a loss of one number, got {describe(loss)}: take its sum or mean")
        return loss, returned[1]

    def _in_order(self, who: str, returned: Any) -> list[Any]:
        """The gradients that `who` returned, those of dictionaries in the order of the arguments' keys."""
        trees = {name: tree for name, tree in self.arguments.items() if has_gradient(tree)}
        gradients = list(returned) if isinstance(returned, tuple | list) else [returned]
        if len(gradients) != len(trees):
            got = ", ".join(map(describe, gradients)) or "nothing"
            raise InputError(
                f"{who}: expected {len(trees)} gradient(s), of {', '.join(trees)}, got {len(gradients)}: {got}; an "
                f"argument of floats that has no gradient is bound beforehand: gradcheck_function(lambda W: f(W, x), …)"
            )
        pairs = zip(trees.items(), gradients, strict=True)
        return [leaf for (name, tree), g in pairs for leaf in gradients_of(who, name, tree, g)]


def check_call(who: str, function: Any, arguments: Sequence[Any]) -> None:
    """Raise InputError for an object that is not a function, or does not take that many arguments."""
    if not callable(function):
        raise InputError(f"{who}: expected a function, got {describe(function)}")
    signature = signature_of(function)
    try:
        if signature:
            signature.bind(*arguments)
    except TypeError as error:
        raise InputError(
            f"{who}: expected a function of {len(arguments)} argument(s), got {who}{signature}: {error}"
        ) from None


def check_names(names: Sequence[str]) -> None:
    """Raise InputError if two leaves have the same name, as in {1: …, "1": …} and {"a.b": …, "a": {"b": …}}."""
    shared = sorted({name for name in names if names.count(name) > 1})
    if shared:
        raise InputError(
            f"gradcheck: expected keys that give each leaf its own name, got {', '.join(shared)} more than once"
        )


def tree_of(argument: Any) -> Any:
    """The argument with its leaves replaced by whether they have a gradient."""
    if isinstance(argument, dict):
        return {key: tree_of(x) for key, x in argument.items()}
    return is_float(argument)


def has_gradient(tree: Any) -> bool:
    """Whether any leaf of the tree has a gradient."""
    return any(map(has_gradient, tree.values())) if isinstance(tree, dict) else tree


def leaves_of(name: str, argument: Any) -> list[tuple[str, Any]]:
    """The leaves of an argument with their names: "W" itself, or "parameters.W" in a dictionary."""
    if isinstance(argument, dict):
        return [leaf for key, x in argument.items() for leaf in leaves_of(f"{name}.{key}", x)]
    return [(name, argument)]


def rebuilt(tree: Any, leaves: Iterator[Any]) -> Any:
    """An argument of the tree's form with these leaves."""
    if isinstance(tree, dict):
        return {key: rebuilt(node, leaves) for key, node in tree.items()}
    return next(leaves)


def gradients_of(who: str, name: str, tree: Any, returned: Any) -> list[Any]:
    """The gradients of the leaves of one argument, in order."""
    if not isinstance(tree, dict):
        return [returned]
    keys = [key for key, node in tree.items() if has_gradient(node)]
    if not isinstance(returned, dict) or set(returned) != set(keys):
        got = f"the keys {list(returned)}" if isinstance(returned, dict) else describe(returned)
        raise InputError(
            f"{who}: expected a dictionary of gradients for {name}, with the keys {keys}, got {got}"
        )
    return [leaf for key in keys for leaf in gradients_of(who, f"{name}.{key}", tree[key], returned[key])]


def as_array(y: Any) -> Any:
    """A Python number as an array; anything else as it is."""
    return array_module(y).asarray(y) if isinstance(y, float | complex) else y
