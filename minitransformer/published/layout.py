"""A published layout: how its names of settings and weights map to those of this package."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from minitransformer.errors import CheckpointError, ConfigError, describe
from minitransformer.one_stack_config import OneStackConfig

LAYER = re.compile(r"(?<=\.)[0-9]+(?=\.)")


class Layout(NamedTuple):
    """A published architecture. In `names`, a * is the number of a layer."""

    config: Callable[[Mapping[str, Any]], OneStackConfig]  # from the content of config.json
    prefix: str  # with which a published name may begin
    names: Mapping[str, str]  # published name -> ours; a fused weight has several, an unused one none
    transposed: bool  # W is published as (d_out, d_in), as in torch.nn.Linear

    def state(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Published arrays, by the names of the parameters here. Raises CheckpointError for names that are unknown.

        A tied weight may be there under each of its names, but has to be the same.
        """
        state: dict[str, np.ndarray] = {}
        for name, x in arrays.items():
            short = name.removeprefix(self.prefix)
            pattern, number = LAYER.sub("*", short), LAYER.search(short)
            if pattern not in self.names:
                raise CheckpointError(f"expected the weights of a supported model, got {describe(name)}, too")
            ours = self.names[pattern].replace("*", number[0] if number else "").split()
            if ours and x.dtype.kind != "f":
                raise CheckpointError(f"{describe(name)}: expected floating-point numbers, got {x.dtype}")
            parts = np.array_split(np.atleast_1d(x), len(ours), -1) if ours else []
            for path, part in zip(ours, parts, strict=True):
                part = part.T if self.transposed and ".W" in path else part
                if not (path not in state or np.array_equal(state[path], part)):
                    raise CheckpointError(f"{describe(name)}: expected the numbers of its tied weight")
                state[path] = part
        return state


def linear(published: str, ours: str) -> dict[str, str]:
    """The names of a linear map's W and b, which {0} in `ours` stands for."""
    return {f"{published}.weight": ours.format("W"), f"{published}.bias": ours.format("b")}


def layer_norm(published: str, ours: str) -> dict[str, str]:
    """The names of a LayerNorm's parameters; older files have them as they are here."""
    names = {"weight": "gamma", "bias": "beta", "gamma": "gamma", "beta": "beta"}
    return {f"{published}.{theirs}": f"{ours}.{name}" for theirs, name in names.items()}


def numbers(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The settings with these published names, by our names. Raises ConfigError if one is missing or not a number."""
    for name in names:
        if type(settings.get(name)) not in (int, float):
            raise ConfigError(f"{name}: expected a number, got {describe(settings.get(name))}")
    return {ours: settings[name] for name, ours in names.items()}


def supported(settings: Mapping[str, Any], name: str, *values: Any) -> Any:
    """The setting `name`, by default the first of `values`. Raises ConfigError unless it is one of them."""
    value = settings.get(name, values[0])
    if value not in values:
        known = ", ".join(map(repr, values))
        raise ConfigError(f"{name}: expected {known} (others are not supported), got {describe(value)}")
    return value
