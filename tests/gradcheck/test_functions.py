"""Plain functions under the gradient checker: with a cache or without, losses, dictionaries, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import both_methods, x
from messages import message_of

import minitransformer as mt

X, W, b = x(4, 3), x(3, 5), x(5)
IDS = np.array([2, 0, 2, 1])


def affine(x, W, b):
    return x @ W + b


def affine_backward(dy, x, W, b):
    return dy @ W.T, x.T @ dy, dy.sum(0)


def relu_of_affine(x, parameters):
    h = x @ parameters["W"] + parameters["b"]
    return np.maximum(h, 0), (x, parameters, h > 0)


def relu_of_affine_backward(dy, cache):
    x, parameters, positive = cache
    dh = dy * positive
    return dh @ parameters["W"].T, {"b": dh.sum(0), "W": x.T @ dh}


def squares(parameters):
    """A loss with its gradients, as course work has them."""
    z = X @ parameters["W"] + parameters["b"]
    return (z * z).mean(), {"W": 2 * X.T @ z / z.size, "b": 2 * z.sum(0) / z.size}


def rows_of(report: Any) -> list[tuple[str, bool]]:
    return [(row.name, report.agrees(row)) for row in report.rows]


# ---- what can be checked


@both_methods
@pytest.mark.parametrize("collection", [tuple, list])
def test_a_function_and_its_backward(method: str, collection: type) -> None:
    report = mt.gradcheck_function(
        affine, lambda *given: collection(affine_backward(*given)), X, W, b, method=method
    )
    assert report.ok and report.layer == "affine" and report.notes == []
    assert rows_of(report) == [("x", True), ("W", True), ("b", True)]


@both_methods
def test_the_report_names_the_method_and_counts_the_numbers(method: str) -> None:
    report = mt.gradcheck_function(affine, affine_backward, X, W, b, method=method)
    assert report.method == method and report.n_numbers == X.size + W.size + b.size


def test_an_object_that_can_be_called_is_reported_by_the_name_of_its_class() -> None:
    class Double:
        def __call__(self, x):
            return 2 * x

    report = mt.gradcheck_function(Double(), lambda dy, x: 2 * dy, X)
    assert report.ok and report.layer == "Double"


@both_methods
def test_the_wrong_one_of_three_gradients_is_named_and_explained(method: str) -> None:
    def wrong(dy, x, W, b):
        return dy @ W.T, x.T @ dy, dy.mean(0)

    report = mt.gradcheck_function(affine, wrong, X, W, b, method=method)
    assert rows_of(report) == [("x", True), ("W", True), ("b", False)]
    assert "4 times too small, and 4 is the size of axis 0 of x" in report.rows[2].hint


@both_methods
def test_a_single_gradient_needs_no_tuple_and_ids_have_none(method: str) -> None:
    def rows(E, ids):
        return E[ids]

    def rows_backward(dy, E, ids):
        dE = np.zeros_like(E)
        np.add.at(dE, ids, dy)
        return dE

    def without_repetitions(dy, E, ids):
        dE = np.zeros_like(E)
        dE[ids] = dy
        return dE

    assert mt.gradcheck_function(rows, rows_backward, W, IDS, method=method).ok
    assert not mt.gradcheck_function(rows, without_repetitions, W, IDS, method=method).ok


@both_methods
def test_a_cache_and_a_dictionary_of_parameters(method: str) -> None:
    parameters = {"W": W, "b": b, "width": 5, "more": {"ids": IDS}}
    report = mt.gradcheck_function(relu_of_affine, relu_of_affine_backward, X, parameters, method=method)
    assert report.ok and [row.name for row in report.rows] == ["x", "parameters.W", "parameters.b"]

    def wrong(dy, cache):
        dx, gradients = relu_of_affine_backward(dy, cache)
        return dx, gradients | {"W": -gradients["W"]}

    report = mt.gradcheck_function(relu_of_affine, wrong, X, parameters, method=method)
    assert [row.name for row in report.wrong] == ["parameters.W"] and "wrong sign" in report.wrong[0].hint


def test_dictionaries_may_be_nested() -> None:
    def f(layers):
        return X @ layers["first"]["W"] * layers["scale"]

    def f_backward(dy, layers):
        W, scale = layers["first"]["W"], layers["scale"]
        return {"scale": (dy * (X @ W)).sum(), "first": {"W": X.T @ dy * scale}}

    report = mt.gradcheck_function(f, f_backward, {"first": {"W": W}, "scale": np.array(0.3)})
    assert report.ok and [row.name for row in report.rows] == ["layers.first.W", "layers.scale"]


@both_methods
def test_a_loss_that_returns_its_gradients(method: str) -> None:
    assert mt.gradcheck_function(squares, None, {"W": W, "b": b}, method=method).ok

    def wrong(parameters):
        loss, gradients = squares(parameters)
        return loss, gradients | {"b": 5 * gradients["b"]}

    report = mt.gradcheck_function(wrong, None, {"W": W, "b": b}, method=method)
    assert [row.name for row in report.wrong] == ["parameters.b"]


def test_a_loss_may_be_a_number_of_pythons_and_bind_what_has_no_gradient() -> None:
    def loss(W, x):
        return float((x @ W).sum()), x.sum(0)[:, None] + 0 * W

    assert mt.gradcheck_function(lambda W: loss(W, X), None, W).ok
    message = message_of(mt.InputError, mt.gradcheck_function, loss, None, W, X)
    assert message.startswith(
        "f: expected 2 gradient(s), of W, x, got 1: float64 of shape (3, 5); an argument"
    )
    assert "is bound beforehand: gradcheck_function(lambda W: f(W, x), …)" in message


def test_gradients_that_add_up_from_call_to_call_are_seen() -> None:
    kept = np.zeros_like(W)

    def loss(W):
        kept.__iadd__(2 * W)
        return (W * W).sum(), kept

    report = mt.gradcheck_function(loss, None, W)
    assert any("another gradient for the same dy and cache" in rule for rule in report.broken)


@both_methods
def test_functions_of_numpys_and_one_direction_of_many_numbers(method: str) -> None:
    report = mt.gradcheck_function(np.sin, lambda dy, x: dy * np.cos(x), x(60, 60), method=method)
    assert report.ok and report.directional and report.layer == "sin"
    assert not mt.gradcheck_function(np.sin, lambda dy, x: dy * np.sin(x), x(60, 60), method=method).ok


def test_methods_of_a_layer_are_functions_whose_parameters_are_not_checked() -> None:
    layer = mt.layers.Linear(3, 5, rng=0)
    for f, f_backward in (
        (layer.forward, layer.backward),
        (lambda x: layer.forward(x), lambda dy, cache: layer.backward(dy, cache)),
    ):
        report = mt.gradcheck_function(f, f_backward, X)
        assert report.ok and [row.name for row in report.rows] == ["x"]
        assert report.notes == ["f holds Parameters: mt.gradcheck(layer, …) checks their gradients, too"]


def test_the_callers_arrays_and_dictionaries_are_left_alone() -> None:
    given, before = {"W": W.astype("float32"), "b": b}, W.astype("float32")

    def meddles(parameters):
        loss, gradients = squares(parameters)
        parameters["W"] *= 2
        parameters["new"] = 3
        return loss, gradients

    report = mt.gradcheck_function(meddles, None, given)
    assert "forward writes to parameters.W" in report.broken and list(given) == ["W", "b"]
    assert (given["W"] == before).all() and given["W"].dtype == "float32"


# ---- mistakes, each told in one line


@pytest.mark.parametrize(
    ("f", "f_backward", "arguments", "message"),
    [
        (3, affine_backward, (X,), "f: expected a function, got 3"),
        (affine, 3, (X, W, b), "f_backward: expected a function, got 3"),
        (
            affine,
            affine_backward,
            (X, W),
            "f: expected a function of 2 argument(s), got f(x, W, b): missing a required argument: 'b'",
        ),
        (
            affine,
            lambda dy, cache: dy,
            (X, W, b),
            "f_backward: expected a function of 4 argument(s), got f_backward(dy, cache): too many",
        ),
        (
            affine,
            lambda dy, x, W, b: (dy @ W.T, x.T @ dy),
            (X, W, b),
            "f_backward: expected 3 gradient(s), of x, W, b, got 2: float64 of shape (4, 3), float64 of shape (3, 5); ",
        ),
        (
            affine,
            lambda dy, x, W, b: (dy @ W.T, x.T @ dy, None),
            (X, W, b),
            "backward: expected a gradient for each input of floats (a mask has to be boolean), of shapes "
            "{'x': (4, 3), 'W': (3, 5), 'b': (5,)}, got float64 of shape (4, 3), float64 of shape (3, 5), None",
        ),
        (
            affine,
            lambda dy, x, W, b: None,
            (X, W, b),
            "f_backward: expected 3 gradient(s), of x, W, b, got 1: None;",
        ),
        (
            affine,
            lambda dy, x, W, b: (),
            (X, W, b),
            "f_backward: expected 3 gradient(s), of x, W, b, got 0: nothing;",
        ),
        (np.sin, lambda dy, x: dy.T, (X,), "backward: expected a gradient for each input of floats"),
        (
            lambda x: 1.0 * x,
            lambda dy, x: dy,
            (IDS,),
            "gradcheck: expected a floating-point input or a Parameter, got neither; x is int64 of shape (4,): ",
        ),
        (
            lambda x: x,
            lambda dy, x: dy,
            ([1.5],),
            "gradcheck: x: expected an array of numbers, NumPy's or CuPy's, got list: ",
        ),
        (lambda x: (x, 1, 2), None, (X,), "f: expected (loss, gradients), since f_backward is None, got ("),
        (lambda x: (x, 1, 2), np.cos, (X,), "f: expected y, or (y, cache), got a tuple of 3"),
        (
            lambda x: (x * x).sum(),
            None,
            (X,),
            "f: expected (loss, gradients), since f_backward is None, got ",
        ),
        (
            lambda x: (x * x, 2 * x),
            None,
            (X,),
            "f: expected a loss of one number, got float64 of shape (4, 3): take its sum or mean",
        ),
        (lambda x: ("0.1", x), None, (X,), "f: expected a loss of one number, got '0.1': take"),
        (lambda x: (x.sum(), None), None, (X,), "backward: expected a gradient for each input of floats"),
        (
            lambda p: (p["W"].sum(), {"V": W}),
            None,
            ({"W": W},),
            "f: expected a dictionary of gradients for p, with the keys ['W'], got the keys ['V']",
        ),
        (
            lambda p: (p["W"].sum(), W),
            None,
            ({"W": W},),
            "f: expected a dictionary of gradients for p, with the keys ['W'], got float64 of shape (3, 5)",
        ),
        (
            lambda p: (p["a"]["W"].sum(), {"a": {}}),
            None,
            ({"a": {"W": W}, "n": 3},),
            "f: expected a dictionary of gradients for p.a, with the keys ['W'], got the keys []",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(f: Any, f_backward: Any, arguments: Any, message: str) -> None:
    found = message_of(mt.InputError, mt.gradcheck_function, f, f_backward, *arguments)
    assert found.startswith(message) and "\n" not in found


@pytest.mark.parametrize(
    ("how", "words"), [({"method": "forward"}, "method: expected"), ({"tolerance": 2}, "tolerance: expected")]
)
def test_options_are_those_of_gradcheck(how: Any, words: str) -> None:
    assert message_of(
        mt.InputError, mt.gradcheck_function, affine, affine_backward, X, W, b, **how
    ).startswith(words)


def test_keys_that_give_two_arrays_one_name_are_refused() -> None:
    def given_back(dy, p):
        return p

    for p, names in (
        ({1: W, "1": W, 2: W}, "p.1"),
        ({"a.b": W, "a": {"b": b}, 3: W, "3": b}, "p.3, p.a.b"),
    ):
        message = message_of(mt.InputError, mt.gradcheck_function, lambda p: W, given_back, p)
        assert (
            message
            == f"gradcheck: expected keys that give each leaf its own name, got {names} more than once"
        )


def test_an_error_of_the_function_itself_is_passed_on() -> None:
    def fails(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        mt.gradcheck_function(fails, np.cos, X)


@pytest.mark.parametrize("directional", [False, True])
def test_seed_and_directional_are_passed_on(directional: bool) -> None:
    def analytic(seed: int) -> float:
        report = mt.gradcheck_function(affine, affine_backward, X, W, b, seed=seed, directional=directional)
        assert report.directional is directional
        return report.rows[0].analytic

    assert analytic(1) == analytic(1) != analytic(2)


@pytest.mark.parametrize("directional", [False, True])
def test_the_seed_is_0_unless_one_is_given(directional: bool) -> None:
    given = affine, affine_backward, X, W, b
    without = mt.gradcheck_function(*given, directional=directional)
    assert without.rows == mt.gradcheck_function(*given, directional=directional, seed=0).rows


def writes_to_its_input(x: Any) -> Any:
    x *= 2
    return x + 0


def test_a_function_that_writes_to_its_input_is_told_so() -> None:
    backward: Callable[..., Any] = lambda dy, x: 2 * dy  # noqa: E731
    report = mt.gradcheck_function(writes_to_its_input, backward, X)
    assert report.broken == ["forward writes to x"] and not report.ok
