"""Positions counted from the start of a sentence, from its end, and from both, and the places they stand for."""

from __future__ import annotations

import numpy as np
from support import tiny_config

from minitransformer.layers.counting import (
    COUNTS,
    at_places,
    from_both_ends,
    from_end,
    from_start,
    random_places,
)

IDS = np.array([[7, 5, 9, 2], [4, 2, 0, 0], [2, 0, 0, 0]])


def test_from_the_start_and_from_the_end():
    assert from_start(IDS, 0)[..., 0].tolist() == [[0, 1, 2, 3]]
    assert from_end(IDS, 0)[..., 0].tolist() == [[3, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # padding inside does not move the words before it
    assert from_end(np.array([[0, 5, 6], [5, 0, 6], [5, 6, 7]]), 0)[..., 0].tolist() == [
        [1, 1, 0],
        [1, 0, 0],
        [2, 1, 0],
    ]
    assert from_end(IDS, 9)[..., 0].tolist() == [[2, 1, 0, 0]] + [[3, 2, 1, 0]] * 2  # where 9 is padding


def test_from_both_ends():
    both = from_both_ends(IDS, 0)
    np.testing.assert_array_equal(both[..., :1], np.broadcast_to(from_start(IDS, 0), (3, 4, 1)))
    np.testing.assert_array_equal(both[..., 1:], from_end(IDS, 0))


def test_padding_moves_no_position():
    """The positions of the words are those of the sentence by itself."""
    for count in COUNTS.values():
        alone = count(IDS[1:2, :2], 0)
        everyone = np.broadcast_to(count(IDS, 0), (3, 4, alone.shape[-1]))
        np.testing.assert_array_equal(everyone[1:2, :2], alone)


def test_places_begin_and_step_at_random_within_their_bounds():
    places = random_places(np.random.default_rng(1), 2000, 9, start=4, gaps=3)
    assert places.shape == (2000, 9)
    assert set(places[:, 0]) == {0, 1, 2, 3, 4}
    steps = np.diff(places)
    assert set(steps.ravel()) == {1, 2, 3}
    dense, sparse = (steps == 1).all(1), (steps == 3).any(1)
    # a third of the sentences has steps of 1 alone, another third steps of up to 3
    assert 0.3 < dense.mean() < 0.37 and 0.27 < sparse.mean() < 0.34


def test_without_randomness_the_places_are_the_positions():
    places = random_places(np.random.default_rng(1), 2, 5, start=0, gaps=1)
    assert places.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_token_stands_at_the_place_of_its_position():
    places = np.array([[0, 2, 3, 7], [1, 4, 5, 6], [3, 4, 6, 9]])
    assert at_places(places, from_start(IDS, 0))[..., 0].tolist() == places.tolist()
    assert at_places(places, from_both_ends(IDS, 0)).tolist()[1] == [[1, 4], [4, 1], [5, 1], [6, 1]]


def test_the_last_position_is_the_largest_that_can_be_drawn():
    config = tiny_config(random_start=3, random_gaps=2, max_len=3)
    places = random_places(np.random.default_rng(1), 2000, config.max_len, 3, 2)
    assert places.max() == config.last_position == 7
