"""What gradcheck says of layers and inputs that it cannot check, or that nobody expected: in one line, no warnings."""

from __future__ import annotations

import socket
import threading
import types
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.gradcheck import report as reports
from minitransformer.gradcheck.derivatives import Slope, Slopes

both_methods = pytest.mark.parametrize("method", ["complex", "central"])
both_ways = pytest.mark.parametrize("directional", [False, True])
x = np.random.default_rng(0).normal(size=(2, 3))


class Layer:
    """y = function(x), dx = dy · derivative(x), without parameters."""

    def __init__(self, function: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> None:
        self.function, self.derivative = function, derivative

    def forward(self, x):
        return self.function(x), x

    def backward(self, dy, x):
        return dy * self.derivative(x)


class Scale:
    """y = x · W. The last two arguments change what forward and backward return; others become attributes."""

    def __init__(self, forward: Any = lambda *r: r, backward: Any = lambda dx: dx, **attributes: Any) -> None:
        self.W = mt.Parameter(np.array([0.5, -1.5, 2.5]))
        self.end_forward, self.end_backward = forward, backward
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.end_forward(x * self.W.data, x)

    def backward(self, dy, x):
        self.W.grad += (dy * x).sum(0)
        return self.end_backward(dy * self.W.data)


def refusal(layer: Any, *inputs: Any, **how: Any) -> str:
    """What the InputError says, which is to be one line."""
    with pytest.raises(mt.InputError) as error:
        mt.gradcheck(layer, *inputs, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- layers in cycles, in slots, and with what cannot be copied


@both_methods
def test_a_layer_may_refer_to_its_parent_and_a_list_to_itself(method: str) -> None:
    child, parent = Scale(), Layer(np.sin, np.cos)
    parent.child, child.parent = child, parent  # type: ignore[attr-defined]
    parent.parts = [child]  # type: ignore[attr-defined]
    parent.parts += [parent.parts, {"all": parent.parts}]  # type: ignore[attr-defined]
    report = mt.gradcheck(parent, x, method=method)
    assert report.ok and [row.name for row in report.rows] == ["x", "child.W"]
    assert [row.name for row in mt.gradcheck(child, x, method=method).rows] == ["x", "W"]


@both_methods
def test_parameters_in_slots_are_checked(method: str) -> None:
    class Slots:
        __slots__ = ("W", "__hidden")

        def __init__(self) -> None:
            self.W, self.__hidden = mt.Parameter(x[0]), mt.Parameter(x[1])

        def forward(self, x):
            return x * self.W.data + self.__hidden.data, x

        def backward(self, dy, x):
            self.W.grad += (dy * x).sum(0)
            self.__hidden.grad += 2 * dy.sum(0)
            return dy * self.W.data

    report = mt.gradcheck(Slots(), x, method=method)
    assert [row.name for row in report.rows] == ["x", "W", "_Slots__hidden"]
    assert [row.name for row in report.wrong] == ["_Slots__hidden"]


def test_modules_functions_and_classes_are_shared() -> None:
    held = {"xp": np, "f": lambda x: x, "g": np.sin, "c": dict, "made": types.ModuleType("made")}
    layer = Scale(**held, box=types.SimpleNamespace(xp=np), listed=[np, {"np": np}])
    assert mt.gradcheck(layer, x).ok and mt.gradcheck(layer, x, method="complex").ok


@pytest.fixture(params=["lock", "file", "generator", "socket", "in a list", "in an object", "slow", "buffer"])
def uncopyable(request: Any) -> Iterator[tuple[str, Any]]:
    class Refuses:
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("not\nme")

    with open(__file__) as file, socket.socket() as free:
        yield {
            "lock": ("layer.it", threading.Lock()),
            "file": ("layer.it", file),
            "generator": ("layer.it", (i for i in range(3))),
            "socket": ("layer.it", free),
            "in a list": ("layer.it.1.a", [0, {"a": threading.RLock()}]),
            "in an object": ("layer.it", types.SimpleNamespace(lock=threading.Lock())),
            "slow": ("layer.it", Refuses()),
            "buffer": ("layer.it", memoryview(b"abc")),
        }[request.param]


def test_what_cannot_be_copied_is_named(uncopyable: tuple[str, Any]) -> None:
    path, it = uncopyable
    message = refusal(Scale(fine=[1], it=it), x)
    assert message.startswith(f"{path}: cannot be copied (") and "keep it outside the layer" in message
    assert path.replace("layer.", "layer.child.") in refusal(Scale(child=Scale(it=it)), x)


def test_a_layer_that_cannot_be_copied_itself_is_named() -> None:
    class Refuses(Scale):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("not me")

    class Itself(Scale):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

    assert refusal(Refuses(), x).startswith("Refuses: cannot be copied (RuntimeError('not me'))")
    layer = Itself()
    before = layer.W.data.copy()
    assert "expected a copy with Parameters of its own" in refusal(layer, x)
    assert (layer.W.data == before).all() and (layer.W.grad == 0).all()


# ---- what forward and backward return

Three = namedtuple("Three", "y cache more")
Two = namedtuple("Two", "y cache")


@both_methods
@pytest.mark.parametrize(
    ("end", "got"),
    [
        (lambda y, cache: y, "float64 of shape (2, 3)"),
        (lambda y, cache: [y, cache], "a list of 2"),
        (lambda y, cache: (y, cache, 1), "a tuple of 3"),
        (lambda y, cache: (y,), "a tuple of 1"),
        (lambda y, cache: Three(y, cache, 1), "a Three of 3"),
        (lambda y, cache: None, "None"),
        (lambda y, cache: {"y": y}, "{'y': array("),
    ],
)
def test_forward_returns_y_and_cache(method: str, end: Callable[[Any, Any], Any], got: str) -> None:
    assert refusal(Scale(end), x, method=method).startswith(f"forward: expected (y, cache), got {got}")


def test_a_namedtuple_of_two_will_do() -> None:
    assert mt.gradcheck(Scale(Two), x).ok


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            lambda y, cache: (y + 0j, cache),
            "expected real numbers for y, of one shape, got complex128 of shape (2, 3)",
        ),
        (lambda y, cache: (y.tolist(), cache), "y an array of floats; got a list for y"),
        (lambda y, cache: (y > 0, cache), "y an array of floats; got a ndarray for y"),
        (lambda y, cache: (None, cache), "y an array of floats; got a NoneType for y"),
    ],
)
def test_y_is_an_array_of_real_numbers(end: Callable[[Any, Any], Any], words: str) -> None:
    assert words in refusal(Scale(end), x)


