"""`minitransformer exercises`: short files with a fault to find in each."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from minitransformer.commands.common import Answer, Commands, folder_word, program
from minitransformer.exercises import EXERCISES, about, check, start
from minitransformer.streams import write


def add(commands: Commands) -> None:
    """Add the command `exercises` and its three actions."""
    actions = commands.group("exercises", "find the bug: ten short files, each with one fault", "ACTION")
    actions.add("list", list_exercises, "say what the ten files are about")
    sub = actions.add("start", start_exercises, "write the ten files into a folder", makes_files=True)
    sub.add_argument("folder", metavar="FOLDER", type=Path, help="a folder that has none of these files yet")
    sub = actions.add("check", check_exercises, "run the files, and say which faults are fixed", _epilog())
    sub.add_argument("folder", metavar="FOLDER", type=Path, help="where the files are")
    sub.add_argument("names", metavar="NAME", nargs="*", help="which to check (default: all ten)")


def _epilog() -> str:
    names = textwrap.fill(", ".join(EXERCISES), 100, initial_indent="  ", subsequent_indent="  ")
    return (
        f"exercises:\n{names}\n"
        "Each file is run as a Python program, so check only files that you would run. What a file prints goes to\n"
        "standard error. The exit status is 1 if one of them is still wrong.\n "
    )


def list_exercises(arguments: argparse.Namespace) -> Answer:
    """List the exercises, with a line on the layer of each."""
    abouts = {name: about(name) for name in EXERCISES}
    return {"exercises": abouts}, "\n".join(f"{name:<18}{text}" for name, text in abouts.items())


def start_exercises(arguments: argparse.Namespace) -> Answer:
    """Write the files with the faults."""
    files = [str(file) for file in start(arguments.folder)]
    return {"files": files}, (
        f"{len(files)} files in {arguments.folder}. Each has one fault, and says what its layer should do and "
        f"what was noticed.\nFix them, and see:  {program()} exercises check {folder_word(arguments.folder)}"
    )


def check_exercises(arguments: argparse.Namespace) -> Answer:
    """Grade the reader's files; print each verdict as soon as it is known."""
    verdicts = []
    for verdict in check(arguments.folder, arguments.names):
        verdicts.append(verdict)
        if not arguments.json:
            write(str(verdict))
    n_fixed = sum(verdict.ok for verdict in verdicts)
    answer = {"ok": n_fixed == len(verdicts), "exercises": [verdict._asdict() for verdict in verdicts]}
    return answer, f"{n_fixed} of {len(verdicts)} fixed"
