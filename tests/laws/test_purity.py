"""Law 10: forward writes to nothing; backward writes to nothing but .grad, and adds to that; nothing is remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from law_cases import every_module, examples, few

from minitransformer.testing import assert_accumulates, assert_pure, assert_reentrant


@every_module
@few
@given(data=st.data())
def test_forward_and_backward_write_to_nothing_but_grad(case, data):
    layer, inputs, *_ = data.draw(examples(case))
    assert_pure(layer, *inputs, dropout_seed=1)


@every_module
@few
@given(data=st.data())
def test_backward_twice_gives_equal_dx_and_twice_the_grad(case, data):
    """Added to whatever is there."""
    layer, inputs, *_ = data.draw(examples(case))
    assert_accumulates(layer, *inputs, dropout_seed=1)


@every_module
@few
@given(data=st.data())
def test_two_forwards_in_flight_do_not_disturb_each_other(case, data):
    """Nor does an evaluation between forward and backward, nor the other's backward."""
    layer, inputs, others, _ = data.draw(examples(case))
    assert_reentrant(layer, inputs, others, dropout_seed=1)
