"""Law 12: backward is linear in dy, since it is a matrix (the Jacobian, transposed) times dy."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from law_cases import assert_close, every_module, examples, few, gradients, upstream


@every_module
@few
@given(data=st.data())
def test_backward_is_linear_in_the_upstream_gradient(case, data):
    layer, inputs, _, rng = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dy_1, dy_2 = upstream(y, rng), upstream(y, rng)
    a = data.draw(st.sampled_from([-3.7, -1.0, 0.3, 1e4]))
    first, second = gradients(layer, dy_1, cache), gradients(layer, dy_2, cache)
    expected = [a * g + h for g, h in zip(first, second, strict=True)]
    assert_close(gradients(layer, a * dy_1 + dy_2, cache), expected)
    assert any(g.any() for g in first)


@every_module
@few
@given(data=st.data())
def test_a_zero_upstream_gradient_gives_zero_gradients(case, data):
    layer, inputs, *_ = data.draw(examples(case))
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    found = gradients(layer, np.zeros_like(y), cache)
    assert found and not any(g.any() for g in found)
