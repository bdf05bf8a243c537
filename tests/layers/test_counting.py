"""Positions counted from the start of a sentence, from its end, and from both."""

from __future__ import annotations

import numpy as np

from minitransformer.layers.counting import COUNTS, from_both_ends, from_end, from_start

IDS = np.array([[7, 5, 9, 2], [4, 2, 0, 0], [2, 0, 0, 0]])
STARTS = np.array([[10], [20], [30]])


def test_from_the_start_and_from_the_end():
    assert from_start(IDS, 0).tolist() == [[0, 1, 2, 3]] * 3
    assert from_end(IDS, 0).tolist() == [[3, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert from_start(IDS, 0, 5).tolist() == [[5, 6, 7, 8]] * 3
    assert from_end(IDS, 9).tolist() == [[2, 1, 0, 0]] + [[3, 2, 1, 0]] * 2  # where the id 9 is padding


def test_each_sentence_may_begin_somewhere_else():
    assert from_start(IDS, 0, STARTS).tolist() == [[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]
    assert from_end(IDS, 0, STARTS).tolist() == [[13, 12, 11, 10], [21, 20, 20, 20], [30, 30, 30, 30]]


def test_from_both_ends():
    both = from_both_ends(IDS, 0, STARTS)
    np.testing.assert_array_equal(both[..., 0], from_start(IDS, 0, STARTS))
    np.testing.assert_array_equal(both[..., 1], from_end(IDS, 0, STARTS))


def test_padding_moves_no_position():
    """The positions of the words are those of the sentence by itself."""
    for count in COUNTS.values():
        alone = count(IDS[1:2, :2], 0)
        np.testing.assert_array_equal(count(IDS, 0)[1:2, :2], alone)
