"""The check itself: kinks are no errors, one wrong digit is, and no mistake has a place to hide.

That it finds the faults of public Transformers is shown in tests/adversarial/test_negative_controls.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import SEEDS, Affine, Layer, both_methods, relu, x
from hypothesis import given
from hypothesis import strategies as st
from messages import message_of

import minitransformer as mt
from minitransformer.gradcheck import Row, check, comparison, directions, each_number
from minitransformer.gradcheck.derivatives import Slope, Slopes
from minitransformer.gradcheck.diagnosis import nothing_compared
from minitransformer.gradcheck.subject import Subject

# ---- kinks


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


def test_many_numbers_are_checked_along_random_directions() -> None:
    layer = mt.layers.Linear(60, 70, rng=0)
    report = mt.gradcheck(layer, x(2, 60))
    assert report.directional and report.ok and report.n_numbers == 60 * 70 + 70 + 120
    assert [row.name for row in report.rows] == ["all, along random directions"]
    assert len(mt.gradcheck(layer, x(2, 60), directional=False, method="complex").rows) == 3


def test_the_tolerance_is_yours() -> None:
    wrong = Affine(b=lambda g: g * 1.001)
    assert not mt.gradcheck(wrong, x(2, 7, 3)).ok
    report = mt.gradcheck(wrong, x(2, 7, 3), tolerance=0.01)
    assert report.ok and report.tolerance == 0.01 and report.max_relative_error > 1e-4
    assert mt.gradcheck(Affine(), x(2, 7, 3), tolerance=1e-9, method="complex").tolerance == 1e-9


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
    """Small, or right by chance to one in a hundred; number by number, each variable is looked at by itself."""
    size = 1e-3

    class Offset(Layer):
        def __init__(self) -> None:
            self.b = mt.Parameter(x(4))

        def forward(self, x):
            return x + size * abs(self.b.data), None

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
    size = 1e-8
    with pytest.raises(mt.InputError, match="by complex steps"):
        mt.gradcheck(Offset(), x(3, 4), method="complex", directional=False, seed=seed)


@both_methods
def test_a_gradient_far_too_large_hides_no_other_that_is_wrong(method: str) -> None:
    wrong = Affine(W=lambda g: 1e9 * g, b=lambda g: 1.001 * g)
    assert mt.gradcheck(wrong, x(2, 7, 3), method=method).verdicts == {"x": "ok", "W": "WRONG", "b": "WRONG"}


@both_methods
def test_where_backward_gives_only_zeros_the_worst_entry_is_one_that_is_not_zero(method: str) -> None:
    inputs = np.array([0.0, 0.3])
    (row,) = mt.gradcheck(Layer(np.square, np.zeros_like), inputs, method=method).wrong
    assert row.index == (1,) and row.relative_error == 1


@pytest.mark.parametrize("directional", [False, True])
def test_a_slope_that_real_steps_cannot_see_is_seen_by_complex_steps(directional: bool) -> None:
    layer = Layer(lambda x: 1 + 1e-13 * x, np.zeros_like)
    assert mt.gradcheck(layer, x(3, 4), method="complex", directional=directional).wrong


class Shift(Layer):
    """x + b, with a gradient that is right where b is 0."""

    def __init__(self) -> None:
        self.b = mt.Parameter(np.zeros(3))

    def forward(self, x: Any) -> tuple[Any, Any]:
        return x + self.b.data, None

    def backward(self, dy: Any, cache: Any) -> Any:
        self.b.grad += dy.sum(0)
        return dy * (1 + self.b.data)


@both_methods
@pytest.mark.parametrize("directional", [False, True])
def test_a_bias_of_zeros_is_spread_out(method: str, directional: bool) -> None:
    assert mt.gradcheck(Shift(), x(4, 3), method=method, directional=directional).wrong


def test_each_direction_has_an_upstream_gradient_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, one = [], directions.one_direction

    def recorded(subject: Subject, *rest: Any) -> Any:
        seen.append(subject.dy.copy())
        return one(subject, *rest)

    monkeypatch.setattr(directions, "one_direction", recorded)
    assert mt.gradcheck(Affine(), x(2, 7, 3), directional=True).ok
    assert len(seen) == 2 and (seen[0] != seen[1]).all()


@both_methods
def test_the_floor_of_an_error_is_one_percent_of_the_largest_gradient(method: str) -> None:
    report = mt.gradcheck_function(
        lambda a, b: a + 1e-4 * b, lambda dy, a, b: (dy, 0 * dy), x(1), x(1, seed=2), method=method
    )
    assert report.rows[1].relative_error == pytest.approx(0.01)


@pytest.mark.parametrize(("method", "most"), [("central", 1500), ("complex", 3000)])
def test_above_so_many_numbers_directions_are_taken(method: str, most: int) -> None:
    double = Layer(lambda x: 2 * x, lambda x: 2 + 0 * x)
    assert not mt.gradcheck(double, x(most), method=method).directional
    assert mt.gradcheck(double, x(most + 1), method=method).directional


class DividesByStd(mt.Module):
    """x / sqrt(var), where var has to be positive."""

    def __init__(self, d: int) -> None:
        self.var = mt.Parameter(np.full(d, 0.01))

    def forward(self, x: Any) -> tuple[Any, Any]:
        y = x / np.sqrt(self.var.data)
        return y, y

    def backward(self, dy: Any, y: Any) -> Any:
        self.var.grad -= (dy * y).sum(axis=0) / (2 * self.var.data)
        return dy / np.sqrt(self.var.data)


@both_methods
@given(seed=SEEDS)
def test_equal_parameters_are_spread_out_and_keep_their_sign(method: str, seed: int) -> None:
    assert mt.gradcheck(DividesByStd(5), x(4, 5), method=method, seed=seed).ok


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


# ---- one direction, figure by figure


def along(layer: Any, *inputs: Any, **how: Any) -> Row:
    """The row of a check along a single direction."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directions, "DIRECTIONS", 1)
        return mt.gradcheck(layer, *inputs, directional=True, **how).rows[0]