def test_y_has_one_shape() -> None:
    sizes = iter(range(1, 9))
    assert "expected real numbers for y, of one shape, got float64 of shape (2, 1), then" in refusal(
        Scale(lambda y, cache: (y[:, : next(sizes)], cache)), x
    )


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda dx: [dx], "return them as a tuple, not as a list"),
        (lambda dx: (dx, dx), "got float64 of shape (2, 3), float64 of shape (2, 3)"),
        (lambda dx: (dx, None), "got float64 of shape (2, 3), None"),
        (lambda dx: None, "got nothing"),
        (lambda dx: (), "got nothing"),
        (lambda dx: dx.T, "got float64 of shape (3, 2)"),
        (lambda dx: dx + 0j, "got complex128 of shape (2, 3)"),
        (lambda dx: dx.astype(object), "got object of shape (2, 3)"),
        (lambda dx: {"x": dx}, "got {'x': array("),
        (lambda dx: types.SimpleNamespace(shape=(2, 3)), "got namespace(shape=(2, 3))"),
    ],
)
def test_backward_returns_a_gradient_for_each_input_of_floats(end: Callable[[Any], Any], words: str) -> None:
    message = refusal(Scale(backward=end), x)
    assert message.startswith("backward: expected a gradient for each input of floats") and words in message
    assert "of shapes {'x': (2, 3)}, got " in message


# ---- what gradcheck is given


