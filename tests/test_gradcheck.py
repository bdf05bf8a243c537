"""The gradient checker itself: that it is precise, sees what is wrong, says what, and takes anybody's layer.

That it finds the faults of public Transformers is shown in test_negative_controls.py.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import randomise

import minitransformer as mt
from minitransformer.gradcheck.derivatives import STEPS, both_sides, central, one_sided, slopes

METHODS = ("complex", "central")
SEEDS = st.integers(0, 2**32 - 1)
both_methods = pytest.mark.parametrize("method", METHODS)


class Layer:
    """A layer that is no Module: y = function(x), dx = dy · derivative(x)."""

    def __init__(self, function: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> None:
        self.function, self.derivative = function, derivative

    def forward(self, x):
        return self.function(x), x

    def backward(self, dy, cache):
        return dy * self.derivative(cache)


class Affine:
    """y = x W + b, by somebody who does not know Module. `wrong` sabotages the gradients, by name."""

    def __init__(self, d_in: int = 3, d_out: int = 5, **wrong: Callable[[Any], Any]) -> None:
        rng = np.random.default_rng(0)
        self.W, self.b = mt.Parameter(rng.normal(size=(d_in, d_out))), mt.Parameter(np.zeros(d_out))
        self.wrong = wrong

    def forward(self, x):
        return x @ self.W.data + self.b.data, x

    def backward(self, dy, x):
        gradients = {"W": np.einsum("btj,btk->jk", x, dy), "b": dy.sum((0, 1)), "x": dy @ self.W.data.T}
        found = {name: self.wrong.get(name, np.asarray)(g) for name, g in gradients.items()}
        self.W.grad += found["W"]
        self.b.grad += found["b"]
        return found["x"]


def x(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ---- derivatives of a function of one number


@given(coefficients=st.lists(st.floats(-3, 3), min_size=1, max_size=4), h=st.sampled_from(STEPS))
def test_all_formulas_are_exact_for_polynomials_up_to_the_fourth_power(
    coefficients: list[float], h: float
) -> None:
    def f(t: float) -> float:
        return sum(c * t**power for power, c in enumerate(coefficients, 1))

    rounding = 1e-13 / h
    for estimate in (central(f, h), one_sided(f, h), one_sided(f, -h)):
        assert math.isclose(estimate, coefficients[0], rel_tol=1e-10, abs_tol=rounding)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_the_step_is_found_on_which_the_derivative_does_not_depend(scale: float) -> None:
    for f in (np.sin, np.expm1, np.tanh, lambda t: np.log1p(max(t, -0.9))):
        found = both_sides(lambda t, f=f: float(f(t / scale)), noise=1e-16)
        assert abs(found.value * scale - 1) < 1e-9 and found.doubt * scale < 1e-8


@given(place=st.floats(1e-5, 0.2), side=st.sampled_from([-1, 1]), bend=st.floats(0.1, 10))
def test_a_bend_nearby_is_seen_from_the_other_side(place: float, side: int, bend: float) -> None:
    def f(t: float) -> float:
        return math.sin(t) + bend * max(0, side * t - place)

    found = slopes(f, noise=1e-16)
    assert abs(found.best.value - 1) < 1e-8
    assert not found.kink(1.0, least=1e-8)


@given(left=st.floats(-5, 5), jump=st.floats(0.01, 5))
def test_a_bend_right_here_is_a_kink_for_any_slope_in_between(left: float, jump: float) -> None:
    def f(t: float) -> float:
        return math.sin(t) * (left if t < 0 else left + jump)

    found = slopes(f, noise=1e-16)
    for share in (0, 0.3, 1):
        assert found.kink(left + share * jump, least=1e-8)
    for share in (-0.1, 1.1):
        assert not found.kink(left + share * jump, least=1e-8)


# ---- kinks


def relu(at_zero: float) -> Layer:
    return Layer(lambda x: np.maximum(x, 0), lambda x: np.where(x == 0, at_zero, x > 0))


@pytest.mark.parametrize("at_zero", [0.0, 0.3, 1.0])
def test_relu_at_zero_is_a_kink_and_no_error(at_zero: float) -> None:
    inputs = x(4, 5)
    inputs[0, 1] = inputs[2, 2] = 0
    report = mt.gradcheck(relu(at_zero), inputs)
    assert report.ok and report.rows[0].kinks == 2 and "2 at a kink, left out" in str(report)


def test_relu_at_zero_is_a_kink_for_the_complex_step_too() -> None:
    inputs = x(4, 5)
    inputs[0, 1] = 0
    report = mt.gradcheck(relu(0.0), inputs, method="complex")
    assert report.ok and report.rows[0].kinks == 1


@both_methods
@pytest.mark.parametrize("at_zero", [-0.5, 1.5, np.nan])
def test_what_is_no_slope_at_a_kink_is_wrong(at_zero: float, method: str) -> None:
    inputs = x(4, 5)
    inputs[0, 1] = 0
    report = mt.gradcheck(relu(at_zero), inputs, method=method)
    assert not report.ok and report.rows[0].index == (0, 1) and report.rows[0].kinks == 0


@given(distance=st.floats(1e-5, 1e-2), seed=SEEDS)
def test_near_a_kink_the_derivative_is_checked(distance: float, seed: int) -> None:
    inputs = x(4, 5, seed=seed)
    inputs[1, 3] = -distance
    assert mt.gradcheck(relu(0.0), inputs).rows[0].kinks == 0
    wrong = Layer(lambda x: np.maximum(x, 0), lambda x: x > -2e-2)
    assert not mt.gradcheck(wrong, inputs).ok


@both_methods
def test_a_tie_of_a_maximum_is_a_kink(method: str) -> None:
    def derivative(x):
        return np.arange(x.shape[-1]) == x.argmax(-1)[:, None]

    layer = Layer(lambda x: x.max(-1, keepdims=True), derivative)
    inputs = x(4, 3)
    inputs[2] = [1.0, 0.0, 1.0]
    report = mt.gradcheck(layer, inputs, method=method)
    assert report.ok and report.rows[0].kinks == {"central": 2, "complex": 1}[method]


@both_methods
def test_a_direction_that_starts_at_a_kink_is_checked_beside_it(method: str) -> None:
    """And there it is checked as well as anywhere: no mistake hides in the width of the kink."""
    inputs = x(4, 5)
    inputs[0, 1] = 0
    report = mt.gradcheck(relu(0.3), inputs, method=method, directional=True)
    assert report.ok and report.rows[0].kinks >= 1 and "checked beside a kink" in str(report)
    almost = Layer(lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0001)
    assert not mt.gradcheck(almost, inputs, method=method, directional=True).ok


# ---- precision


@both_methods
@given(seed=SEEDS, scale=st.sampled_from([1e-2, 1.0, 100.0]))
def test_smooth_functions_of_any_scale(method: str, seed: int, scale: float) -> None:
    layer = Layer(lambda x: np.sin(x / scale) + np.exp(-x * x / scale**2),
                  lambda x: np.cos(x / scale) / scale - 2 * x / scale**2 * np.exp(-x * x / scale**2))  # fmt: skip
    report = mt.gradcheck(layer, scale * x(3, 4, seed=seed), method=method)
    assert report.ok, report


@both_methods
@pytest.mark.parametrize("directional", [False, True])
def test_one_wrong_digit_is_seen(method: str, directional: bool) -> None:
    """In the eleventh digit by complex steps, in the seventh by central differences: all gradients, or one's."""
    error = {"complex": 1e-11, "central": 1e-7}[method]
    how: dict[str, Any] = {"method": method, "directional": directional}
    assert mt.gradcheck(Affine(), x(2, 7, 3), **how).ok
    for name in ("x", "W", "b"):
        wrong = Affine(**{name: lambda g: g * (1 + 10 * error if directional else 1 + error)})
        report = mt.gradcheck(wrong, x(2, 7, 3), **how)
        assert not report.ok and (directional or [row.name for row in report.wrong] == [name]), report


