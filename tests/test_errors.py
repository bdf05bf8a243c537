"""Errors say what they say on one line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.layers.dropout import DropoutCache


@given(st.text())
def test_an_error_is_one_printable_line_whatever_it_quotes(text):
    message = str(mt.InputError(f"expected a name, got {text}"))
    assert message.isprintable()
    if text.isprintable():
        assert message == f"expected a name, got {text}"


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", r"a\nb"), ("\x1b[2J", r"\x1b[2J"), ("\u2028", r"\u2028")]
)
def test_what_cannot_be_printed_is_shown_as_python_writes_it(text, shown):
    assert str(mt.CheckpointError(text)) == shown


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.dtype("float64"), "float32"])
def test_a_dtype_may_be_a_class_of_numpys(dtype):
    model = mt.Transformer(mt.TransformerConfig.preset("toy", 9), dtype=dtype)
    assert model.flatten().data.dtype == dtype
    assert mt.layers.Linear(3, 4).to(dtype=dtype).W.data.dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mt.TrainingConfig(dtype=np.float32), "dtype: expected str, got <class 'numpy.float32'>"),
        (lambda: mt.layers.Linear(None, 4), "d_in: expected a whole number, got None"),
        (lambda: mt.layers.LayerNorm(4, eps=-1), "eps: expected a number, 0 or more, that float32 can hold, got -1"),
        (lambda: mt.layers.GroupNorm(4, 2, float("nan")), "eps: expected a number, 0 or more, that float32 can hold"),
        (lambda: mt.layers.Embedding(5, 4, E=np.ones((5, 4))), "E: expected a Parameter, got float64 of shape (5, 4)"),
        (lambda: mt.layers.AttentionInBlocks(rows=0), "rows: expected at least 1, got 0"),
        (lambda: mt.layers.BatchNorm(4).forward(np.ones(4)), "x: expected (B, T, d_model), or (N, d_model), got shape"),
        (lambda: mt.Transformer(mt.OneStackConfig(9, 9)), "config: expected one of two stacks, got OneStackConfig"),
        (lambda: mt.layers.Dropout(0).backward(np.full(5, "a"), DropoutCache(None)), "dy: expected an array of"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_one_line(call, message):
    with pytest.raises(mt.MinitransformerError) as raised:
        call()
    assert str(raised.value).startswith(message)


def test_a_missing_argument_is_that_of_the_formula():
    with pytest.raises(TypeError, match="missing a required argument: 'lr'"):
        mt.Adam(mt.layers.Linear(2, 2)).step()
