"""Law 14: how an array lies in memory does not matter: not for inputs, not for dy, and read-only ones will do."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import every_module, examples, few

from minitransformer.testing import assert_close, gradients, upstream
from minitransformer.testing.strategies import layouts


@every_module
@few
@given(data=st.data())
def test_the_layout_of_inputs_and_upstream_gradient_does_not_matter(case, data):
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = upstream(y, rng)
    moved = [data.draw(layouts(x)) for x in inputs]
    y_moved, cache_moved = layer.forward(*moved, rng=np.random.default_rng(1))
    assert_close([np.asarray(y_moved)], [np.asarray(y)])
    assert_close(gradients(layer, data.draw(layouts(dy)), cache_moved), gradients(layer, dy, cache))


@every_module
@few
@given(data=st.data())
def test_an_upstream_gradient_may_be_one_number_seen_many_times(case, data):
    """What the gradient of a mean over the batch is: a stride of 0."""
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy = np.broadcast_to(rng.normal(size=np.shape(y)[1:]), np.shape(y))
    assert_close(gradients(layer, dy, cache), gradients(layer, dy.copy(), cache))
