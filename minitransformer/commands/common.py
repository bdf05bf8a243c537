"""Helpers that several commands use, for their parsers, their common arguments, and pieces of their output."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minitransformer.errors import InputError
from minitransformer.inference.translation import BATCH_TOKENS
from minitransformer.models import Transformer
from minitransformer.models.families import Model
from minitransformer.one_stack_config import family_of
from minitransformer.parallel.replicas import Replicas, default_processes
from minitransformer.runs.evaluation import final_sets, held_out
from minitransformer.runs.run_folder import WEIGHTS
from minitransformer.system import keep_freed_memory
from minitransformer.tasks import Task

Answer = tuple[dict[str, Any], str | None]  # the output with --json, and without it


class Commands:
    """The commands below a parser: `add` adds one with arguments, `group` one with commands of its own."""

    def __init__(self, parser: argparse.ArgumentParser, metavar: str = "COMMAND") -> None:
        self._parsers = parser.add_subparsers(metavar=metavar, required=True)

    def add(
        self,
        name: str,
        run: Callable[[argparse.Namespace], Answer],
        help: str,
        epilog: str = "",
        makes_files: bool = False,
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = self._parsers.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        sub.set_defaults(run=run, makes_files=makes_files)
        return sub

    def group(self, name: str, help: str, metavar: str) -> Commands:
        return Commands(self._parsers.add_parser(name, help=help), metavar)


def integer(text: str) -> int:
    """The whole number that a text stands for; "1e4" is one too. Raises ValueError for any other text."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def device(sub: argparse.ArgumentParser) -> None:
    """Add the argument --device."""
    sub.add_argument("--device", default="cpu", help="cpu (default) or cuda")


def trained(sub: argparse.ArgumentParser) -> None:
    """Add the arguments for a trained model: the run folder, and the choice of its weights."""
    sub.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    sub.add_argument(
        "--weights",
        choices=WEIGHTS,
        default="last",
        help="the last weights (default), the best on the validation set, or the average of several checkpoints",
    )


def search(sub: argparse.ArgumentParser, beam: int) -> None:
    """Add the arguments of beam search; `beam` is the default width."""
    how = "1 is greedy" + ", the default" * (beam == 1)
    sub.add_argument(
        "--beam", metavar="K", type=integer, default=beam, help=f"width of the beam search ({how})"
    )
    sub.add_argument(
        "--alpha",
        metavar="A",
        type=float,
        default=0.6,
        help="length penalty of the search (default: the paper's 0.6)",
    )


def example(task: Task) -> str:
    """A held-out source sequence, as a user would type it."""
    sets = held_out(task)
    source, _ = sets[final_sets(sets)[0]][0]
    return task.vocabulary.decode(source)


def encoder_decoder(model: Model) -> Transformer:
    """`model`, if it is an encoder-decoder, as in the paper. Raises InputError for a model of another family."""
    if not isinstance(model, Transformer):
        raise InputError(f"expected a run of an encoder-decoder, got one of family={family_of(model.config)}")
    return model


@contextmanager
def at_work(model: Model) -> Iterator[Replicas]:
    """A context in which replicas of the model work in as many processes as pay off on this machine."""
    replicas = Replicas(model, default_processes(model, BATCH_TOKENS))
    keep_freed_memory()
    with replicas.processes():
        yield replicas


def quoted(text: str) -> str:
    """`text` as an argument on a command line."""
    if re.fullmatch(r"[\w@%+=:,./-]+", text):
        return text
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def folder_word(path: Path) -> str:
    """A folder as an argument on a command line, where it must not be taken for an option."""
    return quoted(f"./{path}" if str(path).startswith("-") else str(path))


def program() -> str:
    """The program's name, as it was called."""
    return "python -m minitransformer" if sys.argv[0].endswith("__main__.py") else quoted(sys.argv[0])