def test_the_direction_misses_no_number() -> None:
    """Each of the 36 numbers in turn: its gradient wrong by a thousandth."""
    for name, shape in {"x": (2, 7, 3), "W": (3, 5), "b": (5,)}.items():
        for i in np.ndindex(shape):

            def wrong(g, i=i):
                g = g.copy()
                g[i] += 1e-3
                return g

            report = mt.gradcheck(Affine(**{name: wrong}), x(2, 7, 3), method="complex", directional=True)
            assert report.max_relative_error > 1e-6


def test_many_numbers_are_checked_along_one_direction() -> None:
    layer = mt.layers.Linear(60, 70, rng=0)
    report = mt.gradcheck(layer, x(2, 60))
    assert report.directional and report.ok and report.n_numbers == 60 * 70 + 70 + 120
    assert [row.name for row in report.rows] == ["all, along one direction"]
    assert len(mt.gradcheck(layer, x(2, 60), directional=False, method="complex").rows) == 3


def test_the_tolerance_is_yours() -> None:
    wrong = Affine(b=lambda g: g * 1.001)
    assert not mt.gradcheck(wrong, x(2, 7, 3)).ok
    report = mt.gradcheck(wrong, x(2, 7, 3), tolerance=0.01)
    assert report.ok and report.tolerance == 0.01 and report.max_relative_error > 1e-4
    assert mt.gradcheck(Affine(), x(2, 7, 3), tolerance=1e-9, method="complex").tolerance == 1e-9