@both_methods
def test_the_row_of_a_right_direction_has_nothing_to_remark(method: str) -> None:
    row = along(Layer(np.sin, np.cos), x(4, 5), method=method)
    assert (row.name, row.shape, row.index) == ("all, along random directions", (20,), ())
    assert (row.kinks, row.unsure, row.checked, row.hint) == (0, 0, 1, "")


@both_methods
def test_the_row_of_a_wrong_direction_has_no_kinks_and_says_how_to_go_on(method: str) -> None:
    row = along(Layer(np.sin, lambda x: np.cos(x) + 1), x(4, 5), method=method)
    assert (row.kinks, row.unsure, row.checked) == (0, 0, 1)
    assert row.hint == "directional=False, on a smaller layer, shows which numbers are wrong"


def test_the_derivative_along_a_direction_has_all_digits_by_complex_steps_even_if_backward_is_wrong() -> None:
    right, wrong = (along(Affine(W=f), x(2, 7, 3), method="complex") for f in (np.asarray, np.negative))
    assert wrong.numeric == right.numeric == pytest.approx(right.analytic, rel=1e-14, abs=0)


def test_beside_a_kink_the_derivative_along_a_direction_has_all_digits_by_complex_steps_too() -> None:
    layer = Layer(lambda x: np.where(x.real > 0, 1, 0.1) * np.sin(20 * x),
                  lambda x: np.where(x > 0, 20, 2) * np.cos(20 * x))  # fmt: skip
    row = along(layer, np.zeros((2, 2)), method="complex")
    assert row.kinks == 1 and row.relative_error < 1e-14


@both_methods
def test_the_error_of_a_direction_is_relative_to_the_length_of_the_gradient_at_least(method: str) -> None:
    """To its length over the root of the number of numbers: along some directions the derivative is small by chance."""
    small = 0
    for seed in range(8):
        gradients = Subject(
            wrong := Affine(W=lambda g: g * 1.001), (x(2, 7, 3),), None, seed
        ).analytic_gradients()
        length = (sum(float((g * g).sum()) for g in gradients.values()) / 62) ** 0.5
        row = along(wrong, x(2, 7, 3), method=method, seed=seed)
        size = max(abs(row.analytic), abs(row.numeric))
        assert row.relative_error == pytest.approx(
            abs(row.analytic - row.numeric) / max(size, length), rel=1e-12
        )
        small += size < length
    assert 0 < small < 8


