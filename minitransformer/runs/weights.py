"""The weights of a run: loading a model with them, and averaging those of several checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minitransformer.backend import Array, NoDraws
from minitransformer.errors import CheckpointError, InputError
from minitransformer.models.families import Model, build
from minitransformer.runs.run_folder import RunFolder, as_folder
from minitransformer.runs.state import WEIGHTS_PREFIX, below
from minitransformer.training.averaging import mean_weights
from minitransformer.validation.settings import as_integer


def load_model(run: RunFolder | str | Path, device: str = "cpu", weights: str = "last") -> Model:
    """The model of a run, with the weights of its newest checkpoint, or its "best" or "average" ones.

    Raises CheckpointError if they are not there or damaged.
    """
    return model_and_numbers(as_folder(run), device, weights)[0]


def model_and_numbers(folder: RunFolder, device: str, weights: str) -> tuple[Model, dict[str, Any]]:
    """The model that `load_model` returns, and the numbers that are stored beside its weights."""
    config, dtype = folder.model_settings()
    arrays, numbers = folder.load(weights)
    model = build(config, NoDraws(), dtype, device)
    model.load_state_dict(below(WEIGHTS_PREFIX, arrays))
    return model, numbers


def average_checkpoints(run: RunFolder | str | Path, n: int = 5) -> list[int]:
    """Write the mean of the weights of a run's last `n` checkpoints into its folder; return their steps.

    `load_model(run, weights="average")` reads it. The paper took 5 for its base model, 20 for the big one. Raises
    CheckpointError if there are fewer, or if one is damaged or of another model.
    """
    folder = as_folder(run)
    n = as_integer("n", n, 1, 10**6, "how many checkpoints to average, 1 or more")
    _, dtype = folder.model_settings()
    paths = folder.checkpoints()[-n:]
    if len(paths) < n:
        raise CheckpointError(
            f"{folder.path}: expected {n} checkpoints to average, found {len(paths)}; ask for fewer, or train with "
            f"a larger keep_checkpoints"
        )
    mean, metas = mean_of_checkpoints(folder, paths)
    if folder.checkpoints()[-n:] != paths:
        raise CheckpointError(
            f"{folder.path}: a training has saved another checkpoint meanwhile; average again"
        )
    weights = {f"{WEIGHTS_PREFIX}{name}": x.astype(dtype) for name, x in mean.items()}
    steps = [meta["step"] for meta in metas]
    about = {name: metas[-1][name] for name in ("settings", "data", "held_out") if name in metas[-1]}
    folder.save_weights("average", weights, {"steps": steps} | about)
    return steps


def mean_of_checkpoints(
    folder: RunFolder, paths: Sequence[Path]
) -> tuple[dict[str, Array], list[dict[str, Any]]]:
    """The mean of the weights in these checkpoints of a run, in float64, and the numbers of each checkpoint.

    Raises CheckpointError if one is damaged, or of another run.
    """
    metas: list[dict[str, Any]] = []

    def states() -> Iterator[dict[str, Array]]:
        for path in paths:
            arrays, meta = folder.read(path)
            metas.append(meta)
            if type(meta.get("step")) is not int:
                raise InputError("no step in it")
            yield below(WEIGHTS_PREFIX, arrays)

    try:
        return mean_weights(states()), metas
    except InputError as error:
        path = paths[len(metas) - 1]
        raise CheckpointError(f"{path}: not a checkpoint of the same model as the others ({error})") from None