# ---- what is checked, and what is left alone


def test_gamma_of_ones_hides_nothing() -> None:
    """A fault that is none while all of gamma is 1, as it is before training."""

    class Outside(mt.layers.LayerNorm):
        def backward(self, dy, cache):
            dx = super().backward(dy / self.gamma.data, cache)
            return dx * self.gamma.data

    report = mt.gradcheck(Outside(6), x(2, 5, 6), method="complex")
    assert "x" in [row.name for row in report.wrong]


@both_methods
def test_the_layer_and_its_inputs_are_left_alone(method: str) -> None:
    layer = mt.layers.AddNorm(6, dropout=0.3)
    layer.norm.gamma.grad = np.ones(6)
    inputs = x(2, 5, 6).astype("float32"), x(2, 5, 6, seed=2).astype("float32")
    copies = [a.copy() for a in inputs]
    assert mt.gradcheck(layer, *inputs, method=method, dropout_seed=3).ok
    assert all((a == b).all() and a.dtype == "float32" for a, b in zip(inputs, copies, strict=True))
    gamma, beta = layer.norm.gamma, layer.norm.beta
    assert (gamma.data == 1).all() and (beta.data == 0).all() and gamma.data.dtype == "float32"
    assert (gamma.grad == 1).all() and (beta.grad == 0).all()


def test_a_model_in_one_buffer_can_be_checked_and_goes_on_as_before() -> None:
    layer = mt.layers.FeedForward(4, 6, rng=0)
    flat = layer.flatten()
    before = flat.data.copy()
    assert mt.gradcheck(layer, x(2, 5, 4), method="complex").ok
    assert layer.flatten() is flat or layer.flatten().data is flat.data
    assert (flat.data == before).all() and (flat.grad == 0).all() and layer.W_1.data.base is flat.data


@both_methods
def test_anything_with_a_forward_and_a_backward_is_a_layer(method: str) -> None:
    """No base class, layers in lists and dicts of layers, forward without an rng."""

    class Stack:
        def __init__(self) -> None:
            self.layers = [Affine(3, 5), {"last": Affine(5, 2)}]

        def forward(self, x):
            y, first = self.layers[0].forward(x)
            y, second = self.layers[1]["last"].forward(y)
            return y, (first, second)

        def backward(self, dy, cache):
            return self.layers[0].backward(self.layers[1]["last"].backward(dy, cache[1]), cache[0])

    report = mt.gradcheck(Stack(), x(2, 7, 3), method=method)
    names = ["x", "layers.0.W", "layers.0.b", "layers.1.last.W", "layers.1.last.b"]
    assert report.ok and [row.name for row in report.rows] == names