def test_where_no_slope_is_seen_and_none_is_claimed_the_error_is_relative_to_the_output() -> None:
    """The rounding of 2e13 is all that there is to see."""
    layer = Layer(lambda x: np.sin(x) + 2e13, np.zeros_like)
    errors = []
    for seed in range(8):
        row, size = along(layer, x(2, 3), seed=seed), Subject(layer, (x(2, 3),), None, seed).size
        assert row.analytic == 0 and row.relative_error == abs(row.numeric) / size < 1e-12
        errors.append(row.relative_error)
    assert max(errors) > 0


@both_methods
@pytest.mark.parametrize("directional", [False, True])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_gradients_of_zero_are_right_at_any_scale_if_the_output_is_constant_but_for_rounding(
    method: str, directional: bool, scale: float
) -> None:
    def weights_sum(x):
        weights = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        return scale * weights.sum(-1, keepdims=True) + 0 * x

    how: dict[str, Any] = {"method": method, "directional": directional}
    assert mt.gradcheck(Layer(weights_sum, np.zeros_like), x(3, 4), **how).ok
    almost = Layer(lambda x: weights_sum(x) + 1e-9 * scale * np.sin(x), np.zeros_like)
    assert mt.gradcheck(almost, x(3, 4), **how).wrong


@both_methods
@pytest.mark.parametrize("directional", [False, True])
def test_gradients_of_numbers_too_small_to_be_squared_are_compared(method: str, directional: bool) -> None:
    """The square of 1e-200 is 0: central differences see nothing of x² there, and complex steps see all."""
    small, how = 1e-200 * x(3, 4), {"method": method, "directional": directional}
    assert mt.gradcheck(Layer(lambda x: x * x, lambda x: 3 * x), small, **how).wrong
    assert mt.gradcheck(Layer(lambda x: x * x, lambda x: 2 * x), small, **how).ok is (method == "complex")
    for factor, ok in ((1e-200, True), (2e-200, False)):
        layer = Layer(lambda x: 1e-200 * np.sin(x), lambda x, factor=factor: factor * np.cos(x))
        assert mt.gradcheck(layer, x(3, 4), **how).ok is ok


@both_methods
def test_a_layer_that_gives_zero_has_a_derivative_of_zero(method: str) -> None:
    row = along(Layer(lambda x: 0 * x, np.zeros_like), x(2, 3), method=method)
    assert (row.analytic, row.numeric, row.relative_error) == (0, 0, 0)


def test_few_digits_along_a_direction_leave_it_undecided() -> None:
    for seed in range(8):
        row = along(Layer(lambda x: np.sin(x) + 1e7, np.cos), x(2, 3), seed=seed)
        assert row.checked == 1 - row.unsure and row.kinks == 0
        if row.unsure:
            assert row.hint == nothing_compared(0, 1) and row.relative_error == math.inf
        else:
            assert row.hint == "" and row.relative_error < 1e-8
    row = along(Layer(lambda x: np.sin(x) + 1e7, np.cos), x(2, 3), seed=3)
    assert row.unsure == 1 and row.analytic != row.numeric == pytest.approx(row.analytic, rel=1e-6)


def test_a_kink_that_is_everywhere_leaves_a_direction_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "MOST_MOVES", 0)
    row = along(Layer(np.abs, np.sign), np.zeros((4, 5)))
    assert (row.kinks, row.unsure, row.checked, row.relative_error) == (0, 0, 0, math.inf)
    assert row.hint == nothing_compared(1, 0)


@both_methods
def test_a_direction_at_a_kink_is_moved_five_times_at_most(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slopes, "bend", lambda self, least: True)
    assert along(Layer(np.sin, lambda x: np.cos(x) + 1), x(4, 5), method=method).kinks == 5


@both_methods
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0, 1e4])
def test_a_kink_of_any_size_is_left_by_one_move(method: str, size: float) -> None:
    inputs = x(4, 5)
    inputs[0, 1] = inputs[2, 2] = 0
    row = along(Layer(lambda x: size * np.maximum(x, 0), lambda x: size * (x > 0)), inputs, method=method)
    assert (row.kinks, row.checked, row.hint) == (1, 1, "") and row.relative_error < 1e-12


