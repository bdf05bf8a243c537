"""Law 14: how an array lies in memory does not matter: not for inputs, not for dy, and read-only ones will do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import assert_close, every_module, examples, few, gradients, upstream


def every_second_backwards(x):
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::-2] = x
    return wide[..., ::-2]


def first_axis_backwards(x):
    return x[::-1].copy()[::-1]


def first_axis_last(x):
    return np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)


def every_third_row(x):
    tall = np.zeros((3 * len(x), *x.shape[1:]), x.dtype)
    tall[1::3] = x
    return tall[1::3]


LAYOUTS = st.sampled_from([
    np.ascontiguousarray, np.asfortranarray, every_second_backwards, first_axis_backwards, first_axis_last,
    every_third_row,
])  # fmt: skip


def laid_out(x, data):
    """The same numbers in another place, read-only."""
    if np.ndim(x) > 0:
        view = data.draw(LAYOUTS)(x)
        assert view.shape == x.shape and view.dtype == x.dtype
        x = view.view()
        x.flags.writeable = False
    return x


@every_module
@few
@given(data=st.data())
def test_the_layout_of_inputs_and_upstream_gradient_does_not_matter(case, data):
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = upstream(y, rng)
    moved = [laid_out(x, data) for x in inputs]
    y_moved, cache_moved = layer.forward(*moved, rng=np.random.default_rng(1))
    assert_close([np.asarray(y_moved)], [np.asarray(y)])
    assert_close(gradients(layer, laid_out(dy, data), cache_moved), gradients(layer, dy, cache))


@every_module
@few
@given(data=st.data())
def test_an_upstream_gradient_may_be_one_number_seen_many_times(case, data):
    """What the gradient of a mean over the batch is: a stride of 0."""
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = np.broadcast_to(rng.normal(size=np.shape(y)[1:]), np.shape(y))
    assert_close(gradients(layer, dy, cache), gradients(layer, dy.copy(), cache))