def test_arrays_that_are_no_parameters_are_pointed_out() -> None:
    class Forgets(Affine):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.mask = np.ones(3), np.ones(3, bool)

    report = mt.gradcheck(Forgets(), x(2, 7, 3))
    (note,) = report.notes
    assert note.startswith("scale: ") and "no Parameter" in note and f"note: {note}" in str(report)
    assert mt.gradcheck(Affine(), x(2, 7, 3)).notes == []


def test_inputs_are_named_as_forward_names_them() -> None:
    class Named:
        def __init__(self) -> None:
            self.W = mt.Parameter(x(3))

        def forward(self, W, ids, *more, rng=None):
            return self.W.data * W * more[0], (W, more[0])

        def backward(self, dy, cache):
            W, more = cache
            self.W.grad += (dy * W * more).sum(0)
            return dy * self.W.data * more, dy * self.W.data * W

    report = mt.gradcheck(Named(), x(5, 3), np.arange(3), x(5, 3, seed=2), method="complex")
    assert report.ok and [row.name for row in report.rows] == ["input 0", "input 2", "W"]


def test_dropout_is_checked_with_the_mask_of_the_forward_pass() -> None:
    class Another(mt.layers.Dropout):
        def backward(self, dy, cache):
            return dy if cache.kept is None else dy * cache.kept[::-1] / (1 - self.p)

    inputs = x(8, 5)
    assert mt.gradcheck(mt.layers.Dropout(0.5), inputs, dropout_seed=1).ok
    assert not mt.gradcheck(Another(0.5), inputs, dropout_seed=1).ok
    assert mt.gradcheck(Another(0.5), inputs).ok  # evaluation: nothing is dropped


def test_an_empty_input_is_no_obstacle() -> None:
    class Sum:
        def forward(self, x, empty):
            return x * 2, None

        def backward(self, dy, cache):
            return dy * 2, np.zeros((0, 3))

    for directional in (False, True):
        assert mt.gradcheck(Sum(), x(2, 3), np.zeros((0, 3)), directional=directional).ok


def test_the_same_seed_gives_the_same_report_and_another_one_another_dy() -> None:
    def first(seed: int) -> float:
        return mt.gradcheck(Affine(), x(2, 7, 3), seed=seed).rows[0].analytic

    assert first(1) == first(1) != first(2)


# ---- the contract


class InPlace(Layer):
    """y = x + max(0, x), `spoil` called in backward with dy and the cache, which is x."""

    def __init__(self, spoil: Callable[[Any, Any], None]) -> None:
        super().__init__(lambda x: x + np.maximum(x, 0), lambda x: 1 + (x > 0))
        self.spoil = spoil

    def backward(self, dy, cache):
        dx = super().backward(dy, cache)
        self.spoil(dy, cache)
        return dx


@both_methods
@pytest.mark.parametrize("directional", [False, True])
@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda dy, x: np.multiply(dy, x > 0, out=dy), "backward writes to dy"),
        (lambda dy, x: np.clip(x, -0.1, 0.1, out=x), "backward writes to x"),
        (lambda dy, x: np.negative(x, out=x), "backward gives another gradient"),
    ],
)
def test_writing_to_what_is_not_ones_own_breaks_the_contract(
    method: str, directional: bool, spoil: Callable[[Any, Any], None], rule: str
) -> None:
    how: dict[str, Any] = {"method": method, "directional": directional}
    assert mt.gradcheck(InPlace(lambda dy, x: None), x(3, 4), **how).ok
    report = mt.gradcheck(InPlace(spoil), x(3, 4), **how)
    assert (
        not report.ok and any(rule in broken for broken in report.broken) and f"BROKEN: {rule}" in str(report)
    )
    assert "WRONG" in str(report).splitlines()[0]


class Remembers(Layer):
    """Keeps x on itself, not in the cache."""

    def forward(self, x):
        self.x = x
        return self.function(x), None

    def backward(self, dy, cache):
        return dy * self.derivative(self.x)


@both_methods
@pytest.mark.parametrize("directional", [False, True])
def test_what_backward_needs_has_to_be_in_the_cache(method: str, directional: bool) -> None:
    how: dict[str, Any] = {"method": method, "directional": directional}
    assert mt.gradcheck(Layer(np.sin, np.cos), x(3, 4), **how).ok
    assert not mt.gradcheck(Remembers(np.sin, np.cos), x(3, 4), **how).ok


