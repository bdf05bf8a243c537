"""`minitransformer evaluate` and `average`: measure a run's weights, and average several of them."""

from __future__ import annotations

import argparse
import math
from itertools import chain
from pathlib import Path
from typing import Any

from minitransformer.commands.common import (
    Answer,
    Commands,
    at_work,
    device,
    folder_word,
    integer,
    program,
    search,
    trained,
)
from minitransformer.errors import CheckpointError
from minitransformer.inference.beam import check_search
from minitransformer.runs.evaluation import held_out, measure
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.state import digest
from minitransformer.runs.weights import average_checkpoints, model_and_numbers


def add(commands: Commands) -> None:
    """Add the commands `evaluate` and `average`."""
    sub = commands.add("evaluate", evaluate, "measure a trained model on the held-out sequences")
    trained(sub)
    search(sub, 1)
    device(sub)

    sub = commands.add(
        "average",
        average,
        "average the weights of a run's last checkpoints (§6.1)",
        _average_epilog(),
        makes_files=True,
    )
    sub.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    sub.add_argument(
        "--last", metavar="N", type=integer, help="how many checkpoints (default: 5, or all if fewer)"
    )


def _average_epilog() -> str:
    return (
        "The average goes into the run folder, where --weights average finds it. A run keeps as many checkpoints as\n"
        "its setting keep_checkpoints says, including one that was saved when the run was stopped.\n "
    )


def evaluate(arguments: argparse.Namespace) -> Answer:
    """Measure a run's model on its held-out sets."""
    folder = RunFolder(arguments.folder)
    task = folder.settings().task
    model, numbers = model_and_numbers(folder, arguments.device, arguments.weights)
    sets = held_out(task)
    found = digest(chain(*sets.values()))
    if numbers.get("held_out", found) != found:  # older versions did not write it
        raise CheckpointError(
            f"{folder.path}: expected the held-out sequences that this run began with, got others, which it may have "
            f"been trained on; restore its files"
        )
    check_search(arguments.beam, arguments.alpha)
    figures = {}
    with at_work(model) as replicas:
        for name in sets:
            figures[name] = measure(replicas, task, name, sets[name], arguments.beam, arguments.alpha)
    return {"run": str(folder.path), "sets": figures}, summary(figures)


def average(arguments: argparse.Namespace) -> Answer:
    """Average the weights of the last checkpoints."""
    folder = RunFolder(arguments.folder)
    n = min(5, len(folder.checkpoints()) or 1) if arguments.last is None else arguments.last
    steps = average_checkpoints(folder, n)
    listed = ", ".join(f"{step:,}" for step in steps)
    return {"run": str(folder.path), "steps": steps}, (
        f"averaged the weights after steps {listed}\n"
        f"try:  {program()} evaluate {folder_word(folder.path)} --weights average --beam 4"
    )


def summary(sets: dict[str, Any]) -> str:
    """The figures of `measure` as text, a line for each held-out set."""

    def told(figures: dict[str, Any]) -> str:
        perplexity = math.exp(min(figures["loss"], 700))  # exp(700) is near the largest float
        if "bleu" in figures:
            return f"BLEU {figures['bleu']:.2f}   perplexity {perplexity:.2f}"
        if "exact_match" not in figures:
            return f"loss {figures['loss']:.4f} nats a token   perplexity {perplexity:.2f}"
        return f"exact match {figures['exact_match']:7.2%}   token accuracy {figures['token_accuracy']:7.2%}"

    lines = [
        f"{name:<8} {told(figures)}   ({figures['n']} held-out sequences{_lengths(figures)})"
        for name, figures in sets.items()
    ]
    return "\n".join(lines)


def _lengths(figures: dict[str, Any]) -> str:
    lengths = list(figures.get("exact_match_by_length", ()))
    if not lengths:
        return ""
    return f" of length {lengths[0]}" + (f" to {lengths[-1]}" if len(lengths) > 1 else "")
