"""`minitransformer explain`: a page with the forward and the backward pass of a run's model on one input."""

from __future__ import annotations

import argparse
from pathlib import Path

from minitransformer.commands.common import Answer, Commands, encoder_decoder, example, integer, trained
from minitransformer.figures import explain
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.weights import load_model


def add(commands: Commands) -> None:
    """Add the command `explain`."""
    sub = commands.add(
        "explain",
        explain_run,
        "write a page that shows what a trained model does with an input, and its gradients",
        _epilog(),
        makes_files=True,
    )
    trained(sub)
    sub.add_argument("--input", metavar="SEQUENCE", help="the source (default: a held-out one)")
    sub.add_argument(
        "--target", metavar="SEQUENCE", help="the target of the loss (default: the model's answer)"
    )
    sub.add_argument(
        "--layers", metavar="N", type=integer, nargs="+", help="show these layers (default: all)"
    )
    sub.add_argument("--check", action="store_true", help="also check the gradient of every parameter")
    sub.add_argument("--out", metavar="FILE", type=Path, help="the page (default: explain.html in RUN)")


def _epilog() -> str:
    return (
        "The page is one HTML file, which any browser opens without a network. It shows figure 1 as a map, and behind\n"
        "each box its matrices, forward on the left and backward on the right. Gradients are of the cross-entropy.\n"
        'example:\n  minitransformer explain runs/reverse --input "3 1 4 1 5" --target "5 1 4 1 9"\n '
    )


def explain_run(arguments: argparse.Namespace) -> Answer:
    """Write the page of one input, and say where it is."""
    folder = RunFolder(arguments.folder)
    task = folder.settings().task
    source = task.vocabulary.encode(example(task) if arguments.input is None else arguments.input)
    target = None if arguments.target is None else task.vocabulary.encode(arguments.target)
    model = load_model(folder, weights=arguments.weights)
    page = explain(
        encoder_decoder(model), source, target, task.vocabulary.symbols, arguments.layers, arguments.check
    )
    path = page.save(arguments.out or folder.path / "explain.html")
    return {"explain": str(path), "bytes": path.stat().st_size}, str(path)