class Keeps:
    """A layer that keeps what backward needs, on itself or in the cache."""

    def __init__(self, on_itself: bool) -> None:
        self.on_itself = on_itself
        self.E = mt.Parameter(x(5, 4))

    def keep(self, what):
        if not self.on_itself:
            return what
        self.kept = what
        return None

    def kept_in(self, cache):
        return self.kept if self.on_itself else cache


class KeepsIds(Keeps):
    def forward(self, ids):
        return self.E.data[ids], self.keep(ids)

    def backward(self, dy, cache):
        np.add.at(self.E.grad, self.kept_in(cache), dy)


class KeepsZeros(Keeps):
    def forward(self, x, rng=None):
        kept = rng.random(x.shape) >= 0.5
        return x * kept, self.keep(kept)

    def backward(self, dy, cache):
        return dy * self.kept_in(cache)


class KeepsMask(Keeps):
    def forward(self, x, mask):
        return x * mask, self.keep(mask)

    def backward(self, dy, cache):
        return dy * self.kept_in(cache)


@both_methods
@pytest.mark.parametrize("directional", [False, True])
@pytest.mark.parametrize("on_itself", [False, True])
def test_ids_masks_and_zeros_of_dropout_have_to_be_in_the_cache_too(
    method: str, directional: bool, on_itself: bool
) -> None:
    how: dict[str, Any] = {"method": method, "directional": directional}
    ids, mask = np.array([[0, 3, 3, 1], [2, 4, 0, 0]]), x(3, 4) > 0
    for report in (
        mt.gradcheck(KeepsIds(on_itself), ids, **how),
        mt.gradcheck(KeepsZeros(on_itself), x(3, 4), dropout_seed=1, **how),
        mt.gradcheck(KeepsMask(on_itself), x(3, 4), mask, **how),
    ):
        assert report.ok is not on_itself


def test_a_layer_that_takes_only_some_ids_can_be_checked() -> None:
    """Though other inputs, which come in between to see what is kept, are not all to its liking."""

    class Sorted(KeepsIds):
        def forward(self, ids):
            assert (np.diff(ids) >= 0).all()
            return super().forward(ids)

    assert mt.gradcheck(Sorted(on_itself=False), np.array([[0, 1, 3], [1, 1, 4]])).ok


@both_methods
def test_writing_to_ids_masks_and_parameters_breaks_the_contract(method: str) -> None:
    class Writes:
        def __init__(self, forward: Any = None, backward: Any = None) -> None:
            self.b = mt.Parameter(x(4))
            self.in_forward, self.in_backward = forward, backward

        def forward(self, x, ids, mask):
            if self.in_forward:
                self.in_forward(self.b, ids, mask)
            return (x + self.b.data) * mask * (ids != 7), (mask.copy(), ids.copy())

        def backward(self, dy, cache):
            dx = dy * cache[0] * (cache[1] != 7)
            self.b.grad += dx.sum(0)
            if self.in_backward:
                self.in_backward(self.b, *cache[::-1])
            return dx

    ids, mask = np.arange(12).reshape(3, 4), x(3, 4) > 0
    given = x(3, 4), ids, mask
    assert mt.gradcheck(Writes(), *given, method=method).ok
    for change, rule in (
        (lambda b, ids, mask: np.logical_and(mask, np.tri(3, 4) > 0, out=mask), "forward writes to mask"),
        (lambda b, ids, mask: ids.__setitem__((0, 0), 1), "forward writes to ids"),
        (lambda b, ids, mask: b.data.__setitem__(0, 0.0), "forward writes to b"),
    ):
        report = mt.gradcheck(Writes(change), *given, method=method)
        assert rule in report.broken and not report.ok
    report = mt.gradcheck(
        Writes(None, lambda b, ids, mask: np.multiply(b.data, 0.9, out=b.data)), *given, method=method
    )
    assert "backward writes to b" in report.broken
    assert ids.tolist() == np.arange(12).reshape(3, 4).tolist()  # the caller's own are not touched


