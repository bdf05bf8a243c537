"""What every layer's backward refuses: a gradient that has not the shape of the output, or is no array."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cases import CASES
from support import D_MODEL

import minitransformer as mt
from minitransformer.validation.gradients import fits

LAYERS = [cls for cls in CASES if cls.__module__.startswith("minitransformer.layers")]


# what a cache knows of the shape: positions know neither batch nor length, and fixed ones have no gradient of their own
KNOWN = {
    mt.layers.FixedPositions: (None, None, None),
    mt.layers.SinusoidalPositions: (None, None, None),
    mt.layers.LearnedPositions: (None, None, D_MODEL),
}


def ran_forward(cls):
    """A layer after its forward, in training: the layer, an upstream gradient, and the cache."""
    rng = np.random.default_rng(5)
    layer, inputs = CASES[cls][0](rng)
    y, cache = layer.forward(*inputs, rng=rng)
    return layer, rng.normal(size=y.shape), cache


def gradients(layer):
    return {name: p.grad.copy() for name, p in layer.parameters().items()}


@pytest.mark.parametrize("cls", LAYERS)
def test_a_gradient_of_another_shape_is_refused_before_anything_is_written(cls):
    layer, dy, cache = ran_forward(cls)
    before = gradients(layer)
    others = dy[..., :1], dy[..., 0], dy[0], dy[None], dy[:, :1], np.moveaxis(dy, 0, 1), np.float64(1.0)
    known = 0
    for other in others:
        if fits(other.shape, KNOWN.get(cls, dy.shape)):
            continue
        with pytest.raises(mt.InputError, match=r"^(dy|dcontext|dlogits): expected the output's shape, \("):
            layer.backward(other, cache)
        known += 1
    assert known >= 4
    for name, grad in gradients(layer).items():
        np.testing.assert_array_equal(grad, before[name])
    layer.backward(dy, cache)


@pytest.mark.parametrize("cls", LAYERS)
def test_what_is_no_array_is_refused(cls):
    layer, dy, cache = ran_forward(cls)
    for other in (dy.tolist(), None, 1.0, np.ma.masked_array(dy)):
        with pytest.raises(
            mt.InputError, match=r"^(dy|dcontext|dlogits): expected an array of numbers, like the"
        ):
            layer.backward(other, cache)


def test_dropout_that_dropped_nothing_knows_no_shape():
    layer = mt.layers.Dropout(0.5)
    dy = np.ones((2, 3))
    assert layer.backward(dy, layer.forward(np.ones((2, 3)))[1]) is dy


def test_an_axis_of_any_length():
    assert fits((2, 3), (2, 3)) and fits((2, 3), (None, 3)) and fits((2, 3), (None, None))
    assert not fits((2, 3), (None, 4)) and not fits((2, 3), (3,)) and not fits((2, 3), (None, None, None))