class OtherLibrarys:
    """An array of a library that is neither NumPy nor CuPy."""

    dtype, shape = np.dtype("float32"), (2, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([x, x], "x: expected an array of numbers, NumPy's or CuPy's, got list: [array("),
        (
            [[1.0, 2.0, 3.0]],
            "got list: [[1.0, 2.0, 3.0]]; pass numpy.asarray(…, float), each array as an input",
        ),
        ((x[0], x[1]), "got tuple: (array("),
        ({"x": x}, "got dict: {'x': array("),
        (
            [[1, 2, 3], [4, 5, 6]],
            "x is [[1, 2, 3], [4, 5, 6]]: pass what has a gradient as numpy.asarray",
        ),
        (np.ones((2, 3), int), "x is int64 of shape (2, 3): pass what has a gradient as numpy.asarray"),
        (mt.Parameter(x), "got Parameter: Parameter(shape=(2, 3), dtype=float64); pass"),
        (
            x.astype(object),
            "expected an array of numbers, NumPy's or CuPy's, got ndarray: object of shape (2, 3)",
        ),
        (OtherLibrarys(), "got OtherLibrarys: float32 of shape (2, 3); pass numpy.asarray"),
        (None, "x is None: pass what has a gradient"),
    ],
)
def test_what_should_be_an_array_of_floats_is_told_so(given: Any, words: str) -> None:
    class Plain(Scale):
        def forward(self, x):
            return super().forward(x * 1.0)

    assert words in refusal(Plain(), given)


@pytest.mark.parametrize("given", [np.arange(3), [1, 2], 0.3, None, np.zeros((0, 3))])
def test_nothing_to_differentiate_is_told_so(given: Any) -> None:
    message = refusal(Layer(np.sin, np.cos), given)
    assert message.startswith("gradcheck: expected a floating-point input or a Parameter, got neither; x is ")


def test_ids_are_inputs_without_a_gradient() -> None:
    ids = np.array([[0, 2, 2], [1, 0, 4]])
    assert mt.gradcheck(mt.layers.Embedding(5, 4, rng=0), ids).ok
    assert mt.gradcheck(Layer(lambda x: x * 1.0, lambda x: 1.0), x).ok


def test_inputs_are_passed_by_position() -> None:
    for name, how in (("mask", {"mask": x > 0}), ("methd", {"methd": "complex"})):
        message = refusal(Scale(), x, **how)
        assert f"got {name}; inputs of forward are passed by position" in message
    both = "got forward(x) and backward(dy, x): "
    assert f"of these 2 inputs, by position, and backward(dy, cache), {both}too many" in refusal(
        Scale(), x, x
    )
    assert f"of these 0 inputs, by position, and backward(dy, cache), {both}missing" in refusal(Scale())


def test_backward_takes_dy_and_cache() -> None:
    class WithoutCache(Scale):
        def backward(self, dy):
            return dy

    assert "got forward(x) and backward(dy): too many" in refusal(WithoutCache(), x)


def test_complex_parameters_and_methods_that_are_none_are_refused() -> None:
    assert "expected real inputs and parameters" in refusal(Scale(more=mt.Parameter(x + 0j)), x)
    assert "expected an object with forward and backward" in refusal(
        types.SimpleNamespace(forward=x, backward=x), x
    )
    assert "expected an object with forward and backward" in refusal(mt.Parameter(x), x)


# ---- who writes to what is not its own


class Writes:
    """y = x · W; forward and backward call what they are given, with all that they could write to."""

    def __init__(self, in_forward: Any = None, in_backward: Any = None, cache: Any = None) -> None:
        self.W = mt.Parameter(np.array([0.5, -1.5, 2.5]))
        self.in_forward, self.in_backward = in_forward, in_backward
        self.cache = cache or (lambda x, kept: (x, {"kept": kept}))

    def forward(self, x):
        y, cache = x * self.W.data, self.cache(x.copy(), np.ones(3))
        if self.in_forward:
            self.in_forward(self, x)
        return y, cache

    def backward(self, dy, cache):
        x, kept = cache if isinstance(cache, tuple) else (cache.x, cache.kept)
        self.W.grad += (dy * x).sum(0)
        dx = dy * self.W.data
        if self.in_backward:
            self.in_backward(self, dy, x, kept)
        return dx


@dataclass
class Dataclass:
    x: Any
    kept: Any


def doubled(array: np.ndarray) -> None:
    array *= 2


