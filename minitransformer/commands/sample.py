"""`minitransformer sample`: continues a text with a trained language model."""

from __future__ import annotations

import argparse
from itertools import islice

from minitransformer.backend import Array, generator
from minitransformer.commands.common import Answer, Commands, device, integer, trained
from minitransformer.errors import InputError
from minitransformer.inference.continuation import continuation
from minitransformer.inference.sampling import sampler
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.weights import load_model
from minitransformer.streams import write
from minitransformer.system import single_blas_thread
from minitransformer.tasks.vocabulary import SPECIALS
from minitransformer.validation.settings import INT64, require


def add(commands: Commands) -> None:
    """Add the command `sample`."""
    sub = commands.add("sample", sample, "continue a text, with a model that was trained on task chars")
    trained(sub)
    sub.add_argument("prompt", metavar="PROMPT", help="how the text begins")
    sub.add_argument(
        "--length", metavar="N", type=integer, default=500, help="how many characters (default 500)"
    )
    sub.add_argument(
        "--temperature", metavar="T", type=float, default=1.0, help="below 1 favours likely characters"
    )
    sub.add_argument("--top-k", metavar="K", type=integer, help="draw only from the K likeliest characters")
    sub.add_argument(
        "--top-p", metavar="P", type=float, help="draw only from the likeliest, of probability P in all"
    )
    sub.add_argument("--seed", type=integer, default=0, help="seed of the draws (default 0)")
    device(sub)


def sample(arguments: argparse.Namespace) -> Answer:
    """Continue a text; each character is printed as soon as it is drawn."""
    folder = RunFolder(arguments.folder)
    task = folder.settings().task
    require(0 <= arguments.length <= INT64, "length", "a number of characters, 0 or more", arguments.length)
    draw = sampler(generator(arguments.seed), arguments.temperature, arguments.top_k, arguments.top_p)
    model = load_model(folder, arguments.device, arguments.weights)
    if task.has_answers or not isinstance(model, DecoderOnly):
        raise InputError(f"{folder.path}: expected a run of task chars, got {task.name}; try decode")

    def choose(logits: Array) -> Array:
        logits[:, : len(SPECIALS)] = -float("inf")  # these are not characters
        return draw(logits)

    text = arguments.prompt
    prompt = task.vocabulary.encode(text)
    if not arguments.json:
        write(text, end="")
    with single_blas_thread():  # the products of one character are too small to share
        for i in islice(continuation(model, prompt, choose), arguments.length):
            text += task.vocabulary.symbols[i]
            if not arguments.json:
                write(text[-1], end="")
    return {"prompt": arguments.prompt, "text": text}, ""
