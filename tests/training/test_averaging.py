"""§6.1: the mean of weights by name. (Of the checkpoints of a run: tests/runs/test_weights.py.)"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.training import mean_weights


def states(n: int, dtype: str = "float32"):
    rng = np.random.default_rng(n)
    return [
        {"W": rng.normal(size=(3, 5)).astype(dtype), "b": rng.normal(size=5).astype(dtype)} for _ in range(n)
    ]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_mean_is_that_of_each_number_in_float64(n, dtype):
    given = states(n, dtype)
    # one at a time
    mean = mean_weights(iter(given), n)
    assert mean.keys() == {"W", "b"}
    for name, x in mean.items():
        assert x.dtype == np.float64 and x.shape == given[0][name].shape
        for i in np.ndindex(x.shape):
            assert x[i] == pytest.approx(math.fsum(float(state[name][i]) for state in given) / n, rel=1e-14)


def test_states_of_different_models_have_no_mean():
    first, second = states(2)
    for other in ({"W": second["W"]}, {**second, "more": second["b"]}, {**second, "b": second["b"][:1]}):
        with pytest.raises(
            mt.InputError, match="state 2: expected the same names and shapes as in the states before it"
        ):
            mean_weights([first, other], 2)


@pytest.mark.parametrize(
    ("n", "there", "message"),
    [
        (0, 0, "n: expected how many states there are, 1 or more, got 0"),
        (-1, 1, "n: expected how many states there are, 1 or more, got -1"),
        (1, 0, "expected 1 states to average, got 0"),
        (2, 1, "expected 2 states to average, got 1"),
        (1, 2, "expected 1 states to average, got 2"),
    ],
)
def test_as_many_states_as_were_announced_have_a_mean(n, there, message):
    with pytest.raises(mt.InputError, match=message):
        mean_weights(states(there), n)
