"""How a run went: loss, learning rate, exact match."""

from __future__ import annotations

from typing import Any

from minitransformer.errors import InputError
from minitransformer.figures.canvas import new_figure


def training_figure(name: str, metrics: list[dict[str, Any]]) -> Any:
    """The lines of a run's metrics.jsonl as three curves over the steps.

    Raises InputError for no lines, and for one that lacks what is drawn.
    """
    if not metrics:
        raise InputError(f"run {name}: expected reports in its metrics.jsonl, found none; train it first")
    for record in metrics:
        if missing := {"step", "loss", "lr"} - record.keys():
            raise InputError(f"run {name}: a line of its metrics.jsonl lacks {', '.join(sorted(missing))}")
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
    figure.suptitle(f"training run {name}")
    return figure
