"""The curves of a training run: loss, learning rate, and quality on the validation set."""

from __future__ import annotations

import math
from typing import Any

from minitransformer.errors import InputError
from minitransformer.figures.canvas import new_figure


def training_figure(name: str, metrics: list[dict[str, Any]]) -> Any:
    """The lines of a run's metrics.jsonl as curves over the steps: loss, rate, sharpness, and quality.

    Raises InputError if there are no lines, or if one lacks a number to draw.
    """
    if not metrics:
        raise InputError(f"run {name}: expected reports in its metrics.jsonl, found none; train it first")
    for record in metrics:
        if missing := {"step", "loss", "lr"} - record.keys():
            raise InputError(f"run {name}: a line of its metrics.jsonl lacks {', '.join(sorted(missing))}")
    steps = [record["step"] for record in metrics]
    evaluated = [record["step"] for record in metrics if "valid" in record]
    valid = [record["valid"] for record in metrics if "valid" in record]
    looked = [
        (record["step"], record["cross_attention"]) for record in metrics if "cross_attention" in record
    ]
    figure = new_figure(7, 7.5)
    loss, rate, *between, quality = figure.subplots(4 if looked else 3, 1, sharex=True)
    loss.plot(
        steps, [record["loss"] for record in metrics], label="training, with label smoothing if there is any"
    )
    loss.plot(evaluated, [figures.get("loss", math.nan) for figures in valid], label="validation, without")
    loss.legend(fontsize=8)
    loss.set_ylabel("loss (nats per token)")
    rate.plot(steps, [record["lr"] for record in metrics], color="tab:orange")
    rate.set_ylabel("learning rate")
    for sharpness in between:  # none, for a model of one stack: it has no cross-attention
        sharpness.plot([step for step, _ in looked], [share for _, share in looked], marker="o")
        sharpness.set_ylim(0, 1)
        sharpness.set_ylabel("sharpness of\ncross-attention")
    kind, scores, top = quality_of(valid)
    quality.plot(evaluated, scores, marker="o", color="tab:green")
    quality.set_ylim(0, top)
    quality.set_ylabel(f"{kind},\nvalidation set")
    quality.set_xlabel("step")
    figure.suptitle(f"training run {name}".encode(errors="replace").decode(), parse_math=False)
    return figure


def quality_of(valid: list[dict[str, Any]]) -> tuple[str, list[float], float | None]:
    """The name of the measure of quality, a number for each of these figures, and the top of the axis if it has one.

    BLEU, where there is one; exact match; or else the perplexity, where a model has no answers of its own.
    """
    if any("bleu" in figures for figures in valid):
        return "BLEU", [figures.get("bleu", math.nan) for figures in valid], None
    if all("exact_match" in figures for figures in valid):
        return "exact match (%)", [100 * figures["exact_match"] for figures in valid], 105
    return "perplexity", [math.exp(min(figures.get("loss", math.nan), 700)) for figures in valid], None
