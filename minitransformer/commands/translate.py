"""`minitransformer translate` and `decode`: the answers of a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import count, islice
from typing import BinaryIO

from minitransformer.commands.common import Answer, Commands, at_work, device, integer, search, trained
from minitransformer.errors import InputError
from minitransformer.inference.beam import Hypothesis, check_search
from minitransformer.inference.lines import Translation, translate_lines
from minitransformer.inference.translation import n_best, translate
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.weights import load_model
from minitransformer.streams import say, standard_input, write
from minitransformer.tasks import Task
from minitransformer.validation.settings import require


def add(commands: Commands) -> None:
    """Add the commands `decode` and `translate`."""
    sub = commands.add("decode", decode, "answer a sequence with a trained model")
    trained(sub)
    sub.add_argument("text", metavar="SEQUENCE", help='symbols separated by blanks, e.g. "3 1 4 1 5"')
    search(sub, 1)
    device(sub)

    sub = commands.add(
        "translate",
        translate_input,
        "translate standard input, line by line, with a trained model",
        _translate_epilog(),
    )
    trained(sub)
    search(sub, 4)
    sub.add_argument(
        "--n-best", metavar="N", type=integer, help="print the N best of each line, with their scores"
    )
    device(sub)


def _translate_epilog() -> str:
    return (
        "A line of input, as the task's source files have it, becomes a line of output; --n-best prints lines of\n"
        "number, score and translation, with tabs between them.\n"
        "example:\n  minitransformer translate runs/text --weights average < new.en > new.de\n "
    )


def decode(arguments: argparse.Namespace) -> Answer:
    """Answer one sequence."""
    folder = RunFolder(arguments.folder)
    vocabulary = answering(folder).vocabulary
    source = vocabulary.encode(arguments.text)
    check_search(arguments.beam, arguments.alpha)
    model = load_model(folder, arguments.device, arguments.weights)
    answer = vocabulary.decode(translate(model, [source], arguments.beam, arguments.alpha)[0])
    return {"input": arguments.text, "output": answer}, answer


def answering(folder: RunFolder) -> Task:
    """The task of a run. Raises InputError if it has no answers."""
    task = folder.settings().task
    if not task.has_answers:
        raise InputError(f"{folder.path}: task {task.name} has no answers; see minitransformer sample")
    return task


def translate_input(arguments: argparse.Namespace) -> Answer:
    """Translate standard input; each translation is printed as soon as its part of the input is done."""
    folder, n, beam, alpha = RunFolder(arguments.folder), arguments.n_best, arguments.beam, arguments.alpha
    check_search(beam, alpha)
    require(n is None or 1 <= n <= beam, "n-best", f"1 … {beam}, the beam", n)
    vocabulary = answering(folder).vocabulary
    model = load_model(folder, arguments.device, arguments.weights)
    source, answers = standard_input(), list[list[Translation]]()
    first = 1  # the number of the next line
    with at_work(model) as replicas:

        def search(sources: list[list[int]]) -> list[list[Hypothesis]]:
            return replicas.in_shares(n_best, sources, beam, alpha)

        for lines in _parts_of(source, 1 if source.isatty() else 1000):
            found = translate_lines(search, vocabulary, lines, model.config.max_len, first)
            best = [translations[: n or 1] for translations in found]
            if arguments.json:
                answers += best
            else:
                printed = [
                    line for i, x in enumerate(best, first) for line in _translated(i, x, n is not None)
                ]
                write("\n".join(printed), utf8=True)
            first += len(lines)
            if sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty()):
                say(f"{first - 1:,} lines translated")
    return {"run": str(folder.path), "lines": [[x._asdict() for x in best] for best in answers]}, None


def _translated(number: int, translations: list[Translation], n_best: bool) -> list[str]:
    """The lines to print for line `number` of the input."""
    if n_best:
        return [f"{number}\t{score:.4f}\t{text}" for text, score in translations]
    return [translations[0].text if translations else ""]


def _parts_of(file: BinaryIO, n: int = 1000) -> Iterator[list[str]]:
    """The lines of a file, up to `n` at a time. Raises InputError for one that is not UTF-8."""
    for first in count(1, n):
        lines: list[str] = []
        for line in islice(file, n):
            try:
                lines.append(line.decode("utf-8" if lines or first > 1 else "utf-8-sig").rstrip("\r\n"))
            except UnicodeDecodeError:
                raise InputError(f"line {first + len(lines)}: not UTF-8") from None
        if not lines:
            return
        yield lines
