"""Parallel files: each line of one file is a sentence, the same line of the other file its translation."""

from __future__ import annotations

import gzip
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from minitransformer.errors import InputError
from minitransformer.files import open_regular, refuse_utf_16

BLANK = "▁"  # SentencePiece's sign for a blank; one in the text itself would come back as a blank
SHOWN = 5  # how many bad lines a message names


class SentencePair(NamedTuple):
    """A line of the source file, and the same line of the target file."""

    number: int  # counted from 1
    source: str
    target: str


class BadLine(NamedTuple):
    """A line that cannot be used, and why."""

    path: str
    number: int
    fault: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.fault}"


def read_parallel(src: str, tgt: str) -> tuple[list[SentencePair], list[BadLine]]:
    """The pairs of sentences in two files, and the bad lines, which are in no pair.

    Files are UTF-8, plain or gzipped (.gz). Several blanks count as one, and those at the ends of a line are dropped.
    A line is bad if it is empty, not UTF-8, or missing at the end of the shorter file, or if it holds a NUL or U+2581.
    Raises InputError for a file that cannot be read or is in UTF-16, and if both are empty.
    """
    pairs: list[SentencePair] = []
    bad: list[BadLine] = []
    for number, lines in enumerate(zip_longest(read_lines(src), read_lines(tgt)), start=1):
        texts = [as_text(line) for line in lines]
        bad += [
            BadLine(path, number, fault) for path, (_, fault) in zip((src, tgt), texts, strict=True) if fault
        ]
        (source, _), (target, _) = texts
        if source and target:
            pairs.append(SentencePair(number, source, target))
    if not pairs and not bad:
        raise InputError(f"expected one sentence per line in {src} and {tgt}, got two empty files")
    return pairs, bad


def read_lines(path: str) -> list[bytes]:
    """The lines of a file, each ended by a line feed."""
    lines = content_of(path).split(b"\n")
    return lines if lines[-1] else lines[:-1]


def content_of(path: str) -> bytes:
    """The bytes of a text file, plain or gzipped (.gz), less its byte order mark. Raises InputError for a bad one."""
    try:
        with (
            open_regular(Path(path)) as opened,
            gzip.open(opened) if path.endswith(".gz") else opened as file,
        ):
            content = file.read()
            refuse_utf_16(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged, or not gzipped ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # a NUL in the name
        raise InputError(f"{path!r}: cannot be read ({error})") from None
    return content.removeprefix(b"\xef\xbb\xbf")


def as_text(line: bytes | None) -> tuple[str, str]:
    """The text of a line, and what is wrong with it: one of the two is empty."""
    if line is None:
        return "", "missing, though the other file has this line"
    try:
        text = " ".join(line.decode("utf-8").split())
    except UnicodeDecodeError as error:
        return "", f"not UTF-8 (byte {error.start + 1} of the line)"
    fault = fault_of(text)
    return "" if fault else text, fault


def fault_of(text: str) -> str:
    """Why a line of text cannot be used; "" if it can."""
    if not text:
        return "empty"
    if "\0" in text:
        return "a NUL in it, as UTF-16 has; save the file as UTF-8"
    return f"a {BLANK} (U+2581) in it, which stands for a blank in subwords" if BLANK in text else ""


def first_of(bad: list[BadLine]) -> str:
    """The first bad lines, and how many more there are."""
    more = f"; and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    return "; ".join(map(str, bad[:SHOWN])) + more