@both_methods
def test_a_forward_that_is_not_pure_is_told_so(method: str) -> None:
    draw = np.random.default_rng(0)
    random = Layer(lambda x: x * draw.normal(), lambda x: 1.0)
    assert any("another y" in rule for rule in mt.gradcheck(random, x(3, 4), method=method).broken)
    half = Layer(lambda x: x.astype("float32") if x.dtype == "float64" else x, lambda x: 1.0)
    assert any("float32" in rule for rule in mt.gradcheck(half, x(3, 4), method=method).broken)
    writes = Layer(lambda x: np.maximum(x, 0, out=x) + 0, lambda x: (x > 0) * 1.0)
    assert "forward writes to x" in mt.gradcheck(writes, x(3, 4)).broken


@both_methods
def test_a_parameter_that_is_not_found_is_told_so(method: str) -> None:
    class Hidden(Layer):
        def __init__(self) -> None:
            super().__init__(np.sin, np.cos)
            self.box = types.SimpleNamespace(W=mt.Parameter(x(3)))

    report = mt.gradcheck(Hidden(), x(3, 4), method=method)
    assert not report.ok and report.broken[0].startswith("1 Parameter(s) not found")


@both_methods
def test_a_parameter_of_one_number_is_moved_from_where_training_starts(method: str) -> None:
    class Scale:
        def __init__(self) -> None:
            self.g = mt.Parameter(np.ones(1))

        def forward(self, x):
            return self.g.data * x, x

        def backward(self, dy, x):
            self.g.grad += (dy * x).sum()
            return dy  # g forgotten: right while it is 1

    assert [row.name for row in mt.gradcheck(Scale(), x(3, 4), method=method).wrong] == ["x"]


# ---- a mistake has no place to hide


def test_a_pole_nearby_hides_no_mistake_elsewhere() -> None:
    inputs = abs(x(4, 5)) + 1
    inputs[0, 0] = 1e-3  # where a step leaves the domain of the logarithm

    def wrong(x):
        dx = 1 / x
        dx[1, 1] *= -3
        return dx

    assert not mt.gradcheck(Layer(np.log, wrong), inputs).ok
    inputs[0, 0] = 0.3
    assert mt.gradcheck(Layer(np.log, lambda x: 1 / x), inputs).ok


@pytest.mark.parametrize("directional", [False, True])
def test_a_norm_is_not_analytic_and_complex_steps_say_so(directional: bool) -> None:
    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    layer = Layer(
        unit, lambda x: 1 / np.linalg.norm(x, axis=-1, keepdims=True)
    )  # what complex steps would say
    with pytest.raises(mt.InputError, match=r"by complex steps, .* by real ones"):
        mt.gradcheck(layer, x(3, 4), method="complex", directional=directional)
    assert not mt.gradcheck(layer, x(3, 4)).ok


@pytest.mark.parametrize("seed", range(20))
def test_a_forward_that_is_analytic_in_some_of_its_numbers_only_is_found(seed: int) -> None:
    """Small in the sum of all, or right by chance to one in a hundred."""

    class Offset(Layer):
        def __init__(self) -> None:
            self.b = mt.Parameter(x(4))

        def forward(self, x):
            return x + 1e-3 * abs(self.b.data), None

        def backward(self, dy, cache):
            return dy  # b forgotten, and by complex steps it has no gradient

    class Variance(Layer):
        def __init__(self) -> None:
            pass

        def forward(self, x):
            rstd = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            return x * rstd, rstd

        def backward(self, dy, rstd):
            return dy * rstd  # as if the variance were a number

    for layer, shape in ((Offset(), (3, 4)), (Variance(), (2, 5, 8)), (Variance(), (1, 2, 256))):
        for directional in (False, True):
            with pytest.raises(mt.InputError, match="by complex steps"):
                mt.gradcheck(layer, x(*shape), method="complex", directional=directional, seed=seed)


