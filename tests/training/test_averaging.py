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
    mean = mean_weights(iter(given))
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
            mean_weights([first, other])


def test_no_states_have_no_mean():
    with pytest.raises(mt.InputError, match="expected states to average, got none"):
        mean_weights([])