def test_a_bend_of_a_hundredth_is_a_kink_even_if_backward_gives_the_mean_of_both_sides() -> None:
    row = along(Layer(lambda x: x + 0.01 * abs(x), lambda x: 1 + 0.01 * np.sign(x)), np.zeros((4, 5)))
    assert row.kinks == 1 and row.relative_error < 1e-12


@pytest.mark.parametrize(("bend", "moves"), [(0.5, 0), (0.5 + 2**-20, 1)])
def test_a_bend_of_just_a_thousandth_is_not_looked_at_a_second_time(bend: float, moves: int) -> None:
    """The slopes 1000 - bend and 1000 + bend: all the numbers in between are exact."""
    layer = Layer(lambda x: 1000 * x + bend * abs(x), lambda x: 1000 + bend * np.sign(x))
    subject = Subject(layer, (np.zeros(1),), None, 0)
    subject.dy[...] = 1
    row = directions.one_direction(subject, "central", 1e-8, list(subject.variables))
    assert (row.kinks, row.checked, row.hint) == (moves, 1, "") and row.relative_error < 1e-12


@both_methods
def test_the_move_away_from_a_kink_is_short(method: str) -> None:
    """Beyond 0.1 on either side there is no y."""
    layer = Layer(
        lambda x: np.maximum(x, 0) - np.log(0.01 - x * x), lambda x: (x > 0) + 2 * x / (0.01 - x * x)
    )
    row = along(layer, np.zeros((2, 2)), method=method)
    assert row.kinks == 1 and row.relative_error < 1e-9


@pytest.mark.parametrize("distance", [1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
def test_along_a_direction_close_to_a_kink_the_derivative_is_checked(distance: float) -> None:
    inputs = x(4, 5)
    inputs[1, 3] = -distance
    for seed in range(4):
        row = along(relu(0.0), inputs, seed=seed)
        assert row.checked == 1 and row.relative_error < 1e-9 and row.hint == ""


@both_methods
def test_no_error_is_not_above_a_tolerance_of_zero(method: str) -> None:
    """The curvature makes the check look twice."""
    layer = Layer(lambda x: x * (1 + 1e4 * x), lambda x: 1 + 2e4 * x)
    row = along(layer, np.array([0.0]), method=method, tolerance=0)
    assert row.relative_error == 0 and row.hint == ""


@pytest.mark.parametrize(
    ("method", "directional", "most"),
    [("central", True, 22), ("central", False, 93), ("complex", True, 26), ("complex", False, 38)],
)
@pytest.mark.parametrize(
    ("function", "derivative"),
    [(lambda x: np.sin(x) + x**2, lambda x: np.cos(x) + 2 * x), (lambda x: 0 * x, lambda x: 0 * x)],
)
def test_a_smooth_layer_is_checked_in_few_calls(
    method: str,
    directional: bool,
    most: int,
    function: Callable[[Any], Any],
    derivative: Callable[[Any], Any],
) -> None:
    """Nothing of it has to be looked at twice."""
    layer, calls = counted(function, derivative)
    assert mt.gradcheck(layer, x(4, 5), method=method, directional=directional).ok and len(calls) <= most


def counted(function: Callable[[Any], Any], derivative: Callable[[Any], Any]) -> tuple[Layer, list[Any]]:
    """A layer, and the inputs of all calls of its forward."""
    calls: list[Any] = []

    def forward(x: Any) -> Any:
        calls.append(x)
        return function(x)

    return Layer(forward, derivative), calls


def test_a_direction_that_agrees_to_a_tenth_of_the_tolerance_is_not_looked_at_again() -> None:
    layer, calls = counted(lambda x: 2 * x, lambda x: 2 * (1 + 1e-6))
    error, once = along(layer, np.zeros(1), tolerance=0.5).relative_error, len(calls)
    for tolerance, again in ((10.01 * error, False), (10 * error, False), (9.99 * error, True)):
        calls.clear()
        assert along(layer, np.zeros(1), tolerance=tolerance).hint == "" and (len(calls) > once) is again


# ---- two directions


@both_methods
def test_if_a_direction_is_wrong_each_variable_has_a_verdict(method: str) -> None:
    report = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), method=method, directional=True)
    assert report.verdicts == {"all, along random directions": "WRONG", "x": "ok", "W": "WRONG", "b": "ok"}
    assert [row.shape for row in report.rows] == [(62,), (2, 7, 3), (3, 5), (5,)] and report.directional
    assert [row.hint != "" for row in report.rows] == [True, False, False, False]
    assert len(mt.gradcheck(Layer(np.sin, np.sin), x(4), method=method, directional=True).rows) == 1
    empty = Affine(W=np.negative)
    empty.more = mt.Parameter(np.zeros((0, 3)))  # type: ignore[attr-defined]
    assert len(mt.gradcheck(empty, x(2, 7, 3), method=method, directional=True).rows) == 4


