"""`minitransformer translate` and `decode`: the answers of a trained model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from minitransformer.commands.common import Answer, Commands, at_work, device, integer, search, trained
from minitransformer.errors import InputError
from minitransformer.files import refuse_utf_16
from minitransformer.inference.beam import Hypothesis, check_search
from minitransformer.inference.lines import Translation, translate_lines
from minitransformer.inference.translation import longest_source, n_best, translate
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.weights import load_model
from minitransformer.streams import say, standard_input, write
from minitransformer.tasks import Task
from minitransformer.validation.settings import require

CHUNK = 1 << 18  # the most bytes that are read at a time


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
        "translate standard input with a trained model, line by line",
        _translate_epilog(),
    )
    trained(sub)
    search(sub, 4)
    sub.add_argument(
        "--bad-lines",
        choices=("stop", "skip"),
        default="stop",
        help="for a line that cannot be translated: stop (default), or leave its line of output empty and say so",
    )
    sub.add_argument(
        "--n-best", metavar="N", type=integer, help="print the N best of each line, with their scores"
    )
    device(sub)


def _translate_epilog() -> str:
    return (
        "A line of input, like a line of the task's source files, becomes a line of output. Lines that come slowly\n"
        "are answered one by one, lines that come together in batches. --n-best prints lines of number, score and\n"
        "translation, with tabs between them.\n"
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
    """Translate standard input; each translation is printed as soon as the lines that came with it are done."""
    folder, n, beam, alpha = RunFolder(arguments.folder), arguments.n_best, arguments.beam, arguments.alpha
    check_search(beam, alpha)
    require(n is None or 1 <= n <= beam, "n-best", f"1 … {beam}, the beam", n)
    vocabulary = answering(folder).vocabulary
    model = load_model(folder, arguments.device, arguments.weights)
    source, answers, left_out = standard_input(), list[list[Translation]](), dict[int, str]()
    first = 1  # the number of the next line
    with at_work(model) as replicas:

        def search(sources: list[list[int]]) -> list[list[Hypothesis]]:
            return replicas.in_shares(n_best, sources, beam, alpha)

        for lines in _parts_of(source):
            found, bad = translate_lines(search, vocabulary, lines, longest_source(model))
            stop = min(bad, default=None) if arguments.bad_lines == "stop" else None
            best = [translations[: n or 1] for translations in found[:stop]]
            answers += best if arguments.json else []
            printed = [line for i, x in enumerate(best, first) for line in _translated(i, x, n is not None)]
            if printed and not arguments.json:
                write("\n".join(printed), utf8=True)
            if stop is not None:
                raise InputError(f"line {first + stop}: {bad[stop]} (--bad-lines skip goes on)")
            for i, fault in bad.items():
                left_out[first + i] = fault
                say(f"left out, line {first + i}: {fault}")
            first += len(lines)
            if sys.stderr.isatty() and not (sys.stdout and sys.stdout.isatty()):
                say(f"{first - 1:,} lines translated")
    listed = [[x._asdict() for x in best] for best in answers]
    return {"run": str(folder.path), "lines": listed, "left_out": left_out}, None


def _translated(number: int, translations: list[Translation], n_best: bool) -> list[str]:
    """The lines to print for line `number` of the input."""
    if n_best:
        return [f"{number}\t{score:.4f}\t{text}" for text, score in translations]
    return [translations[0].text if translations else ""]


def _parts_of(file: Any, n: int = 1000) -> Iterator[list[str]]:
    """The lines of a file as they come, up to `n` that are there together at a time.

    What is not UTF-8 in a line becomes surrogates. Raises InputError for a file in UTF-16.
    """
    rest, first = b"", True
    while chunk := file.read1(CHUNK):  # reads what is there, and waits only if there is nothing
        *lines, rest = (rest + chunk).split(b"\n")
        if lines and first:
            lines[0], first = _without_mark(lines[0]), False
        for i in range(0, len(lines), n):
            yield [_as_text(line) for line in lines[i : i + n]]
    if rest:
        yield [_as_text(_without_mark(rest) if first else rest)]


def _without_mark(line: bytes) -> bytes:
    """The first line of a file without UTF-8's byte order mark. Raises InputError for UTF-16's."""
    refuse_utf_16(line)
    return line.removeprefix(b"\xef\xbb\xbf")


def _as_text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").rstrip("\r")
