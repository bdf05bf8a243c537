"""Law 10: forward writes to nothing; backward writes to nothing but .grad, and adds to that; nothing is remembered."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import arrays, assert_close, assert_same, every_module, examples, few, gradients, upstream


def copies(tree):
    return [a.copy() for a in arrays(tree)]


def frozen(tree):
    """The arrays, read-only from now on: whoever writes to one gets an exception, whatever is written."""
    for a in arrays(tree):
        a.flags.writeable = False


@every_module
@few
@given(data=st.data())
def test_forward_and_backward_write_to_nothing_but_grad(case, data):
    layer, inputs, _, rng = data.draw(examples(case))
    parameters = list(layer.parameters().values())
    grads_before, inputs_before = [p.grad.copy() for p in parameters], copies(inputs)
    layer_before = pickle.dumps(layer)  # all of it: parameters, gradients, and every attribute at any depth
    frozen(inputs)
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    assert pickle.dumps(layer) == layer_before
    dy = upstream(y, rng)
    others, others_before = [inputs, dy, cache], copies([inputs, dy, cache])
    frozen(others)
    layer.backward(dy, cache)
    assert_same(arrays(inputs), inputs_before)
    assert_same(arrays(others), others_before)
    for p, grad in zip(parameters, grads_before, strict=True):
        p.grad = grad
    assert pickle.dumps(layer) == layer_before


@every_module
@few
@given(data=st.data())
def test_backward_twice_gives_equal_dx_and_twice_the_grad(case, data):
    """Added to whatever is there."""
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = upstream(y, rng)
    parameters = list(layer.parameters().values())
    dx, grads = [], [[p.grad.copy() for p in parameters]]
    for _ in range(2):
        dx.append(copies([layer.backward(dy, cache)]))
        grads.append([p.grad.copy() for p in parameters])
    assert_same(*dx)
    start, once, twice = grads
    assert_close([c - a for a, c in zip(start, twice, strict=True)],
                 [2 * (b - a) for a, b in zip(start, once, strict=True)])  # fmt: skip
    assert not parameters or any((a != b).any() for a, b in zip(start, once, strict=True))


@every_module
@few
@given(data=st.data())
def test_two_forwards_in_flight_do_not_disturb_each_other(case, data):
    """Nor does an evaluation between forward and backward, nor the other's backward."""
    layer, inputs, others, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    y_before, dy = copies(y), upstream(y, rng)
    alone = gradients(layer, dy, cache)
    y_other, cache_other = layer.forward(*others, rng=np.random.default_rng(2))
    layer.forward(*others)
    layer.backward(upstream(y_other, rng), cache_other)
    assert_same(arrays(y), y_before)
    assert_same(gradients(layer, dy, cache), alone)
