"""The strategies: what they promise of every example, and that the rare forms occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import find, given, settings
from hypothesis import strategies as st

from minitransformer.testing import strategies


@given(sizes=strategies.sizes(4), dtype=strategies.dtypes, data=st.data())
def test_no_two_axes_have_one_size_and_no_number_is_zero(sizes: Any, dtype: str, data: st.DataObject) -> None:
    assert len(set(sizes)) == 4 and set(sizes) <= {2, 3, 5, 7, 11, 13, 17, 19, 23}
    x = data.draw(strategies.arrays(sizes, dtype))
    assert x.shape == sizes and x.dtype == dtype and x.all()


@given(seed=strategies.seeds, pad_id=st.sampled_from([0, 3]), data=st.data())
def test_ids_repeat_and_sentences_end_in_padding(seed: int, pad_id: int, data: st.DataObject) -> None:
    ids = data.draw(strategies.ids(3, 7, 11, pad_id))
    assert ids.shape == (3, 7) and ids.min() >= 0 and ids.max() < 11
    assert (ids[:, 0] == ids[:, 1]).any() and (ids[0] != pad_id).all() and (ids[1:, -1] == pad_id).all()


@given(mask=strategies.masks(2, 5, 7))
def test_masks_are_boolean_and_have_one_of_three_forms(mask: np.ndarray) -> None:
    assert mask.dtype == bool and mask.shape in [(2, 1, 1, 7), (1, 1, 5, 7), (2, 1, 5, 7)]
    if mask.shape[2] == 1:  # words first, and a sentence without any
        assert (np.diff(mask.astype(int), axis=-1) <= 0).all() and mask.any() and not mask.any(-1).all()
    elif mask.shape[0] == 1:
        assert (mask[0, 0] == np.tri(5, 7, dtype=bool)).all()
    else:
        assert mask[1:].any() and not mask[1:].all() and not mask.any(-1).all()


def test_all_forms_of_masks_and_all_layouts_occur() -> None:
    exhaustive = settings(max_examples=500, database=None)
    for shape in ((2, 1, 1, 7), (1, 1, 5, 7), (2, 1, 5, 7)):
        find(strategies.masks(2, 5, 7), lambda mask, shape=shape: mask.shape == shape, settings=exhaustive)
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    strides: set[Any] = set()

    def new(view: np.ndarray) -> bool:
        strides.add(view.strides)
        return len(strides) == 6

    find(strategies.layouts(x), new, settings=exhaustive)


@given(shape=st.sampled_from([(3,), (2, 3), (5, 2, 3), ()]), data=st.data())
def test_a_layout_has_the_same_numbers_and_cannot_be_written_to(shape: Any, data: st.DataObject) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    view = data.draw(strategies.layouts(x))
    np.testing.assert_array_equal(view, x, strict=True)
    assert not view.flags.writeable and x.flags.writeable