@both_methods
def test_of_two_variables_each_has_a_verdict_with_all_digits_of_the_method(method: str) -> None:
    report = mt.gradcheck_function(
        lambda a, b: np.sin(20 * a) * b,
        lambda dy, a, b: (dy * 20 * np.cos(20 * a) * b, -dy * np.sin(20 * a)),
        x(4), x(4, seed=2), method=method, directional=True,
    )  # fmt: skip
    assert report.verdicts == {"all, along random directions": "WRONG", "a": "ok", "b": "WRONG"}
    assert report.rows[1].relative_error < {"complex": 1e-14, "central": 1e-9}[method]


def rows_along(monkeypatch: pytest.MonkeyPatch, *rows: Row) -> list[Row]:
    """What `along_directions` makes of these results of single directions."""
    results = iter(rows)
    monkeypatch.setattr(directions, "one_direction", lambda *given: next(results))
    return directions.along_directions(Subject(Layer(np.sin, np.cos), (x(2, 3),), None, 0), "central", 1e-8)


def test_the_worse_of_two_directions_counts_and_one_that_could_not_be_compared_only_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good, bad = (Row("all", (6,), (), 1.0, 1.0, error) for error in (1e-12, 1e-3))
    none = Row("all", (6,), (), 1.0, 1.0, math.inf, checked=0, kinks=2)
    for pair, relative_error in (
        ((good, bad), 1e-3),
        ((bad, good), 1e-3),
        ((none, good), 1e-12),
        ((none, bad), 1e-3),
    ):
        (row,) = rows_along(monkeypatch, *pair)
        assert row.relative_error == relative_error and row.checked == 1 and bool(row.hint) is (bad in pair)
        assert row.kinks == 2 * (none in pair)
    (row,) = rows_along(monkeypatch, none, none)
    assert row.checked == 0


