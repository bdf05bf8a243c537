"""How a run went: loss, learning rate, exact match."""

from __future__ import annotations

from pathlib import Path

from minitransformer.errors import CheckpointError
from minitransformer.figures.canvas import new_figure, save
from minitransformer.training.run_folder import RunFolder


def training_figure(folder: RunFolder) -> Path:
    """Draw metrics.jsonl as training.png in the run's folder."""
    metrics = folder.metrics()
    if not metrics:
        raise CheckpointError(f"{folder.path}: expected reports in metrics.jsonl, found none; train it first")
    steps = [record["step"] for record in metrics]
    evaluations = [record for record in metrics if "valid" in record]
    figure = new_figure(7, 6)
    loss, rate, exact = figure.subplots(3, 1, sharex=True)
    loss.plot(steps, [record["loss"] for record in metrics])
    loss.set_ylabel("loss (nats per token)")
    rate.plot(steps, [record["lr"] for record in metrics], color="tab:orange")
    rate.set_ylabel("learning rate")
    exact.plot(
        [record["step"] for record in evaluations],
        [100 * record["valid"]["exact_match"] for record in evaluations],
        marker="o",
        color="tab:green",
    )
    exact.set_ylim(0, 105)
    exact.set_ylabel("exact match (%),\nvalidation set")
    exact.set_xlabel("step")
    figure.suptitle(f"training run {folder.path.name}")
    return save(figure, folder.path / "training.png")
