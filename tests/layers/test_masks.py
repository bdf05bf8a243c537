"""§3.2.3: which position may attend to which."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.layers import (
    causal_mask,
    padding_mask,
)


def test_masks_of_the_paper():
    ids = np.array([[5, 3, 0], [4, 0, 0]])
    assert padding_mask(ids, 0).tolist() == [[[[True, True, False]]], [[[True, False, False]]]]
    assert causal_mask(ids).tolist() == [[[[True, False, False], [True, True, False], [True, True, True]]]]
    with pytest.raises(ValueError, match="read-only"):  # its rows share their numbers
        causal_mask(ids)[0, 0, 2, 1] = False


@pytest.mark.parametrize("ids", [np.arange(3), np.zeros((1, 2, 3), int), [[1, 2]], np.int64(1)])
def test_masks_are_made_of_rows_of_ids(ids):
    for make in (causal_mask, lambda ids: padding_mask(ids, 0)):
        with pytest.raises(mt.InputError, match=r"^ids: expected an array of ids, \(B, T\), got "):
            make(ids)


@pytest.mark.parametrize(
    "pad_id", [None, 0.0, True, "0"]
)  # each would be unequal to every id, or equal to some
def test_the_id_of_padding_is_an_integer(pad_id):
    with pytest.raises(mt.InputError, match=f"^pad_id: expected a whole number, got {pad_id!r}"):
        padding_mask(np.array([[1, 0]]), pad_id)
