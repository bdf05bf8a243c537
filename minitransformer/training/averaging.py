"""§6.1: the mean of the weights after several steps, which translates better than the weights after any one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minitransformer.backend import Array
from minitransformer.errors import InputError
from minitransformer.validation.settings import INT64, as_integer


def mean_weights(states: Iterable[Mapping[str, Array]], n: int) -> dict[str, Array]:
    """The mean, in float64, of `n` states as `Module.state_dict` returns them, read one at a time.

    mean = w_1 / n + … + w_n / n. Raises InputError if there are not n of them, or if they are not of one model.
    """
    n = as_integer("n", n, 1, INT64, "how many states there are, 1 or more")
    mean: dict[str, Array] = {}
    found = 0
    for found, state in enumerate(states, 1):
        shapes, others = ({name: x.shape for name, x in weights.items()} for weights in (state, mean))
        if found > 1 and shapes != others:
            raise InputError(f"state {found}: expected the same names and shapes as in the states before it")
        for name, x in state.items():
            mean[name] = mean.get(name, 0) + x.astype("float64") / n
    if found != n:
        raise InputError(f"expected {n} states to average, got {found}")
    return mean
