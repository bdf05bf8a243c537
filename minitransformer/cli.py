"""The `minitransformer` command line: parses arguments, runs a command, prints its answer or its error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, NoReturn

from minitransformer import __version__
from minitransformer.backend import out_of_memory
from minitransformer.commands import (
    bench,
    evaluate,
    exercises,
    explain,
    gradcheck,
    plot,
    sample,
    train,
    translate,
)
from minitransformer.commands.common import Commands
from minitransformer.errors import InputError, MinitransformerError
from minitransformer.files import as_json
from minitransformer.parallel.job import as_one
from minitransformer.runs.interrupt import Interrupted
from minitransformer.streams import open_closed, say, write

EXIT_WRONG = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
LONGEST = 6_000  # letters of an error message: the longest path that Linux has, and what is said about it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 for a wrong gradient or exercise, 2 for bad input, 130 when interrupted."""
    open_closed()
    words = sys.argv[1:] if argv is None else argv
    # Only training is one program on all ranks; asking MPI anything would start it, even where there is no job.
    return as_one(lambda: _run(argv), words) if "train" in words[:1] else _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().parse_args(argv)
        answer, text = arguments.run(arguments)
        _write_answer(arguments, answer, text)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        return 0
    except (MinitransformerError, OSError, ImportError) as error:
        say(_error(error))
        return EXIT_BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        say(_error("not enough memory; try a smaller model, batch_tokens, epoch_size or test_size"))
        return EXIT_BAD_INPUT
    except Interrupted as stopped:
        say(str(stopped))
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0 if answer.get("ok", True) else EXIT_WRONG


def _write_answer(arguments: argparse.Namespace, answer: dict[str, Any], text: str | None) -> None:
    """Print the answer of a command. If its product is files, nobody needs to be there to read the answer."""
    if arguments.json:
        write(as_json(answer))
    elif text is not None:
        with suppress(OSError, InputError) if arguments.makes_files else nullcontext():
            write(text)


def _error(message: object) -> str:
    """An error message on one line of bounded length, whatever file names, arguments and settings it quotes."""
    text = " ".join(str(message).split())
    return f"minitransformer: error: {text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}"


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{_error(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        (say if file is sys.stderr else write)(message.removesuffix("\n"))


def parser() -> argparse.ArgumentParser:
    """The argument parser, with all commands."""
    top = _Parser(
        prog="minitransformer",
        description="The Transformer of 'Attention Is All You Need' in NumPy, forward and backward by hand.",
    )
    top.add_argument("--version", action="version", version=f"minitransformer {__version__}")
    commands = Commands(top)
    for module in (train, evaluate, translate, sample, plot, explain, gradcheck, bench, exercises):
        module.add(commands)
    return top
