"""`minitransformer plot`: pictures of a run."""

from __future__ import annotations

import argparse

from minitransformer.commands.common import Answer, Commands, encoder_decoder, example, integer, trained
from minitransformer.figures import KINDS, attention_figure, save, training_figure
from minitransformer.models import Transformer
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.weights import load_model


def add(commands: Commands) -> None:
    """Add the command `plot`."""
    sub = commands.add(
        "plot",
        plot,
        "draw the loss, the learning rate and the attention of a run (extra: app)",
        makes_files=True,
    )
    trained(sub)
    sub.add_argument(
        "--input", metavar="SEQUENCE", help="show the attention for this input (default: a held-out one)"
    )
    sub.add_argument("--attention", nargs="+", choices=KINDS, help="which to draw (default: all)")
    sub.add_argument("--layer", metavar="N", type=integer, nargs="+", help="draw these layers (default: all)")
    sub.add_argument("--head", metavar="N", type=integer, nargs="+", help="draw these heads (default: all)")


def plot(arguments: argparse.Namespace) -> Answer:
    """Draw the figures of a run into its folder."""
    folder = RunFolder(arguments.folder)
    task, model = folder.settings().task, load_model(folder, weights=arguments.weights)
    figures = {"training": training_figure(folder.path.name, folder.metrics())}
    asked = arguments.input is not None or arguments.attention or arguments.layer or arguments.head
    if asked or isinstance(model, Transformer):
        text = example(task) if arguments.input is None else arguments.input
        kinds = arguments.attention or KINDS
        figures["attention"] = attention_figure(
            encoder_decoder(model), task.vocabulary, text, kinds, arguments.layer, arguments.head
        )
    paths = {name: str(save(figure, folder.path / f"{name}.png")) for name, figure in figures.items()}
    return paths, "\n".join(paths.values())
