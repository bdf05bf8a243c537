"""Adam divided among ranks: each has a share of the numbers, and together they are Adam. (Under MPI: test_ranks.py.)"""

from __future__ import annotations

import numpy as np
import pytest
from messages import message_of
from small_models import Pair
from support import randomise

import minitransformer as mt
from minitransformer.parallel import ShardedAdam
from minitransformer.parallel.ranks import ALONE
from minitransformer.parts import parts


class OneOf:
    """One of `n` ranks, as far as the optimizer asks: its share, and a record of what it gives the others."""

    def __init__(self, rank: int, n: int) -> None:
        self.rank, self.n = rank, n
        self.given: list[np.ndarray] = []

    def share(self, size: int) -> slice:
        return parts(size, self.n)[self.rank]

    def all_gather(self, x: np.ndarray) -> None:
        self.given.append(x.copy())


def models_alike(n: int) -> list[mt.Module]:
    """Models with the same weights and the same gradients."""
    return [randomise(Pair(), np.random.default_rng(1)) for _ in range(n)]


def new_gradients(model: mt.Module, step: int) -> None:
    grad = model.flatten().grad
    grad[...] = np.random.default_rng([2, step]).normal(size=grad.shape)


def after_steps(adam: mt.Adam, n: int = 3) -> mt.Adam:
    for step in range(n):
        new_gradients(adam.model, step)
        adam.step(0.1)
    return adam


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_shares_of_all_ranks_are_what_adam_has(n, weight_decay):
    """Bit for bit, weights and moments; a rank changes no number of another's. Of 40 ranks, some have nothing."""
    whole, *models = models_alike(1 + n)
    start = whole.flatten().data.copy()
    adam = after_steps(mt.Adam(whole, weight_decay=weight_decay))
    for rank, model in enumerate(models):
        ours = after_steps(ShardedAdam(model, OneOf(rank, n), weight_decay=weight_decay))
        share = ours.ranks.share(start.size)
        expected = start.copy()
        expected[share] = whole.flatten().data[share]
        np.testing.assert_array_equal(model.flatten().data, expected)
        np.testing.assert_array_equal(ours.m, adam.m[share])
        np.testing.assert_array_equal(ours.v, adam.v[share])
        assert ours.t == adam.t == 3


def test_on_one_rank_it_is_adam():
    whole, model = models_alike(2)
    expected, found = (
        after_steps(mt.Adam(whole)).state_dict(),
        after_steps(ShardedAdam(model, ALONE)).state_dict(),
    )
    np.testing.assert_array_equal(model.flatten().data, whole.flatten().data)
    for name in ("m", "v", "t"):
        np.testing.assert_array_equal(found[name], expected[name], strict=True)


@pytest.mark.parametrize("n", [2, 3])
def test_a_state_is_gathered_from_all_ranks(n):
    """Each gives its own share of m, then of v, and has room for those of the others."""
    whole, *models = models_alike(1 + n)
    expected = after_steps(mt.Adam(whole)).state_dict()
    ours = [after_steps(ShardedAdam(model, OneOf(rank, n))) for rank, model in enumerate(models)]
    states = [adam.state_dict() for adam in ours]
    for i, name in enumerate(("m", "v")):
        for adam, state in zip(ours, states, strict=True):
            share = adam.ranks.share(expected[name].size)
            own = np.zeros_like(expected[name])
            own[share] = expected[name][share]
            np.testing.assert_array_equal(adam.ranks.given[i], own, strict=True)
            assert state[name].shape == expected[name].shape
        np.testing.assert_array_equal(sum(adam.ranks.given[i] for adam in ours), expected[name])
    assert all(state["t"] == 3 for state in states)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_state_is_continued_on_any_number_of_ranks(n):
    """Of all ranks, each takes its share, and makes the step that Adam makes."""
    whole, *models = models_alike(1 + n)
    adam = after_steps(mt.Adam(whole))
    state, weights = adam.state_dict(), whole.state_dict()
    new_gradients(whole, 9)
    adam.step(0.1)
    for rank, model in enumerate(models):
        model.load_state_dict(weights)
        ours = ShardedAdam(model, OneOf(rank, n))
        ours.load_state_dict(state)
        new_gradients(model, 9)
        ours.step(0.1)
        share = ours.ranks.share(adam.m.size)
        np.testing.assert_array_equal(model.flatten().data[share], whole.flatten().data[share])
        assert ours.t == adam.t


@pytest.mark.parametrize("name", ["m", "v"])
@pytest.mark.parametrize(
    ("x", "got"),
    [
        # as much as this rank has for itself
        (np.zeros(15), "float64 of shape (15,)"),
        (np.zeros(31), "float64 of shape (31,)"),
        (np.zeros((30, 1)), "float64 of shape (30, 1)"),
        ([0.0, 1.0], "[0.0, 1.0]"),
        (None, "None"),
    ],
)
def test_a_state_of_another_size_is_refused(name, x, got):
    adam = ShardedAdam(*models_alike(1), OneOf(0, 2))
    before = adam.m.copy()
    assert adam.m.shape == (15,)
    state = {"m": np.ones(30), "v": np.ones(30), "t": 7, name: x}
    message = message_of(mt.CheckpointError, adam.load_state_dict, state)
    assert message == f"Adam: {name}: expected 30 numbers, got {got}"
    np.testing.assert_array_equal(adam.m, before)
    assert adam.t == 0


def test_a_state_that_is_none_or_lacks_something_is_refused():
    adam = ShardedAdam(*models_alike(1), OneOf(1, 2))
    assert (
        message_of(mt.CheckpointError, adam.load_state_dict, {"m": np.ones(30)})
        == "Adam: the state lacks v, t"
    )
    assert message_of(mt.CheckpointError, adam.load_state_dict, [1]) == (
        "Adam: expected a state of names and arrays, got [1]"
    )
