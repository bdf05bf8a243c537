"""Errors say what they say on one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt


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
