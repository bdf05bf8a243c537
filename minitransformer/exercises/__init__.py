"""Find the bug: ten short files, each with one fault of a kind that Transformers written by hand have had.

faulty/       the files that `start` copies; they are not part of the package, and nothing imports them from here
grading.py    the tests that each file has to pass
__main__.py   grades one file, in a process of its own, so that an endless loop in it can be stopped
"""

from __future__ import annotations

import ast
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from minitransformer.errors import InputError
from minitransformer.exercises.grading import EXERCISES
from minitransformer.files import write_bytes
from minitransformer.validation.settings import one_of

__all__ = ["EXERCISES", "Verdict", "about", "check", "start"]

FAULTY = Path(__file__).parent / "faulty"
PACKAGE_PLACE = str(Path(__file__).parents[2])
TIME_LIMIT = 20.0  # seconds for one file; a right one takes less than one


class Verdict(NamedTuple):
    """The verdict on one file, with the worst number if there is one."""

    name: str
    ok: bool
    found: str = ""
    where: str = ""
    expected: float | str | None = None  # a string if it is not finite
    got: float | str | None = None
    hint: str = ""

    def __str__(self) -> str:
        if self.ok:
            return f"{self.name:<18}fixed"
        lines = [f"{self.name:<18}still wrong: {self.found}"]
        if self.where:
            lines.append(f"{self.where}: expected {_short(self.expected)}, got {_short(self.got)}")
        lines += [f"hint: {self.hint}"] if self.hint else []
        return f"\n{'':<20}".join(lines)


def about(name: str) -> str:
    """A line that says what the layer of an exercise is: the first of its file."""
    source = (FAULTY / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def start(folder: Path) -> list[Path]:
    """Copy the ten files into `folder`. Raises InputError, and writes nothing, if one of them is there already."""
    files = [folder / f"{name}.py" for name in EXERCISES]
    if there := [file for file in files if file.exists() or file.is_symlink()]:
        raise InputError(f"{there[0]} is there already, and would be overwritten: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        write_bytes(file, (FAULTY / file.name).read_bytes(), new=True)
    return files


def check(folder: Path, names: Sequence[str] = ()) -> Iterator[Verdict]:
    """Grade the files of `folder` called `names` (none: all ten), one after another.

    Raises ConfigError for a name that is not an exercise, InputError if there is no such folder.
    """
    for name in names:
        one_of("exercise", name, EXERCISES)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; make it: minitransformer exercises start {shlex.quote(str(folder))}"
        )
    return (_verdict(name, folder / f"{name}.py") for name in names or EXERCISES)


def _verdict(name: str, file: Path) -> Verdict:
    if not file.is_file():
        return Verdict(name, False, f"no file {file}")
    # -P: nothing in the current folder, such as a numpy.py, is imported, unless this package itself is there.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "minitransformer.exercises", name]
    place = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), PACKAGE_PLACE]))
    try:
        run = subprocess.run(
            [*command, str(file.resolve())],
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=TIME_LIMIT,
            env={**os.environ, "PYTHONPATH": place},
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the other one
        )
    except subprocess.TimeoutExpired:
        return Verdict(name, False, f"not done after {TIME_LIMIT:.0f} seconds: is there an endless loop?")
    try:
        return Verdict(name, **json.loads(run.stdout))
    except (ValueError, TypeError):  # no output, or not what grade() returns
        return Verdict(name, False, f"Python stopped with exit status {run.returncode} while it ran the file")


def _short(x: float | str | None) -> str:
    return f"{x:.6g}" if isinstance(x, float) else str(x)
