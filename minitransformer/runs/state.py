"""The state of a training run, as a checkpoint holds it: weights, Adam's moments, and the run's counters."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from minitransformer.backend import Array
from minitransformer.errors import CheckpointError
from minitransformer.module import Module
from minitransformer.runs.run_folder import RunFolder
from minitransformer.training.batching import Pair

# the prefixes of the names of weights, and of Adam's moments, in a checkpoint
WEIGHTS_PREFIX, MOMENTS_PREFIX = "model.", "adam."


@dataclass
class RunState:
    """The counters and figures of a run: the numbers in a checkpoint."""

    step: int = 0  # updates done
    epoch: int = 0  # of the next batch
    index: int = 0  # of the next batch in its epoch
    seconds: float = 0.0  # wall-clock time, evaluation and checkpoints included
    ended: bool = False  # early, before its last step
    best: dict[str, Any] = field(default_factory=lambda: {"step": 0, "value": 0.0, "loss": 0.0})
    since_report: dict[str, Any] = field(default_factory=lambda: {"loss": 0.0, "tokens": 0, "seconds": 0.0})

    def is_better(self, value: float, loss: float, larger: bool = True) -> bool:
        """Whether an evaluation with these figures beats the best so far; between equal values, the lower loss wins.

        With `larger`, larger values are better; without it, smaller ones.
        """
        best, sign = self.best, 1 if larger else -1
        return best["step"] == 0 or (sign * value, -loss) > (sign * best["value"], -best["loss"])


def newest_state(
    folder: RunFolder, about: Mapping[str, Any], steps: int
) -> tuple[RunState, dict[str, Array], dict[str, Array]] | None:
    """The numbers, the weights and Adam's moments in a folder's newest checkpoint; None if there is none yet.

    Raises CheckpointError if it is damaged, or of a run with other settings or other sentence pairs than `about` says.
    """
    if not folder.checkpoints():
        return None
    arrays, meta = folder.load()
    numbers = asdict(RunState())
    if wrong := [name for name, x in numbers.items() if not _like(meta.get(name), x)]:
        raise CheckpointError(
            f"{folder.checkpoints()[-1]}: lacks a sound {', '.join(wrong)}; move it away to resume from the one before"
        )
    if "settings" in meta:  # older versions did not write them
        folder.compare(folder.checkpoints()[-1], meta["settings"], about["settings"])
    if meta["step"] > steps:
        raise CheckpointError(
            f"{folder.path}: steps: expected {meta['step']:,} or more, which this run has done already, got {steps:,}"
        )
    if meta.get("data") != about["data"]:
        raise CheckpointError(
            f"{folder.path}: data: expected the sentence pairs that this run began with, got others; restore its "
            f"files, or begin a new run"
        )
    state = RunState(**{name: meta[name] for name in numbers})
    return state, below(WEIGHTS_PREFIX, arrays), below(MOMENTS_PREFIX, arrays)


def digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 of the ids of sentence pairs."""
    found = hashlib.sha256()
    for source, target in pairs:
        found.update(array("q", [*source, -1, *target, -1]).tobytes())
    return found.hexdigest()


def saved_weights(model: Module) -> dict[str, Array]:
    """The weights of a model, by their names in a checkpoint."""
    return {f"{WEIGHTS_PREFIX}{name}": x for name, x in model.state_dict().items()}


def below(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: x for name, x in arrays.items() if name.startswith(prefix)}


def _like(x: Any, own: Any) -> bool:
    """Whether `x` is a finite number of own's type, and 0 or more if it is an int, or a dict of such numbers."""
    if isinstance(own, dict):
        return isinstance(x, dict) and x.keys() == own.keys() and all(_like(x[k], own[k]) for k in own)
    return type(x) is type(own) and math.isfinite(x) and (isinstance(x, float) or x >= 0)
