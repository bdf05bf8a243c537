"""The `minitransformer` command line: parses arguments, runs a command, prints its answer or its error."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from minitransformer import __version__
from minitransformer.backend import out_of_memory
from minitransformer.commands import bench, evaluate, exercises, gradcheck, plot, train, translate
from minitransformer.commands.common import Commands
from minitransformer.errors import MinitransformerError
from minitransformer.parallel.job import as_one, say
from minitransformer.runs.interrupt import Interrupted

EXIT_WRONG = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, or 1 for a wrong gradient or exercise, 2 for bad input, 130 when interrupted."""
    return as_one(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        answer, text = arguments.run(arguments)
        if arguments.json or text is not None:
            _print(json.dumps(answer) if arguments.json else text)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MinitransformerError, OSError, ImportError) as error:
        say(_error(error))
        return EXIT_BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        say(_error("not enough memory; try a smaller model, or a smaller batch_tokens"))
        return EXIT_BAD_INPUT
    except Interrupted:
        say("Stopped and saved. Continue with the same command and --resume.")
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0 if answer.get("ok", True) else EXIT_WRONG


def _print(text: str) -> None:
    """Print `text`; in UTF-8, as `translate` always does, if the terminal's encoding lacks a symbol."""
    try:
        print(text, flush=True)
    except UnicodeEncodeError:
        sys.stdout.buffer.write(f"{text}\n".encode())
        sys.stdout.buffer.flush()


def _error(message: object) -> str:
    """An error message on one line, even if a file name or an argument in it has several."""
    return f"minitransformer: error: {' '.join(str(message).split())}"


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports an error on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{_error(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The argument parser, with all commands."""
    top = _Parser(
        prog="minitransformer",
        description="The Transformer of 'Attention Is All You Need' in NumPy, forward and backward by hand.",
    )
    top.add_argument("--version", action="version", version=f"minitransformer {__version__}")
    commands = Commands(top)
    for module in (train, evaluate, translate, plot, gradcheck, bench, exercises):
        module.add(commands)
    return top
