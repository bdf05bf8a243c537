"""§6.1: the mean of the weights of the last few checkpoints, which translates better than each of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minitransformer.backend import Array
from minitransformer.config import as_integer
from minitransformer.errors import CheckpointError
from minitransformer.training.checkpoint import load_checkpoint
from minitransformer.training.run_folder import MODEL, RunFolder


def average_checkpoints(folder: RunFolder, n: int = 5) -> list[int]:
    """Write the mean of the weights of a run's last `n` checkpoints into it; the steps that they are from.

    `load_model(folder, weights="average")` reads it. The paper took 5 for its base model, 20 for the big one. Raises
    CheckpointError if there are not as many, or if one is damaged.
    """
    n = as_integer("n", n, 1, 10**6, "how many checkpoints to average, 1 or more")
    _, dtype = folder.model_settings()
    paths = folder.checkpoints()[-n:]
    if len(paths) < n:
        raise CheckpointError(
            f"{folder.path}: expected {n} checkpoints to average, found {len(paths)}; ask for fewer, or train with "
            f"a larger keep_checkpoints"
        )
    mean, steps = mean_weights(paths)
    folder.save_weights("average", {name: x.astype(dtype) for name, x in mean.items()}, {"steps": steps})
    return steps


def mean_weights(paths: Sequence[Path]) -> tuple[dict[str, Array], list[int]]:
    """The mean of the weights in these checkpoints, in float64, and the steps that they are from.

    Raises CheckpointError if they are not of one model.
    """
    mean: dict[str, Array] = {}
    steps: list[int] = []
    for path in paths:  # one at a time in memory
        arrays, meta = load_checkpoint(path)
        weights = {name: x for name, x in arrays.items() if name.startswith(MODEL)}
        shapes = {name: x.shape for name, x in weights.items()}
        if "step" not in meta or (steps and shapes != {name: x.shape for name, x in mean.items()}):
            raise CheckpointError(f"{path}: not a checkpoint of the same model as the others")
        steps.append(meta["step"])
        for name, x in weights.items():
            mean[name] = mean.get(name, 0) + x.astype("float64") / len(paths)
    return mean, steps