def test_a_fault_that_one_direction_misses_is_seen_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error so small that it takes a direction that weighs it, and the rest not too much."""

    def wrong(dy: Any) -> Any:
        dW = dy.copy()
        dW[0, 0] += 3e-7
        return dW

    layer, missed = Affine(W=wrong), {1: 0, 2: 0}
    for n in missed:
        monkeypatch.setattr(directions, "DIRECTIONS", n)
        reports = [mt.gradcheck(layer, x(2, 7, 3), directional=True, seed=seed) for seed in range(30)]
        missed[n] = sum(report.ok for report in reports)
    assert 0 < missed[2] < missed[1] < 30


# ---- number by number


@both_methods
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_kinks_of_any_size_are_left_out(method: str, size: float) -> None:
    inputs = x(4, 5)
    inputs[0, 1] = inputs[2, 2] = 0
    layer = Layer(lambda x: size * np.maximum(x, 0), lambda x: size * np.where(x == 0, 0.3, x > 0))
    (row,) = mt.gradcheck(layer, inputs, method=method).rows
    assert (row.kinks, row.unsure, row.checked, row.hint) == (2, 0, 18, "") and row.relative_error < 1e-11


def test_where_one_number_is_not_known_the_kinks_among_the_others_are_left_out_all_the_same() -> None:
    """sign(0) is the central difference of |x| at 0, so it agrees without being compared."""
    large = np.array([1e6, 0.0])
    layer = Layer(lambda x: np.where(large > 0, np.sin(x) + large, abs(x)),
                  lambda x: np.where(large > 0, np.cos(x), np.sign(x)))  # fmt: skip
    for seed in range(8):
        (row,) = mt.gradcheck(layer, np.array([0.3, 0.0]), seed=seed).rows
        assert (row.kinks, row.unsure, row.checked, row.hint) == (1, 1, 0, nothing_compared(1, 1))


def test_a_wrong_gradient_is_compared_with_all_digits_of_the_complex_step() -> None:
    right = Subject(Affine(), (x(2, 7, 3),), None, 0).analytic_gradients()["W"]
    (row,) = mt.gradcheck(Affine(W=np.negative), x(2, 7, 3), method="complex").wrong
    assert (
        row.numeric == pytest.approx(right[row.index], rel=1e-14, abs=0) and row.analytic == -right[row.index]
    )
    dy, almost = Subject(Layer(np.sin, np.cos), (x(4, 5),), None, 0).dy, lambda x: np.cos(x) * (1 + 3e-12)
    (row,) = mt.gradcheck(Layer(np.sin, almost), x(4, 5), method="complex").wrong
    assert row.numeric == pytest.approx((dy * np.cos(x(4, 5)))[row.index], rel=2e-15, abs=0)


@both_methods
def test_after_twenty_wrong_numbers_the_others_are_not_looked_at_again(method: str) -> None:
    layer, calls = counted(np.sin, lambda x: 1.5 * np.cos(x))
    (row,) = mt.gradcheck(layer, x(40, 5), method=method).rows
    first_look = {"complex": 200, "central": 800}[method]
    assert row.relative_error > 0.3 and len(calls) - first_look < 20 * 8 + 20


def test_any_number_of_kinks_is_left_out_at_a_tolerance_of_zero() -> None:
    inputs = np.array([0.0] * 30 + [0.5, -0.25, 2.0])
    for seed in range(3):
        (row,) = mt.gradcheck(relu(0.3), inputs, tolerance=0, seed=seed).rows
        assert (row.kinks, row.checked) == (30, 3)


def test_what_agrees_exactly_is_not_looked_at_again_at_a_tolerance_of_zero() -> None:
    layer, calls = counted(lambda x: 2 * x, lambda x: 2.0)
    report = mt.gradcheck(layer, 2.0 ** np.arange(-2, 3), tolerance=0)
    assert report.ok and report.rows[0].hint == "" and len(calls) <= 4 * 5 + 13


def test_a_direction_that_agrees_exactly_is_not_looked_at_again_at_a_tolerance_of_zero() -> None:
    layer, calls = counted(lambda x: 2 * x, lambda x: 2.0)
    assert along(layer, np.array(0.5), tolerance=0).relative_error == 0 and len(calls) <= 43


def test_the_largest_entry_is_that_of_the_finite_ones_and_zero_without_any() -> None:
    assert (
        each_number.largest([np.array([1.0, -3.0, np.nan]), np.zeros((0, 2)), np.array([[2.0, -np.inf]])])
        == 3
    )
    assert each_number.largest([np.array([np.nan, np.inf])]) == each_number.largest([]) == 0


def test_an_error_is_relative_to_the_largest_of_three_and_infinite_where_that_is_no_number() -> None:
    for a, n, floor, error in ((1, 4, 2, 0.75), (-4, 1, 2, 1.25), (1, 2, 10, 0.1), (np.nan, 1, 1, np.inf)):
        assert comparison.relative_error(a, np.float64(n), floor) == error
    with np.errstate(invalid="ignore"):
        found = comparison.relative_error(np.array([1.0, np.inf]), np.array([np.nan, np.inf]), 1.0)
    assert found.tolist() == [np.inf, np.inf]


@pytest.mark.parametrize(("doubts", "analytic"), [(9.5, True), (10.5, False), (-10.5, False)])
def test_a_difference_from_real_steps_counts_beyond_ten_doubts(
    monkeypatch: pytest.MonkeyPatch, doubts: float, analytic: bool
) -> None:
    real = Slope(2.0, 1e-3)
    monkeypatch.setattr(comparison, "slopes", lambda f, noise: Slopes(real, real, real))
    monkeypatch.setattr(comparison, "central", lambda f: 1.9)
    subject, n = Subject(Layer(np.sin, np.cos), (x(2, 3),), None, 0), 2 + doubts * 1e-3
    if analytic:
        comparison.check_analytic(subject, subject.random_direction(subject.variables), n)
    else:
        with pytest.raises(
            mt.InputError, match=f"its derivative is {n:.6g} by complex steps, 2 by real ones: is"
        ):
            comparison.check_analytic(subject, subject.random_direction(subject.variables), n)


def test_a_difference_from_real_steps_of_just_ten_doubts_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Slope(10 * 2.0**-10, 2.0**-10)
    monkeypatch.setattr(comparison, "slopes", lambda f, noise: Slopes(real, real, real))
    monkeypatch.setattr(comparison, "central", lambda f: 1.0)
    subject = Subject(Layer(np.zeros_like, np.zeros_like), (x(2, 3),), None, 0)  # nothing is lost to rounding
    comparison.check_analytic(subject, subject.random_direction(subject.variables), 0.0)


@pytest.mark.parametrize(("share", "analytic"), [(0.99, True), (1.01, False)])
def test_a_difference_from_real_steps_counts_beyond_the_rounding_of_the_shortest_step(
    monkeypatch: pytest.MonkeyPatch, share: float, analytic: bool
) -> None:
    """x² at a step of 2^-20 is rounded by 2^-92: a slope of less than 2^-72 is not seen."""
    unseen = Slope(0.0, 0.0)
    monkeypatch.setattr(comparison, "slopes", lambda f, noise: Slopes(unseen, unseen, unseen))
    monkeypatch.setattr(comparison, "central", lambda f: 1.0)
    subject = Subject(Layer(np.square, lambda x: 2 * x), (np.zeros(1),), None, 0)
    subject.dy[...] = 1
    given = subject, {"x": np.ones(1)}, share * 2.0**-72
    if analytic:
        comparison.check_analytic(*given)
    else:
        with pytest.raises(mt.InputError, match="by complex steps, 0 by real ones"):
            comparison.check_analytic(*given)


@pytest.mark.parametrize(("slope", "kinks"), [(0.005, 0), (0.015, 1)])
def test_where_all_gradients_are_zero_slopes_below_a_hundredth_count_as_zero(
    slope: float, kinks: int
) -> None:
    dy = Subject(Layer(np.abs, np.sign), (np.zeros(1),), None, 0).dy
    layer = Layer(lambda x: slope / abs(dy) * abs(x), lambda x: slope / abs(dy) * np.sign(x))
    assert mt.gradcheck(layer, np.zeros(1)).rows[0].kinks == kinks


def test_arguments_that_gradcheck_does_not_have_are_listed() -> None:
    assert message_of(mt.InputError, mt.gradcheck, Affine(), x(2, 7, 3), mask=1, methd=2) == (
        "gradcheck: expected method, directional, dropout_seed, seed or tolerance, got mask, methd; "
        "inputs of forward are passed by position: gradcheck(layer, x, mask)"
    )


@pytest.mark.parametrize("tolerance", [-1e-9, 1, 1.5])
def test_a_tolerance_is_below_one(tolerance: float) -> None:
    expected = f"tolerance: expected a number 0 <= x < 1, or None, got {tolerance}"
    assert message_of(mt.InputError, mt.gradcheck, Affine(), x(2, 7, 3), tolerance=tolerance) == expected


@both_methods
def test_as_many_numbers_as_there_may_be_are_checked_one_by_one(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, directional in ((20, False), (19, True)):
        monkeypatch.setitem(check.MOST_ELEMENTS, method, most)
        assert mt.gradcheck(Layer(np.sin, np.cos), x(4, 5), method=method).directional is directional


def test_what_agrees_to_a_tenth_of_the_tolerance_is_not_looked_at_again() -> None:
    for error, again in ((0.95e-9, False), (1.05e-9, True)):
        layer, calls = counted(lambda x: 2 * x, lambda x: 2 * (1 + error))  # noqa: B023
        assert mt.gradcheck(layer, x(4, 5)).ok and (len(calls) > 93) is again


def test_a_curve_is_not_mistaken_for_a_kink_and_looked_at_again() -> None:
    layer, calls = counted(lambda x: x + 300 * x**2, lambda x: 1 + 600 * x)
    assert along(layer, np.zeros(1)).checked == 1 and len(calls) <= 43
