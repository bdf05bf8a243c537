"""§3.2.3: which position may attend to which."""

from __future__ import annotations

import numpy as np
import pytest

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