@both_methods
@both_ways
@pytest.mark.parametrize(
    ("layer", "rules"),
    [
        (Writes(lambda self, x: doubled(x)), ["forward writes to x"]),
        (Writes(lambda self, x: doubled(self.W.grad)), ["forward writes to the gradient of W"]),
        (Writes(None, lambda self, dy, x, kept: doubled(dy)), ["backward writes to dy"]),
        (Writes(None, lambda self, dy, x, kept: doubled(kept["kept"])), ["backward writes to cache.1.kept"]),
        (
            Writes(None, lambda self, dy, x, kept: doubled(kept), Dataclass),
            ["backward writes to cache.kept"],
        ),
        (Writes(None, lambda self, dy, x, kept: doubled(self.W.data)), ["backward writes to W"]),
    ],
)
def test_the_one_that_writes_is_named_and_no_gradient_is_called_wrong(
    method: str, directional: bool, layer: Any, rules: list[str]
) -> None:
    report = mt.gradcheck(layer, x, method=method, directional=directional)
    assert report.broken == rules and not report.ok
    # the doubled gradient is one that forward has made wrong
    assert not report.wrong or "gradient" in rules[0]
    assert mt.gradcheck(Writes(), x, method=method, directional=directional).ok


@both_methods
@both_ways
def test_a_forward_that_writes_to_its_input_again_and_again_overflows_nowhere(
    method: str, directional: bool
) -> None:
    class Exp(Layer):
        def forward(self, x):
            x *= 3
            return np.exp(x), np.exp(x)

        def backward(self, dy, y):
            return 3 * dy * y

    report = mt.gradcheck(Exp(np.exp, np.exp), x, method=method, directional=directional)
    assert report.broken == ["forward writes to x"] and not report.wrong, report


@both_methods
@both_ways
def test_a_forward_that_writes_to_a_parameter_starts_from_the_same_each_time(
    method: str, directional: bool
) -> None:
    class Decays(Scale):
        def forward(self, x):
            y = super().forward(x)
            self.W.data *= 0.9
            return y

        def backward(self, dy, x):
            self.W.data /= 0.9
            dx = super().backward(dy, x)
            self.W.data *= 0.9
            return dx

    report = mt.gradcheck(Decays(), x, method=method, directional=directional)
    assert report.broken == ["forward writes to W"] and not report.wrong, report


def test_both_that_write_are_named() -> None:
    def spoil(self: Any, *arrays: Any) -> None:
        doubled(self.W.data)

    report = mt.gradcheck(Writes(spoil, spoil), x)
    assert report.broken == ["forward writes to W", "backward writes to W"]


# ---- nothing was compared


@both_methods
def test_relu_of_zeros_is_neither_ok_nor_wrong(method: str) -> None:
    report = mt.gradcheck(mt.layers.ReLU(), np.zeros((2, 3)), method=method)
    title, row, advice = str(report).splitlines()
    assert not report.ok and report.wrong == [] and [r.name for r in report.undecided] == ["x"]
    assert (
        title.startswith("ReLU: UNDECIDED (") and row.split()[0] == "UNDECIDED" and "WRONG" not in str(report)
    )
    assert (
        "nothing was compared: forward has a kink" in advice
        and "random" in advice
        and "complex" not in advice
    )
    assert not report.max_relative_error < 1
    assert mt.gradcheck(mt.layers.ReLU(), x, method=method).ok


@pytest.mark.parametrize(
    ("function", "derivative"),
    [(np.abs, np.sign), (lambda x: np.maximum(x, 0), lambda x: (x > 0) + 0.5 * (x == 0))],
)
def test_a_kink_whose_mean_slope_backward_gives_is_a_kink_all_the_same(
    function: Any, derivative: Any
) -> None:
    layer = Layer(function, derivative)
    assert mt.gradcheck(layer, np.zeros((2, 3))).undecided
    some = mt.gradcheck(layer, np.array([0.0, 0.0, 0.7]))
    assert some.ok and some.rows[0].checked >= 1
    along = mt.gradcheck(layer, np.zeros((2, 3)), directional=True)
    assert along.ok and "checked beside a kink" in str(along)
    zeros = Layer(np.abs, lambda x: 0 * x)
    assert mt.gradcheck(zeros, np.zeros((2, 3))).undecided
    assert mt.gradcheck(zeros, np.zeros((2, 3)), directional=True).wrong


