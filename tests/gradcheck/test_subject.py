"""What is checked: anybody's layer, its inputs by name; that it is left alone, and keeps to the contract."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import Affine, Layer, Many, both_methods, x
from messages import message_of

import minitransformer as mt
from minitransformer.gradcheck.derivatives import EPS
from minitransformer.gradcheck.subject import (
    ANALYTIC,
    ASIDE,
    Subject,
    as_dtype,
    copies,
    has_attributes,
    norm,
    same,
)

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


@pytest.mark.parametrize(
    ("call", "rules"),
    [
        (2, ["forward gives another y for the same inputs: random without its rng, or a hidden state?"]),
        (3, []),
    ],
)
def test_a_forward_that_writes_to_a_parameter_later_only_is_not_seen_to(call: int, rules: Any) -> None:
    """It is watched the first time, and always if it writes then: to put the parameters aside each time is slow."""

    class Grows(Layer):
        def __init__(self) -> None:
            self.W, self.calls = mt.Parameter(x(3)), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == call:
                self.W.data *= 1.5
            return x * self.W.data, x

        def backward(self, dy, x):
            self.W.grad += (dy * x).sum(0)
            return dy * self.W.data

    report = mt.gradcheck(Grows(), x(4, 3))
    assert report.broken == rules and not report.wrong


@both_methods
def test_a_parameter_that_forward_makes_is_not_left_out_in_silence(method: str) -> None:
    """Its gradient is checked by nobody: it was not there when the parameters were looked for."""

    class Late(Layer):
        def __init__(self) -> None:
            self.W: Any = None

        def forward(self, x):
            self.W = self.W or mt.Parameter(np.ones(3))
            return x * self.W.data, x

        def backward(self, dy, x):
            return dy * self.W.data

    with pytest.raises(mt.InputError, match="expected no new Parameters, got W: make it in __init__"):
        mt.gradcheck(Late(), x(4, 3), method=method)


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


def test_a_random_direction_is_a_unit_vector_of_both_signs_that_is_nowhere_near_zero() -> None:
    subject = Subject(Affine(), (x(2, 7, 3),), None, 4)
    direction = subject.random_direction(subject.variables)
    assert {name: u.shape for name, u in direction.items()} == {"x": (2, 7, 3), "W": (3, 5), "b": (5,)}
    assert all((u < 0).any() and (u > 0).any() for u in direction.values())
    numbers = np.concatenate([u.ravel() for u in direction.values()])
    assert (numbers**2).sum() == pytest.approx(1, rel=1e-14) and abs(numbers).max() < 3 * abs(numbers).min()
    assert abs(numbers).max() > 2 * abs(numbers).min()


def test_warnings_that_a_layer_gives_anyway_are_no_matter_of_complex_numbers() -> None:
    def forward(x):
        warnings.warn("an old layer", UserWarning, stacklevel=1)
        return np.sin(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mt.gradcheck(Layer(forward, np.cos), x(3, 4), method="complex").ok


def test_the_sizes_are_those_of_all_axes_and_of_products_of_the_first_of_y() -> None:
    sizes = Subject(Layer(np.sin, np.cos), (x(2, 1, 3),), None, 0).sizes()
    assert sizes == {
        2: "the size of axis 0 of x",
        3: "the size of axis 2 of x",
        6: "the product of axes 0 to 2 of y",
    }


def test_a_random_direction_of_some_variables_is_a_unit_vector_of_those() -> None:
    direction = Subject(Affine(), (x(2, 7, 3),), None, 4).random_direction(["b"])
    assert list(direction) == ["b"] and (direction["b"] ** 2).sum() == pytest.approx(1, rel=1e-14)


def test_another_upstream_gradient_makes_another_sum() -> None:
    subject, before = Subject(Layer(np.sin, np.cos), (x(3, 4),), None, 0), []
    for _ in range(2):
        before.append((subject.dy.tolist(), subject.noise, subject.size))
        subject.draw_upstream()
    assert all(a != b for a, b in zip(*before, strict=True)) and subject.noise == 4 * EPS * subject.size


def test_every_evaluation_is_counted_and_a_forward_is_timed() -> None:
    subject = Subject(Affine(), (x(2, 7, 3),), None, 4)
    counted: list[int] = []
    subject.evaluated = lambda: counted.append(1)
    subject.change(lambda t: None)(0.0)
    subject.complex_change()[1]()
    assert len(counted) == 2 and 0 < subject.seconds < 1


def test_to_step_aside_is_to_move_every_number_a_little() -> None:
    subject, twin = (Subject(Affine(), (x(2, 7, 3),), None, 4) for _ in range(2))
    before, y = {name: a.copy() for name, a in subject.variables.items()}, subject.y
    direction, far = twin.random_direction(twin.variables), ASIDE * 62**0.5
    subject.step_aside()
    for name, a in subject.variables.items():
        np.testing.assert_allclose(a - before[name], far * direction[name], rtol=1e-9)
        assert (abs(a - before[name]) > ASIDE / 4).all() and (abs(a - before[name]) < 4 * ASIDE).all()
    assert (subject.y != y).all()


# ---- what is told of the inputs


def test_the_inputs_without_a_gradient_are_named_if_backward_returns_too_many() -> None:
    inputs = x(2, 3)
    expected = (
        "backward: expected a gradient for each input of floats (a mask has to be boolean), of shapes "
        "{'x': (2, 3)}, got float64 of shape (2, 3), float64 of shape (2, 3)"
    )
    hint = ": pass what has a gradient as numpy.asarray(…, float)"
    assert message_of(mt.InputError, mt.gradcheck, Many(2), inputs) == expected
    for others, named in (
        ((np.arange(3),), f"; ids is int64 of shape (3,){hint}"),
        ((3, inputs > 0), f"; ids is 3, mask is bool of shape (2, 3){hint}"),
    ):
        assert message_of(mt.InputError, mt.gradcheck, Many(2), inputs, *others) == expected + named


def test_no_inputs_are_named_if_backward_returns_too_few() -> None:
    message = message_of(mt.InputError, mt.gradcheck, Many(0), x(2, 3), np.arange(3))
    assert message.endswith("of shapes {'x': (2, 3)}, got nothing")


def test_the_walk_through_a_cache_looks_into_objects_and_not_into_arrays_modules_and_classes() -> None:
    class Slots:
        __slots__ = ("a",)

    class Named(np.ndarray):
        """An array with attributes."""

    for node, expected in (
        (types.SimpleNamespace(a=1), True),
        (Slots(), True),
        (Slots, False),
        (np, False),
        (np.zeros(2), False),
        (np.zeros(2).view(Named), False),
        (3, False),
        ("text", False),
    ):
        assert has_attributes(node) is expected


# ---- what is compared, number by number


def test_parameters_that_start_equal_are_moved_by_up_to_a_half_and_others_are_not() -> None:
    class Three(Layer):
        def __init__(self) -> None:
            super().__init__(np.sin, np.cos)
            self.ones, self.drawn = mt.Parameter(np.ones((9, 9))), mt.Parameter(x(9))
            self.none = mt.Parameter(np.zeros((0, 2)))

    layer = Three()
    subject = Subject(layer, (x(2, 3),), None, 0)
    moved = subject.variables["ones"] - 1
    np.testing.assert_allclose(moved, mt.backend.generator(0).uniform(-0.5, 0.5, (9, 9)), rtol=1e-12)
    assert -0.5 < moved.min() < -0.45 and 0.45 < moved.max() < 0.5 and len(set(moved.ravel().tolist())) == 81
    assert (subject.variables["drawn"] == layer.drawn.data).all() and (layer.ones.data == 1).all()
    assert subject.n_numbers == 81 + 9 + 6 and list(subject.variables) == ["x", "ones", "drawn", "none"]
    assert subject.broken == []


def test_the_upstream_gradient_is_normal_and_the_noise_that_of_rounding() -> None:
    subject = Subject(Layer(np.sin, np.cos), (x(100, 90),), None, 5)
    assert subject.dy.shape == subject.y.shape == (100, 90)
    assert abs(subject.dy.mean()) < 0.05 and abs(subject.dy.std() - 1) < 0.05
    expected = 4 * EPS * float(((subject.y * subject.dy) ** 2).sum()) ** 0.5
    assert subject.noise == pytest.approx(expected, rel=1e-12, abs=0)
    assert subject.size == pytest.approx(expected / (4 * EPS), rel=1e-12)
    assert Subject(Layer(lambda x: 0 * x, np.cos), (x(3),), None, 5).size == 1
    assert (Subject(Layer(np.sin, np.cos), (x(100, 90),), None, 5).dy == subject.dy).all()
    assert (Subject(Layer(np.sin, np.cos), (x(100, 90),), None, 6).dy != subject.dy).any()


class Draws:
    """Records what it draws from its rng."""

    def __init__(self) -> None:
        self.drawn: list[Any] = []

    def forward(self, x, rng=None):
        self.drawn.append(None if rng is None else rng.random())
        return 2 * x, None

    def backward(self, dy, cache):
        return 2 * dy


def test_each_forward_draws_the_same_numbers_but_for_the_one_that_overwrites_what_a_layer_keeps() -> None:
    subject = Subject(Draws(), (x(2, 3),), 8, 0)
    subject.analytic_gradients()
    first = mt.backend.generator(8).random()
    assert subject.layer.drawn == [first] * 3 + [mt.backend.generator(8, 1).random()] * 2
    subject = Subject(Draws(), (x(2, 3),), None, 0)
    assert subject.layer.drawn == [None, None]


def test_a_seed_of_dropout_may_have_any_size_and_is_named_alone_if_it_is_none() -> None:
    """Above 2^96, a second number beside it would change what is drawn, even if that number is 0."""
    for seed in (2**96, 2**200):
        subject = Subject(Draws(), (x(2, 3),), seed, 0)
        assert set(subject.layer.drawn) == {mt.backend.generator(seed).random()}
    message = "seed: expected a whole number, 0 or more, got -1"
    assert message_of(mt.ConfigError, mt.gradcheck, Draws(), x(2, 3), dropout_seed=-1) == message


def test_the_forwards_in_between_are_given_other_numbers_in_another_order_and_a_larger_batch() -> None:
    given: list[Any] = []

    class Records:
        def forward(self, x, ids, other=None):
            given.append((x, ids, other))
            return x[ids], (x, ids)

        def backward(self, dy, cache):
            dx = np.zeros_like(cache[0])
            np.add.at(dx, cache[1], dy)
            return dx

    inputs, ids = x(3, 2), np.array([[0, 2], [1, 1]])
    Subject(Records(), (inputs, ids, "text"), None, 0).analytic_gradients()
    order = [5, 3, 1, 4, 2, 0]
    np.testing.assert_allclose(given[-2][0], 0.9 * inputs.ravel()[order].reshape(3, 2), rtol=1e-15)
    assert given[-2][1].tolist() == [[1, 2], [1, 0]] and given[-2][2] == "text"
    np.testing.assert_array_equal(given[-1][0], np.concatenate([given[-2][0], given[-2][0][:1]]))
    assert given[-1][1].tolist() == [[1, 2], [1, 0], [1, 2]] and given[-1][2] == "text"


def test_where_another_order_of_ids_is_refused_only_the_floats_are_other_ones() -> None:
    given: list[Any] = []

    class Sorted(KeepsIds):
        def forward(self, ids, scale):
            assert (np.diff(ids) >= 0).all()
            given.append((ids, scale))
            return self.E.data[ids] * scale, (ids, scale)

        def backward(self, dy, cache):
            np.add.at(self.E.grad, cache[0], dy * cache[1])
            return (dy * self.E.data[cache[0]]).sum().reshape(1)

    ids = np.array([[0, 1, 3], [1, 1, 4]])
    Subject(Sorted(on_itself=False), (ids, np.array([2.0])), None, 0).analytic_gradients()
    assert given[-1][0].tolist() == ids.tolist() and given[-1][1].tolist() == [1.8]


def test_parameter_gradients_are_those_of_one_backward() -> None:
    subject = Subject(Affine(), (x(2, 7, 3),), None, 0)
    found = subject.analytic_gradients()
    np.testing.assert_allclose(found["b"], subject.dy.sum((0, 1)), rtol=1e-14)
    np.testing.assert_allclose(found["x"], subject.dy @ subject.variables["W"].T, rtol=1e-14)


# ---- small helpers


def test_arrays_are_copied_and_converted_and_all_else_is_passed_on() -> None:
    numbers, ids = x(2, 3).astype("float32").T, np.arange(3)
    for dtype in ("float64", "complex128"):
        found = as_dtype(numbers, dtype)
        assert found.dtype == dtype and found.flags.c_contiguous and (found == numbers).all()
    for found in (as_dtype(ids, "float64"), copies([ids])[0]):
        assert found.dtype == ids.dtype and found is not ids and (found == ids).all()
    held: list[Any] = [3]
    for found in (as_dtype(held, "float64"), copies([held, None])[0]):
        assert found == held and found is not held
    assert as_dtype(print, "float64") is print


def test_arrays_are_the_same_if_all_entries_are_and_nan_is_nan() -> None:
    a = np.array([1.0, np.nan])
    assert same(a, a.copy()) and same(np.zeros(0), np.zeros(0)) and not same(np.zeros((2, 3)), np.zeros(6))
    assert not same(a, np.array([1.0, 2.0])) and not same(np.array([1.0, 2.0]), a)
    assert not same(a, np.array([2.0, np.nan])) and not same(np.array([1.0, 3.0]), np.array([1.0, 2.0]))


def test_a_norm_neither_overflows_nor_vanishes() -> None:
    for scale in (1e-200, 1.0, 1e200):
        assert norm([scale * np.array([2.0, 3.0]), np.zeros((0, 2)), scale * np.array(6.0)]) == pytest.approx(
            7 * scale, rel=1e-15
        )
    assert norm([]) == norm([np.zeros(3)]) == 0


# ---- messages, whole


def test_a_backward_that_cannot_run_twice_is_told_that_it_has_to() -> None:
    class Frees(Layer):
        def forward(self, x):
            return np.sin(x), [x]

        def backward(self, dy, cache):
            if not cache:
                raise RuntimeError("Trying to backward through the graph a second time")
            return dy * np.cos(cache.pop())

    message = message_of(mt.InputError, mt.gradcheck, Frees(np.sin, np.cos), x(2, 3))
    assert message == (
        "backward: expected to run twice with the same cache, but the second time it raised RuntimeError('Trying to "
        "backward through the graph a second time'); does it free what the first call used (PyTorch: "
        "retain_graph=True)?"
    )


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: [2 * x, None], "expected (y, cache), got a list of 2: end it with `return y, cache`"),
        (lambda x: (2 * x,), "expected (y, cache), got a tuple of 1: end it with `return y, cache`"),
        (lambda x: 3, "expected (y, cache), got 3: end it with `return y, cache`"),
        (lambda x: ([1.0], None), "expected (y, cache), y an array of floats; got a list for y"),
        (
            lambda x: (x + 1j, None),
            "expected real numbers for y, of one shape, got complex128 of shape (2, 3), then complex128 of shape "
            "(2, 3)",
        ),
    ],
)
def test_a_forward_that_does_not_return_y_and_cache_is_told_so(
    forward: Callable[[Any], Any], message: str
) -> None:
    layer = Layer(np.sin, np.cos)
    layer.forward = forward  # type: ignore[method-assign]
    assert message_of(mt.InputError, mt.gradcheck, layer, x(2, 3)) == f"forward: {message}"


def test_a_forward_that_fails_on_what_is_no_array_is_told_what_to_pass() -> None:
    class Picky(Many):
        def forward(self, x, ids=None, mask=None):
            raise KeyError("size")

    assert message_of(mt.InputError, mt.gradcheck, Picky(1), x(2, 3), [1, 2]) == (
        "forward: expected inputs that it can use, got KeyError('size'); ids is [1, 2]: pass what has a gradient "
        "as numpy.asarray(…, float)"
    )
    with pytest.raises(KeyError, match="size"):  # the layer's own error, if all are arrays
        mt.gradcheck(Picky(1), x(2, 3))


def test_an_error_of_this_package_is_passed_on() -> None:
    class Picky(Many):
        def forward(self, x, ids=None, mask=None):
            raise mt.ConfigError("of the layer")

    assert message_of(mt.ConfigError, mt.gradcheck, Picky(1), x(2, 3), [1, 2]) == "of the layer"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: np.floor(x), "forward: cannot run in complex numbers ("),
        (
            lambda x: x.astype(float),
            "forward: cannot run in complex numbers (Casting complex values to real discards",
        ),
        (lambda x: x.real * 1, "forward: turned complex numbers into float64: "),
    ],
)
def test_what_does_not_run_in_complex_numbers_is_told_what_to_use(
    function: Callable[[Any], Any], message: str
) -> None:
    found = message_of(mt.InputError, mt.gradcheck, Layer(function, np.cos), x(2, 3), method="complex")
    assert found.startswith(message) and found.endswith(f": {ANALYTIC}")


def test_what_breaks_the_contract_is_told_in_one_sentence() -> None:
    draw = np.random.default_rng(0)

    class Twice(Layer):
        def backward(self, dy, cache):
            return dy * draw.normal()

    class Hidden(Layer):
        def __init__(self) -> None:
            super().__init__(np.sin, np.cos)
            self.box = types.SimpleNamespace(W=mt.Parameter(x(3)), b=mt.Parameter(x(2)))

    for layer, rule in (
        (
            Layer(lambda x: x * draw.normal(), lambda x: 1.0),
            "forward gives another y for the same inputs: random without its rng, or a hidden state?",
        ),
        (
            Layer(lambda x: x.astype("float32"), lambda x: 1.0),
            "forward gives float32, though it was given float64 only",
        ),
        (
            Twice(np.sin, np.cos),
            "backward gives another gradient for the same dy and cache when it is called again",
        ),
        (Hidden(), "2 Parameter(s) not found: not in an attribute, list or dict of a layer"),
    ):
        assert mt.gradcheck(layer, x(3, 4)).broken == [rule]


def test_a_hint_is_given_on_a_list_of_gradients_and_none_on_a_wrong_shape() -> None:
    class Returns(Many):
        def __init__(self, returned: Callable[[Any], Any]) -> None:
            self.returned = returned

        def backward(self, dy, cache):
            return self.returned(dy)

    inputs = x(2, 3), np.arange(3)
    message = message_of(mt.InputError, mt.gradcheck, Returns(lambda dy: [2 * dy]), *inputs)
    assert message.endswith("]; return them as a tuple, not as a list")
    message = message_of(mt.InputError, mt.gradcheck, Returns(lambda dy: 2 * dy.T), *inputs)
    assert message.endswith(
        "of shapes {'x': (2, 3)}, got float64 of shape (3, 2)"
    )  # the ids are not to blame


def test_the_second_try_in_between_draws_other_numbers_too() -> None:
    drawn: list[float] = []

    class Sorted(Many):
        def forward(self, x, ids=None, mask=None, rng=None):
            assert (np.diff(ids) >= 0).all()
            drawn.append(rng.random())
            return 2 * x, None

    Subject(Sorted(1), (x(2, 3), np.arange(3)), 8, 0).analytic_gradients()
    assert drawn[-1] == mt.backend.generator(8, 1).random() != drawn[-2] == mt.backend.generator(8).random()


def test_parameters_and_gradients_in_the_cache_are_parameters_and_gradients() -> None:
    class Cached:
        def __init__(self, factor: float) -> None:
            self.W, self.factor = mt.Parameter(x(3)), factor

        def forward(self, x):
            return x * self.W.data, (x, self.W.data, self.W.grad)

        def backward(self, dy, cache):
            x, W, grad = cache
            grad += (dy * x).sum(0)
            dx = dy * W
            W *= self.factor
            return dx

    assert mt.gradcheck(Cached(1.0), x(4, 3)).ok
    assert mt.gradcheck(Cached(2.0), x(4, 3)).broken == ["backward writes to W"]


def test_a_cache_may_hold_anything() -> None:
    class Holds(Layer):
        def forward(self, x):
            return np.sin(x), (x, len, bytearray(3), {"f": lambda: 3, "rng": np.random.default_rng()})

        def backward(self, dy, cache):
            cache[2][0] += 1  # no array of numbers, so nobody's business
            return dy * np.cos(cache[0])

    assert mt.gradcheck(Holds(np.sin, np.cos), x(3, 4)).ok


def test_an_input_in_the_cache_is_called_by_its_name_as_an_input() -> None:
    layer = InPlace(lambda dy, x: np.clip(x, -0.1, 0.1, out=x))
    assert mt.gradcheck(layer, x(3, 4)).broken == ["backward writes to x"]


# ---- what a layer keeps on itself


class Size:
    """x / n, with the n of the last forward."""

    def forward(self, x, rng=None):
        self.n = x.size
        return x / x.size, None

    def backward(self, dy, cache):
        return dy / self.n


def test_a_size_that_is_kept_on_the_layer_shows() -> None:
    report = mt.gradcheck(Size(), x(3, 4))
    assert report.wrong and not report.ok


def test_a_mask_on_the_layer_shows_whatever_its_signs_are() -> None:
    class Mask:
        def forward(self, x, rng=None):
            self.mask = x > 0
            return x * self.mask, None

        def backward(self, dy, cache):
            return dy * self.mask

    for numbers in ([[0.5, -0.2, 0.7]], [[0.5, -0.2, 0.7], [-0.3, 0.9, 0.1]], [[0.4]]):
        report = mt.gradcheck(Mask(), np.array(numbers))
        assert report.broken == ["backward needs what the last forward has kept outside the cache"]


@both_methods
@pytest.mark.parametrize("directional", [False, True])
def test_what_a_layer_keeps_shows_even_where_no_other_input_changes_it(
    method: str, directional: bool
) -> None:
    """backward of a layer on which forward was never called has to give the same."""

    class ByNumber(Layer):
        def __init__(self) -> None:
            pass

        def forward(self, x, scale):
            self.scale = scale
            return x * scale, None

        def backward(self, dy, cache):
            return dy * self.scale

    class ByWeights(Layer):
        def __init__(self) -> None:
            self.W, self.twice = mt.Parameter(x(3)), np.zeros(3)

        def forward(self, x):
            self.twice = 2 * self.W.data
            return x * self.twice, x

        def backward(self, dy, x):
            self.W.grad += 2 * (dy * x).sum(0)
            return dy * self.twice

    for layer, inputs in ((ByNumber(), (x(4, 3), 2.5)), (ByWeights(), (x(4, 3),))):
        report = mt.gradcheck(layer, *inputs, method=method, directional=directional)
        assert (
            report.broken == ["backward needs what forward has kept outside the cache"] and not report.wrong
        )


def test_a_list_among_the_inputs_is_not_to_be_written_to() -> None:
    class Counts(Layer):
        def __init__(self) -> None:
            pass

        def forward(self, x, seen):
            seen.append(len(x))
            return 2 * x, None

        def backward(self, dy, cache):
            return 2 * dy

    seen = [1]
    report = mt.gradcheck(Counts(), x(4, 3), seen)
    assert report.broken == ["forward writes to seen"] and seen == [1]


def test_an_output_that_the_next_forward_overwrites_is_no_output() -> None:
    class Buffer:
        def __init__(self) -> None:
            self.y: dict[tuple[int, ...], Any] = {}

        def forward(self, x, rng=None):
            y = self.y.setdefault(x.shape, np.empty_like(x))
            return np.multiply(x, 2, out=y), None

        def backward(self, dy, cache):
            return 2 * dy

    assert mt.gradcheck(Buffer(), x(3, 4)).broken == ["forward writes to the y that it returned before"]


def test_a_backward_that_fails_says_why_in_any_case() -> None:
    class Fails(Size):
        def backward(self, dy, cache):
            raise RuntimeError("no backward here")

    with pytest.raises(RuntimeError, match="no backward here"):
        mt.gradcheck(Fails(), x(3, 4))


def test_a_gradient_that_is_0_everywhere_is_remarked_upon() -> None:
    layer = Affine()
    layer.unused = mt.Parameter(x(3))  # type: ignore[attr-defined]
    rows = {row.name: row.hint for row in mt.gradcheck(layer, x(2, 7, 3)).rows}
    assert rows.pop("unused").startswith("0 everywhere") and set(rows.values()) == {""}
