"""`minitransformer bench`: what a training step costs on this machine."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from minitransformer.bench import bench
from minitransformer.commands.common import Answer, Commands, integer
from minitransformer.config import PRESETS
from minitransformer.streams import say


def add(commands: Commands) -> None:
    """Add the command `bench`."""
    sub = commands.add("bench", time_steps, "measure the speed of a training step on this machine", _epilog())
    sub.add_argument("--preset", metavar="NAME", default="toy", help="the model, see below (default: toy)")
    sub.add_argument(
        "--batch", metavar="N", type=integer, default=32, help="sentences per step (default: 32)"
    )
    sub.add_argument(
        "--length", metavar="N", type=integer, default=24, help="tokens of the longest sentence (default: 24)"
    )
    sub.add_argument(
        "--steps",
        metavar="N",
        type=integer,
        help="how many steps to time, in each of two rounds (default: about 4 s)",
    )
    sub.add_argument("--dropout", metavar="P", type=float, help="P_drop, in place of the preset's")
    sub.add_argument(
        "--processes",
        metavar="N",
        type=integer,
        help="processes that share the batch (default: as many as pay off)",
    )


def _epilog() -> str:
    unbroken = ", ".join(name.replace(" ", "\0") for name in PRESETS)  # a name stays on one line
    names = textwrap.fill(unbroken, 100, initial_indent="  ", subsequent_indent="  ").replace("\0", " ")
    return (
        f"presets:\n{names}\n"
        "The model trains on random sentences. A second round, in one process with a timer around each layer, says\n"
        "where the time goes: each line is the time in that class without the layers inside it.\n"
        'example:\n  minitransformer bench --preset "C N=2" --batch 16 --length 48\n '
    )


def time_steps(arguments: argparse.Namespace) -> Answer:
    """Time the training step, and its layers."""
    names = ("preset", "batch", "length", "steps", "dropout", "processes")
    found = bench(
        **{name: getattr(arguments, name) for name in names},
        say=(lambda line: None) if arguments.json else say,
    )
    return found, (
        "step             {step_ms:.1f} ms, the middle half {step_ms_low:.1f} … {step_ms_high:.1f}  "
        "({steps} steps, processes: {processes})\n"
        "target tokens    {tokens_per_s:,.0f} a second\n"
        "arithmetic       {flops:,} operations a step: {gflops:.1f} GFLOP/s\n"
        "matrix products  {floor_ms:.1f} ms, {floor_share:.0%} of the step, at the {matmul_gflops:.1f} GFLOP/s "
        "that NumPy reaches here with a large one\n\n"
    ).format(**found) + _layer_table(found)


def _layer_table(found: dict[str, Any]) -> str:
    row = "{:<27}{:>11}{:>13}{:>9}{:>8}".format
    lines = [row("in one process", "forward ms", "backward ms", "ms", "share")]
    for layer in found["layers"]:
        times = ["" if ms is None else f"{ms:.2f}" for ms in (layer["forward_ms"], layer["backward_ms"])]
        lines.append(row(layer["name"], *times, f"{layer['ms']:.2f}", f"{layer['share']:.1%}"))
    return "\n".join([*lines, row("a step", "", "", f"{found['one_process_ms']:.2f}", f"{1:.1%}")])