def test_one_row_without_a_comparison_is_enough_to_be_undecided_and_one_wrong_to_be_wrong() -> None:
    class Sum:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def forward(self, x, z):
            return x * 2 + np.maximum(z, 0), z

        def backward(self, dy, z):
            return dy * self.factor, dy * (z > 0)

    draw = np.random.default_rng(0)
    right, wrong = (mt.gradcheck(Sum(factor), x, 0 * x) for factor in (2, 3))
    assert not right.ok and "Sum: UNDECIDED" in str(right) and [r.name for r in right.undecided] == ["z"]
    assert [line.split()[0] for line in str(right).splitlines()[1:3]] == ["ok", "UNDECIDED"]
    assert not wrong.ok and "Sum: WRONG" in str(wrong) and [r.name for r in wrong.wrong] == ["x"]
    random = mt.gradcheck(Layer(lambda x: np.maximum(x, 0) + draw.normal(), lambda x: x > 0), 0 * x)
    assert random.broken and not random.ok and ": WRONG" in str(random)


def test_too_few_digits_for_all_are_undecided_and_the_advice_helps() -> None:
    layer = Layer(lambda x: np.sin(x) + 1e6, np.cos)
    report = mt.gradcheck(layer, x)
    assert report.undecided and not report.wrong and "method='complex'" in report.rows[0].hint
    assert "kink" not in report.rows[0].hint and mt.gradcheck(layer, x, method="complex").ok
    along = mt.gradcheck(layer, x, directional=True)
    assert not along.wrong and (along.ok or "method='complex'" in along.rows[0].hint)


def test_a_report_of_nothing_wrong_is_ok_and_says_so() -> None:
    row = reports.Row("x", (1,), (0,), 1.0, 1.0, 0.0)
    assert reports.GradcheckReport("L", "central", 1e-8, 1, [row]).ok
    none = row.__class__("z", (1,), (0,), 1.0, 1.0, 0.0, checked=0)
    assert not reports.GradcheckReport("L", "central", 1e-8, 1, [row, none]).ok


# ---- what is compared with what


@both_methods
@both_ways
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_the_verdict_does_not_depend_on_the_size_of_the_output(
    method: str, directional: bool, scale: float
) -> None:
    def verdict(backward: Callable[[Any], Any]) -> bool:
        layer = Scale(lambda y, cache: (y * scale, cache), backward=backward)
        layer.backward = types.MethodType(scaled_backward(scale), layer)  # type: ignore[method-assign]
        return mt.gradcheck(layer, x, method=method, directional=directional).ok

    assert verdict(lambda dx: dx)
    assert not verdict(lambda dx: dx * 1.001)
    assert not verdict(lambda dx: -dx)
    assert not verdict(lambda dx: 0 * dx)
    assert not verdict(lambda dx: dx + 1e-3 * abs(dx).max())


def scaled_backward(scale: float) -> Callable[..., Any]:
    return lambda self, dy, x: Scale.backward(self, dy * scale, x)


@both_methods
@both_ways
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_a_backward_of_zeros_is_wrong(method: str, directional: bool, scale: float) -> None:
    layer = Layer(lambda x: scale * np.sin(x), np.zeros_like)
    assert mt.gradcheck(layer, x, method=method, directional=directional).wrong
    constant = Layer(lambda x: 0 * x + scale, np.zeros_like)
    assert mt.gradcheck(constant, x, method=method, directional=directional).ok


@pytest.mark.parametrize(
    ("doubt", "expected"), [(0.9, False), (1.1, True), (999, True), (1001, False), (1e6, False)]
)
def test_the_doubt_that_excuses_a_difference_has_two_limits(doubt: float, expected: bool) -> None:
    """In units of what is asked for: below it is no excuse, and above a thousand of it the check is worth nothing."""
    least = 1e-8
    slopes = Slopes(*(Slope(1.0, doubt * least * more) for more in (2, 3, 1)))
    assert slopes.cannot_tell(1.0 + 1.9 * doubt * least, least) is expected
    assert not slopes.cannot_tell(1.0 + 2.1 * doubt * least, least)


def test_a_right_layer_whose_digits_drown_is_not_excused_for_ever() -> None:
    """Which of 1e6 and 1e12 leaves any digit of sin(x)?"""
    assert mt.gradcheck(Layer(lambda x: np.sin(x) + 1e6, np.cos), x).undecided
    assert mt.gradcheck(Layer(lambda x: np.sin(x) + 1e12, np.cos), x).wrong
