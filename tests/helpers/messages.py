"""The message of an error."""

from __future__ import annotations

import pytest


def message_of(error, call, *inputs, **options):
    with pytest.raises(error) as raised:
        call(*inputs, **options)
    return str(raised.value)
