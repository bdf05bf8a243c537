"""§6.1: the mean of the weights after several steps, which translates better than the weights after any one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from minitransformer.backend import Array
from minitransformer.errors import InputError


def mean_weights(states: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
    """The mean, in float64, of states as `Module.state_dict` returns them, read one at a time.

    mean = (w_1 + … + w_n) / n. Raises InputError if there are none, or if they are not of one model.
    """
    total: dict[str, Array] = {}
    n = 0
    for n, state in enumerate(states, 1):
        shapes, others = ({name: x.shape for name, x in weights.items()} for weights in (state, total))
        if n > 1 and shapes != others:
            raise InputError(f"state {n}: expected the same names and shapes as in the states before it")
        for name, x in state.items():
            total[name] = total.get(name, 0) + x.astype("float64")
    if n == 0:
        raise InputError("expected states to average, got none")
    return {name: x / n for name, x in total.items()}
