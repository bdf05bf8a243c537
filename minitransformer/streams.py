"""The standard streams: the one place where the commands read and write them.

What is said on standard error (progress, remarks, errors) never stops the work: if it cannot be written, it is dropped.
What is written to standard output is a command's product: if it cannot be written, that is an error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import BinaryIO

from minitransformer.errors import InputError

CLOSED = "expected an open stream, got a closed one"


def open_closed() -> None:
    """Put /dev/null in place of each stream that was closed at the start, so that no other file takes its number.

    What is written to standard error is then dropped. Standard input and output stay None: `write` and `standard_input`
    raise InputError.
    """
    for _ in range(3):
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def say(line: str) -> None:
    """Write a line to standard error, in one piece: the lines of several ranks come out one after the other.

    (`print` writes the text and the end of the line separately, and another rank's text can come between them.)
    """
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):  # there is none, its reader has gone, or it was closed
        _drop("stderr")


def write(text: str, utf8: bool = False, end: str = "\n") -> None:
    """Write a text and the end of its line to standard output: in UTF-8 if asked to, or if its encoding lacks a symbol.

    Raises InputError if standard output is closed, BrokenPipeError if its reader has gone, and OSError if there is no
    room for it; whatever is written after that is dropped.
    """
    if sys.stdout is None:
        raise InputError(f"standard output: {CLOSED}")
    try:
        line = f"{text}{end}"
        if not utf8:
            line.encode(sys.stdout.encoding or "utf-8", sys.stdout.errors or "strict")
    except UnicodeEncodeError:
        utf8 = True
    try:
        if utf8:
            sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape"))
        else:
            sys.stdout.write(line)
        sys.stdout.flush()
    except OSError as error:
        _drop("stdout")
        error.filename = "standard output"
        raise


def standard_input() -> BinaryIO:
    """Standard input, as bytes. Raises InputError if it is closed."""
    if sys.stdin is None:
        raise InputError(f"standard input: {CLOSED}")
    return sys.stdin.buffer


def _drop(name: str) -> None:
    # The descriptor, too: what is left in the buffer is flushed when Python ends, and must not fail then.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(AttributeError, OSError, ValueError):
        os.dup2(nowhere, getattr(sys, name).fileno())
        return
    setattr(sys, name, open(nowhere, "w", encoding="utf-8"))  # noqa: SIM115