def test_a_check_of_nothing_is_none() -> None:
    for layer in (relu(0.0), relu(0.7)):
        report = mt.gradcheck(layer, np.zeros((4, 5)))
        assert report.rows[0].kinks == 20 and not report.ok and "nothing was compared" in str(report)


def test_few_digits_are_not_called_a_kink() -> None:
    layer = Layer(lambda x: np.sin(x) + 1e6, np.cos)
    row = mt.gradcheck(layer, x(3, 4)).rows[0]
    assert row.kinks == 0 and row.unsure > 0
    assert mt.gradcheck(layer, x(3, 4), method="complex").ok


@both_methods
@given(seed=SEEDS, zeros=st.integers(1, 6))
def test_a_direction_may_start_at_many_kinks(method: str, seed: int, zeros: int) -> None:
    inputs = x(4, 5, seed=seed)
    inputs.ravel()[:zeros] = 0
    assert mt.gradcheck(relu(0.0), inputs, method=method, directional=True, seed=seed).ok


@both_methods
def test_large_numbers_are_moved_exactly(method: str) -> None:
    for size in (1e3, 1e7, 1e10):
        assert mt.gradcheck(Layer(lambda x: x * 1, np.ones_like), size * x(3, 4), method=method).ok
    assert mt.gradcheck(mt.layers.LayerNorm(4), 1e3 + x(3, 4)).ok


@both_methods
def test_a_single_number_is_an_input(method: str) -> None:
    for number in (np.float64(0.3), np.float32(0.3), np.array(0.3)):
        for directional in (False, True):
            assert mt.gradcheck(Layer(np.sin, np.cos), number, method=method, directional=directional).ok


# ---- what cannot be checked


@pytest.mark.parametrize(
    "function", [np.abs, np.floor, lambda x: x.real, lambda x: x.astype(float), lambda x: np.float64(x[0, 0])]
)
def test_what_does_not_run_in_complex_numbers_is_told_so(function: Callable[[Any], Any]) -> None:
    layer = Layer(function, np.sign)
    with pytest.raises(mt.InputError, match="use method='central'"):
        mt.gradcheck(layer, x(3, 4), method="complex")


def test_what_is_not_analytic_can_be_checked_by_central_differences() -> None:
    assert mt.gradcheck(Layer(np.abs, np.sign), x(3, 4)).ok


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mt.gradcheck(Affine(), x(2, 7, 3), method="forward"),
            "method: expected 'central' or 'complex'",
        ),
        (lambda: mt.gradcheck(Layer(np.sin, np.cos), 3), "expected a floating-point input or a Parameter"),
        (lambda: mt.gradcheck(Layer(np.sin, np.cos), x(3) + 1j), "expected real inputs"),
        (lambda: mt.gradcheck(Layer(lambda x: "y", np.cos), x(3)), "y an array of floats; got a str"),
        (lambda: mt.gradcheck(Layer(lambda x: x > 0, np.cos), x(3)), "y an array of floats; got a ndarray"),
        (
            lambda: mt.gradcheck(Layer(np.sin, lambda x: x[:, None]), x(3)),
            r"shapes {'x': \(3,\)}, got float64 of shape \(3, 3\)",
        ),
        (lambda: mt.gradcheck(Affine(x=lambda g: None), x(2, 7, 3)), r"{'x': \(2, 7, 3\)}, got nothing"),
        (lambda: mt.gradcheck(3), "an object with forward and backward, got 3"),
        (lambda: mt.gradcheck(Affine, x(2, 7, 3)), "an object with forward and backward, got <class"),
        (lambda: mt.gradcheck(Affine(), x(2, 7, 3), dropout_seed=1), "got one without rng"),
        (lambda: mt.gradcheck(Affine(), x(2, 7, 3), tolerance="x"), "tolerance: expected a number"),
        (lambda: mt.gradcheck(Affine(), x(2, 7, 3), tolerance=math.nan), "tolerance: expected a number"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(mt.InputError, match=message):
        call()


def test_a_backward_that_returns_too_little_is_told_so() -> None:
    class Forgets(mt.layers.AddNorm):
        def backward(self, dy, cache):
            return super().backward(dy, cache)[0], None

    ones = np.ones((2, 3))
    with pytest.raises(
        mt.InputError, match=r"of shapes {'x': \(2, 3\), 's': \(2, 3\)}, got float64 of shape \(2, 3\), None"
    ):
        mt.gradcheck(Forgets(3), ones, ones)


# ---- the report


@both_methods
@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("W", np.zeros_like, "zero everywhere"),
        ("W", np.negative, "wrong sign"),
        ("W", lambda g: g / 2, "half of what it should be"),
        ("b", lambda g: g / 7, "7 times too small, and 7 is the size of axis 1 of x"),
        ("x", lambda g: g * 3, "3 times too large, and 3 is the size of axis 2 of x"),
        ("x", lambda g: g * 14, "14 times too large, and 14 is the product of axes 0 to 1 of y"),
        ("W", lambda g: g / math.sqrt(3), r"sqrt\(3\) times too small"),
        ("W", lambda g: g * math.sqrt(5), r"sqrt\(5\) times too large, and 5 is the size of axis 2 of y"),
        ("W", lambda g: 1.25 * g, "1.25 times what it should be"),
        ("W", lambda g: g.T.reshape(g.shape), r"axes \[1, 0\]: a transpose"),
        ("x", lambda g: g + g.mean(-1, keepdims=True), "off by the same amount all along axis 2"),
        ("b", lambda g: g + 0.1, "off by the same amount all along axis 0"),
        ("W", lambda g: g * (np.arange(3) != 1)[:, None], r"wrong in 1 of 3 rows \(1\)"),
        ("W", lambda g: g + np.nan, "backward gives NaN"),
        ("W", lambda g: g**3, ""),
    ],
)
def test_the_report_says_what_the_mistake_looks_like(
    method: str, name: str, wrong: Callable[[Any], Any], words: str
) -> None:
    report = mt.gradcheck(Affine(**{name: wrong}), x(2, 7, 3), method=method)
    (row,) = report.wrong
    assert row.name == name and row.hint in str(report)
    assert (re.search(words, row.hint) is not None) if words else row.hint == ""


