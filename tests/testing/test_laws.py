"""The laws as functions: each passes a right layer, and fails one that breaks it in that way alone."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
from gradcheck_layers import Affine, x

import minitransformer as mt
from minitransformer.layers import causal_mask
from minitransformer.testing import (
    arrays_in,
    assert_accumulates,
    assert_causal,
    assert_close,
    assert_ignores,
    assert_linear,
    assert_pure,
    assert_reentrant,
    assert_same,
    gradients,
    upstream,
)

X, OTHER = x(2, 7, 3), x(2, 5, 3, seed=2)


class Spoiled(Affine):
    """An affine layer that calls `in_forward` and `in_backward` with itself, its input or dy, and the cache."""

    def __init__(self, in_forward: Any = lambda *given: None, in_backward: Any = lambda *given: None) -> None:
        super().__init__()
        self.in_forward, self.in_backward, self.factor = in_forward, in_backward, np.ones(3)
        self.steps = 0

    def forward(self, x):
        y, cache = super().forward(x)
        self.in_forward(self, x, cache)
        return y, [cache, self.W.data]

    def backward(self, dy, cache):
        self.in_backward(self, dy, cache[0])
        return super().backward(dy, cache[0])


def double(a: np.ndarray) -> None:
    a *= 2


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Spoiled(lambda self, x, cache: double(x)), "an input, dy or the cache is written to"),
        (Spoiled(lambda self, x, cache: double(self.W.data)), "forward writes to layer.W.data"),
        (Spoiled(lambda self, x, cache: double(self.factor)), "forward writes to layer.factor"),
        (
            Spoiled(lambda self, x, cache: setattr(self, "steps", self.steps + 1)),
            "forward writes to layer.steps",
        ),
        (Spoiled(lambda self, x, cache: setattr(self, "x", x)), r"forward adds or removes \['layer.x'\]"),
        (Spoiled(lambda self, x, cache: self.b.grad.fill(3)), "forward writes to layer.b.grad"),
        (Spoiled(lambda *given: None, lambda self, dy, x: double(dy)), "an input, dy or the cache"),
        (Spoiled(in_backward=lambda self, dy, x: double(x)), "an input, dy or the cache is written to"),
        (Spoiled(in_backward=lambda self, dy, x: double(self.b.data)), "backward writes to layer.b.data"),
        (Spoiled(lambda self, x, cache: double(self.box.a)), "forward writes to layer.box.a"),
        (
            Spoiled(lambda self, x, cache: delattr(self, "steps")),
            r"forward adds or removes \['layer.steps'\]",
        ),
    ],
)
def test_what_is_not_pure_is_named(layer: Any, words: str) -> None:
    layer.b.data[...] = 1
    layer.box, layer.factor[0] = types.SimpleNamespace(a=np.ones(3)), np.nan
    with pytest.raises(AssertionError, match=words):
        assert_pure(layer, X.copy())
    assert_pure(Affine(), X)


class Cached:
    """2 x, with a cache made by `cache_of`, and a backward that calls `in_backward` with the cache."""

    def __init__(self, cache_of: Callable[[Any], Any], in_backward: Callable[[Any], None]) -> None:
        self.cache_of, self.in_backward = cache_of, in_backward

    def forward(self, x):
        return 2 * x, self.cache_of(x)

    def backward(self, dy, cache):
        self.in_backward(cache)
        return 2 * dy


@pytest.mark.parametrize(
    ("cache_of", "array_of"),
    [
        (lambda x: [x, x + 1], lambda cache: cache[1]),
        (lambda x: {"x": x}, lambda cache: cache["x"]),
        (lambda x: {"x": [x + 1]}, lambda cache: cache["x"][0]),
        (lambda x: types.SimpleNamespace(x=x + 1), lambda cache: cache.x),
    ],
)
def test_a_backward_that_writes_to_its_cache_is_not_pure(cache_of: Any, array_of: Any) -> None:
    assert_pure(Cached(cache_of, lambda cache: None), X.copy())
    with pytest.raises(AssertionError, match="an input, dy or the cache is written to"):
        assert_pure(Cached(cache_of, lambda cache: double(array_of(cache))), X.copy())


def test_a_cache_may_hold_parameters_and_their_gradients() -> None:
    class Holds(Affine):
        def forward(self, x):
            y, cache = super().forward(x)
            return y, [cache, self.W.data, self.W.grad]

        def backward(self, dy, cache):
            return super().backward(dy, cache[0])

    assert_pure(Holds(), X.copy())


def test_writing_to_the_array_that_an_input_is_a_view_of_is_not_pure() -> None:
    with pytest.raises(AssertionError):
        assert_pure(Spoiled(lambda self, x, cache: double(x.base)), X.copy()[:])


@pytest.mark.parametrize("view_first", [False, True])
def test_a_view_beside_its_array_is_pure(view_first: bool) -> None:
    x = X.copy()
    assert_pure(mt.layers.AddNorm(X.shape[-1]), *((x[:], x) if view_first else (x, x[:])))
    x += 1  # it is not read-only now


def test_pure_leaves_everything_as_it_was() -> None:
    layer, given = Spoiled(), X.copy()
    layer.W.grad[...] = 3
    assert_pure(layer, given)
    assert (layer.W.grad == 3).all() and (layer.b.grad == 0).all() and (given == X).all()
    given += 1
    layer.W.data += 1  # neither is read-only now


def test_a_backward_that_assigns_its_gradient_does_not_accumulate() -> None:
    class Assigns(Affine):
        def backward(self, dy, x):
            self.b.grad[...] = 0
            return super().backward(dy, x)

    class Forgets(Affine):
        def backward(self, dy, x):
            return dy @ self.W.data.T

    class Random(Affine):
        calls = 0

        def backward(self, dy, x):
            self.calls += 1
            return super().backward(dy, x) * self.calls

    class Clears(Affine):
        def backward(self, dy, x):
            if id(x) not in self.seen:  # what was in .grad before is lost
                self.b.grad[...] = 0
            self.seen.add(id(x))
            return super().backward(dy, x)

        seen: ClassVar[set[int]] = set()

    assert_accumulates(Affine(), X)
    for layer in (Assigns(), Forgets(), Random(), Clears()):
        with pytest.raises(AssertionError):
            assert_accumulates(layer, X)
    layer = Affine()
    layer.b.grad[...] = 3
    assert_accumulates(layer, X)
    assert (layer.b.grad == 3).all()


def test_what_is_kept_on_the_layer_is_disturbed_by_another_forward() -> None:
    class Remembers(Affine):
        def forward(self, x):
            y, self.x = super().forward(x)
            return y, None

        def backward(self, dy, cache):
            return super().backward(dy, self.x[:, : dy.shape[1]])

    class Buffer(Affine):
        def forward(self, x):
            self.y = getattr(self, "y", np.zeros(X.shape))[:, : x.shape[1]]
            return np.multiply(x, 2, out=self.y), None

        def backward(self, dy, cache):
            return 2 * dy

    class Previous(Affine):
        last = 1.0

        def backward(self, dy, x):
            dx, self.last = super().backward(dy, x) * self.last, float(x[0, 0, 0])
            return dx

    class RemembersRng(Affine):
        def forward(self, x, rng=None):
            self.factor = 1 if rng is None else 2
            return super().forward(x)

        def backward(self, dy, x):
            return super().backward(dy, x) * self.factor

    assert_reentrant(Affine(), (X,), (OTHER,))
    for layer, others, seed in ((Buffer(), X + 1, None), (Previous(), OTHER, None), (RemembersRng(), X, 1)):
        with pytest.raises(AssertionError):
            assert_reentrant(layer, (X,), (others,), seed)
    with pytest.raises((AssertionError, ValueError)):
        assert_reentrant(Remembers(), (X,), (OTHER,))
    with pytest.raises(AssertionError):
        assert_reentrant(Remembers(), (X,), (X + 1,))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(np.tanh, "differs by"), (lambda g: g + 1, "differs by"), (lambda g: 0 * g, "all gradients are zero")],
)
def test_a_backward_that_is_not_linear_is_seen(wrong: Callable[[Any], Any], words: str) -> None:
    assert_linear(Affine(), X, factor=1e3)
    with pytest.raises(AssertionError, match=words):
        assert_linear(Affine(x=wrong, W=wrong, b=wrong), X)


class Reads:
    """Position i is the sum of those before it and of `ahead` more; nothing of its own if it is blind."""

    def __init__(self, ahead: int = 0, ahead_in_backward: int = 0, blind: bool = False) -> None:
        self.ahead, self.ahead_in_backward, self.blind = ahead, ahead_in_backward, blind

    def forward(self, x, rng=None):
        T = x.shape[-2]
        return (0 if self.blind else 1) * (np.tri(T, k=self.ahead) @ x), T

    def backward(self, dy, T):
        return np.tri(T, k=self.ahead_in_backward).T @ dy


@pytest.mark.parametrize("j", [1, 3, 6])
def test_a_layer_that_reads_ahead_is_not_causal(j: int) -> None:
    assert_causal(Reads(), X, j)
    assert_causal(Reads(), X, j, dropout_seed=3)
    for layer, words in (
        (Reads(1), "Arrays are not equal"),
        (Reads(0, 1), "outputs before j have a gradient in x from j on"),
        (Reads(0, -8), "outputs before j have no gradient in x"),
        (Reads(blind=True), "does not depend on x at all"),
    ):
        with pytest.raises(AssertionError, match=words):
            assert_causal(layer, X, j)


def test_attention_with_its_mask_is_causal_and_without_it_is_not() -> None:
    layer = mt.layers.ScaledDotProductAttention()

    class Bound:
        def __init__(self, mask: Any) -> None:
            self.mask = mask

        def forward(self, x):
            return layer.forward(x, x, x, self.mask)

        def backward(self, dy, cache):
            return sum(layer.backward(dy, cache))

    Q = x(2, 3, 7, 5)
    assert_causal(Bound(causal_mask(np.zeros((1, 7)))), Q, 3)
    with pytest.raises(AssertionError):
        assert_causal(Bound(None), Q, 3)


class Mean:
    """y = the mean over the words of each sentence, or over all positions; backward likewise."""

    def __init__(self, masks: bool = True, masks_in_backward: bool = True, factor: float = 1.0) -> None:
        self.masks, self.masks_in_backward, self.factor = masks, masks_in_backward, factor

    def forward(self, x, is_word):
        kept = is_word[..., None] if self.masks else np.ones((*is_word.shape, 1))
        return (x * kept).sum(1, keepdims=True) + 0 * x, is_word[..., None]

    def backward(self, dy, is_word):
        return (
            self.factor * dy.sum(1, keepdims=True) * (is_word if self.masks_in_backward else 1 + 0 * is_word)
        )


def test_what_reads_padding_is_seen() -> None:
    is_word = np.arange(7) < np.array([[4], [6]])
    assert_ignores(Mean(), (X, is_word), 0, is_word)
    assert_ignores(Mean(), (X, is_word), 0, is_word, outputs=is_word)
    for layer, words in (
        (Mean(masks=False), "Arrays are not equal"),
        (Mean(masks_in_backward=False), "there is a gradient behind the mask"),
        (Mean(factor=0), "there is no gradient before the mask either"),
    ):
        with pytest.raises(AssertionError, match=words):
            assert_ignores(layer, (X, is_word), 0, is_word)


def test_gradients_are_those_of_inputs_and_parameters_and_leave_grad_alone() -> None:
    layer = Affine()
    layer.W.grad[...], (y, cache) = 7, layer.forward(X)
    dy = np.random.default_rng(6).normal(size=y.shape)
    dx, dW, db = gradients(layer, dy, cache)
    np.testing.assert_allclose(dx, dy @ layer.W.data.T, rtol=1e-12)
    np.testing.assert_allclose(dW, np.einsum("bti,btj->ij", X, dy), rtol=1e-12)
    np.testing.assert_allclose(db, dy.sum((0, 1)), rtol=1e-12)
    assert (layer.W.grad == 7).all()


def test_arrays_are_found_in_tuples_and_lists_and_numbers_too() -> None:
    assert [a.shape for a in arrays_in((X, [None, np.float32(3), "x"], 3))] == [(2, 7, 3), ()]


def test_an_upstream_gradient_is_random_in_the_dtype_of_y() -> None:
    make = partial(upstream, X.astype("float32"))
    first, again, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == "float32" and first.shape == X.shape
    assert (first == again).all() and (first != other).any()


def test_the_same_is_to_the_last_bit_and_close_is_up_to_rounding() -> None:
    almost = [X * (1 + 1e-14), np.full(3, 1e-16)]
    assert_close(almost, [X, np.zeros(3)])
    assert_same([X], [X])
    for call in (
        lambda: assert_same([almost[0]], [X]),
        lambda: assert_same([X.astype("float32")], [X]),
        lambda: assert_same([X, X], [X]),
        lambda: assert_close([X * (1 + 1e-8)], [X]),
        lambda: assert_close([X * np.nan], [X]),
        lambda: assert_close([X[:1]], [X]),
        lambda: assert_close([almost[0], np.full(3, 1e-9)], [X, np.zeros(3)]),
        lambda: assert_close([X, np.full(3, 1e-11)], [X, np.zeros(3)]),
        lambda: assert_close([X * (1 + 3e-10)], [X]),
        lambda: assert_close([np.ones((1, 3))], [np.ones((2, 3))]),
    ):
        with pytest.raises((AssertionError, ValueError)):
            call()


def test_an_error_of_the_layer_is_not_taken_for_a_write():
    with pytest.raises(mt.InputError, match="shapes do not fit"):
        assert_pure(mt.layers.Linear(5, 4, dtype="float64"), np.ones((2, 3, 4)))
