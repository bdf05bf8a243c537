"""Law 12: backward is linear in dy, since it is a matrix (the Jacobian, transposed) times dy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from law_cases import every_module, examples, few

from minitransformer.testing import assert_linear


@every_module
@few
@given(data=st.data(), factor=st.sampled_from([-3.7, -1.0, 0.3, 1e4]))
def test_backward_is_linear_in_the_upstream_gradient(case, data, factor):
    layer, inputs, *_ = data.draw(examples(case))
    assert_linear(layer, *inputs, factor=factor, dropout_seed=1)
