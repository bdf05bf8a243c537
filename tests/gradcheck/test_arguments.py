"""What a check is given: the names of the inputs, and what is refused."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from gradcheck_layers import Many, x
from messages import message_of

import minitransformer as mt
from minitransformer.gradcheck.arguments import input_names


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


def test_inputs_without_a_name_of_their_own_are_numbered() -> None:
    class Named:
        def forward(self, query, key, /, value, *more, rng=None):
            """Four and more."""

    assert input_names(Named().forward, 5) == ["query", "key", "value", "input 3", "input 4"]
    assert input_names(Named().forward, 1) == ["query"]
    assert input_names(min, 2) == ["input 0", "input 1"]  # its signature is not known


def test_forward_and_backward_are_both_to_be_functions() -> None:
    for forward, backward in ((np.sin, 3), (3, np.sin)):
        layer = types.SimpleNamespace(forward=forward, backward=backward)
        message = message_of(mt.InputError, mt.gradcheck, layer, x(3))
        assert message.startswith("gradcheck: expected an object with forward and backward, got namespace(")


@pytest.mark.parametrize(
    ("layer", "inputs", "how", "message"),
    [
        (3, (), {}, "gradcheck: expected an object with forward and backward, got 3"),
        (Many(1), (x(2) + 1j,), {}, "gradcheck: expected real inputs and parameters, got complex ones"),
        (
            Many(1),
            (x(2),),
            {"dropout_seed": 1},
            "dropout_seed: expected a forward(..., rng=None), got one without rng",
        ),
        (
            Many(1),
            (),
            {},
            "gradcheck: expected a forward of these 0 inputs, by position, and backward(dy, cache), got forward(x, "
            "ids=None, mask=None) and backward(dy, cache): missing a required argument: 'x'",
        ),
        (
            Many(1),
            (x(2), [1.0, 2.0]),
            {},
            "gradcheck: ids: expected an array of numbers, NumPy's or CuPy's, got list: [1.0, 2.0]; pass "
            "numpy.asarray(…, float), each array as an input of its own, a Parameter's .data",
        ),
        (
            Many(1),
            (np.arange(2), 3),
            {},
            "gradcheck: expected a floating-point input or a Parameter, got neither; x is int64 of shape (2,), ids is "
            "3: pass what has a gradient as numpy.asarray(…, float)",
        ),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_sentence(
    layer: Any, inputs: Any, how: Any, message: str
) -> None:
    assert message_of(mt.InputError, mt.gradcheck, layer, *inputs, **how) == message


def test_a_layer_of_any_keyword_arguments_takes_an_rng() -> None:
    class Any_(Many):
        def forward(self, x, **options):
            assert "rng" in options
            return 2 * x, None

    assert mt.gradcheck(Any_(1), x(2, 3), dropout_seed=1).ok


def test_a_forward_that_cannot_do_without_an_rng_is_given_one() -> None:
    class Needs(Many):
        def forward(self, x, rng):
            return 2 * x * rng.integers(1, 2), None

    assert mt.gradcheck(Needs(1), x(2, 3), dropout_seed=1).ok