@both_methods
def test_the_report_sees_exchanged_gradients_and_forgotten_masks(method: str) -> None:
    class Exchanged(mt.layers.MultiHeadAttention):
        def backward(self, dy, cache):
            dquery, dkey, dvalue = super().backward(dy, cache)
            return dquery, dvalue, dkey

    attention = randomise(Exchanged(4, 2), np.random.default_rng(1))
    report = mt.gradcheck(attention, x(2, 3, 4), x(2, 5, 4), x(2, 5, 4, seed=3), method=method)
    assert [(row.name, row.hint) for row in report.wrong] == [
        ("key", "this is the gradient of value"),
        ("value", "this is the gradient of key"),
    ]
    unmasked = Layer(lambda x: np.where(x > 0, x, 0), lambda x: 1.0)
    (row,) = mt.gradcheck(unmasked, x(4, 5), method=method).wrong
    assert "a mask left out of backward" in row.hint
    infinite = Layer(lambda x: x / np.where(x > 0.5, 0, 1), lambda x: 1.0)
    with np.errstate(all="ignore"):
        (row,) = mt.gradcheck(infinite, x(4, 5), method=method).wrong
    assert "forward gives NaN or infinity" in row.hint


def test_the_report_is_a_table() -> None:
    report = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), method="complex")
    title, *lines = str(report).splitlines()
    assert title == "Affine: WRONG (complex step, 62 numbers, tolerance 1e-12)"
    assert [line.split()[:2] for line in lines if "error" in line] == [
        ["ok", "x"],
        ["WRONG", "W"],
        ["ok", "b"],
    ]
    row = report.wrong[0]
    assert row.relative_error == report.max_relative_error == pytest.approx(1.0, abs=1.1)
    assert f"analytic {row.analytic:+.10e}" in str(report) and str(list(row.index)) in str(report)
    assert row.analytic == pytest.approx(-row.numeric) and row.shape == (3, 5)


def test_a_wrong_direction_says_how_to_find_the_place() -> None:
    report = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), directional=True)
    assert not report.ok and "directional=False" in str(report)
