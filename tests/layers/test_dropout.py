"""§5.4: dropout, and the probabilities it takes. (Its laws: tests/laws/test_dropout.py.)"""

from __future__ import annotations

import math

import numpy as np
import pytest
from messages import message_of

import minitransformer as mt
from minitransformer import layers


@pytest.mark.parametrize("p", [1 - 2**-16, 1 - 2**-18, np.nextafter(1, 0)])
def test_a_probability_next_to_one_still_keeps_a_few(p):
    """A p of 1 would divide by 0."""
    assert layers.Dropout(p).p == 1 - 2**-16


def test_nothing_is_copied_where_nothing_is_dropped():
    x = np.ones((2, 3))
    for layer, rng in ((layers.Dropout(0.5), None), (layers.Dropout(0.0), np.random.default_rng(1))):
        y, cache = layer.forward(x, rng)
        assert y is x and cache.kept is None and layer.backward(x, cache) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, math.nan, None, "0.1"])
def test_messages_of_dropout(p):
    message = message_of(mt.ConfigError, layers.Dropout, p)
    assert message == f"dropout: expected a probability 0 <= p < 1, got {p!r}"
