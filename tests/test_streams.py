"""Closed and broken streams, and terminals that lack a symbol: nothing is lost, and nobody sees a traceback."""

import argparse
import io
import os
import shutil
import subprocess
import sys

import pytest
from command_line import call

import minitransformer as mt
from minitransformer.cli import parser

COMMAND = [sys.executable, "-m", "minitransformer"]
QUICK = "n_layers=1 d_model=8 d_ff=8 steps=60 log_every=3 evaluate_every=20 epoch_size=50 test_size=5".split()  # noqa: SIM905


def shell(script: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    """A shell script that starts the command as "$@"."""
    command = ["bash", "-c", script, "bash", *COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=120
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "run"
    done = shell('"$@"', "train", "copy", "--out", path, "--set", *QUICK)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize(
    "script",
    [
        '"$@" 2>&1 | head -1; exit ${PIPESTATUS[0]}',
        '"$@" 2>&-',
        '"$@" >&-',
        '"$@" <&- >&- 2>&-',
        '"$@" > /dev/full',
    ],
)
def test_a_training_goes_on_when_nobody_listens(tmp_path, script):
    path = tmp_path / "run"
    done = shell(script, "train", "copy", "--out", path, "--set", *QUICK)
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert mt.RunFolder(path).load()[1]["step"] == 60 and (path / "result.json").exists()


def test_with_standard_error_closed_it_stays_off_standard_output(tmp_path):
    done = shell('"$@" 2>&-', "train", "copy", "--out", tmp_path / "run", "--set", *QUICK)
    assert "step" not in done.stdout.split("exact match")[0]
    done = shell('"$@" 2>&-', "decode", tmp_path / "nowhere", "3")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("command", ["decode", "evaluate", "translate"])
def test_an_answer_that_cannot_be_written_is_an_error(run, command):
    arguments = {"decode": ["1 2 3 4 5 6 7 8 9 10"]}.get(command, [])
    done = shell('echo "1 2" | "$@" >&-', command, run, *arguments)
    expected = "minitransformer: error: standard output: expected an open stream, got a closed one\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_a_closed_standard_input_is_said(run):
    done = shell('"$@" <&-', "translate", run)
    expected = "minitransformer: error: standard input: expected an open stream, got a closed one\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_a_full_disk_at_the_other_end_of_standard_output_is_said(run):
    done = shell('"$@" > /dev/full', "decode", run, "1 2 3 4 5 6 7 8 9 10")
    assert "standard output" in done.stderr
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def all_parsers(parser, words=()):
    """Every parser of the command line, with the words that lead to it, and whether it runs something."""
    below = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    yield words, not below
    for choices in below:
        for name, sub in choices.items():
            yield from all_parsers(sub, (*words, name))


# Each command, with its arguments. In braces: the folder of a run of task translate, that of one of task chars, that of
# the exercises, and a name that is still free. All their names have letters that no encoding below has all of.
CALLS = {
    "train": "translate --out {new} --set steps=2 warmup_steps=1 epoch_size=20 test_size=4 d_model=8 d_ff=8 max_len=16 "
    "processes=1",
    "evaluate": "{run}",
    "average": "{run}",
    "decode": "{run} |the small red house falls",
    "translate": "{run} --beam 1",
    "sample": "{chars} é --length 20",
    "plot": "{run} --attention cross --input |the house falls",
    "explain": "{run} --layers 1 --input |the house falls",
    "gradcheck": "Linear",
    "bench": "--batch 2 --length 4 --steps 1 --processes 1",
    "exercises list": "",
    "exercises start": "{new}",
    "exercises check": "{exercises} dropout",
}
STATUS = {"exercises check": 1}  # the fault is still in it
ENCODINGS = ["ascii", "latin-1", "cp437", "cp874", "cp1252"]
LETTERS = "ñ-ไทย-行"


def call_in(encoding, monkeypatch, *words, given=b""):
    """The exit status of the command, and what it writes to its two streams, as Python opens them in an encoding."""
    out, err = io.BytesIO(), io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding))
        patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding, "strict"))
        patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding, "backslashreplace"))
        status = call(*words)
        sys.stdout.flush()
        sys.stderr.flush()
        return status, out.getvalue(), err.getvalue()


def can_be_read(text, encoding):
    """Whether each line is in the encoding, or, if that lacks a letter of it, in UTF-8."""
    for line in text.splitlines():
        try:
            line.decode(encoding)
        except UnicodeDecodeError:
            line.decode("utf-8")
    return True


@pytest.fixture(scope="module")
def with_letters(tmp_path_factory, translate_run, trained_on_text):
    """What stands in braces in CALLS."""
    folder = tmp_path_factory.mktemp(LETTERS)
    names = {name: folder / f"{name}-{LETTERS}" for name in ("run", "chars", "exercises")}
    shutil.copytree(translate_run, names["run"])
    shutil.copytree(trained_on_text, names["chars"])
    assert call("exercises", "start", names["exercises"]) == 0
    return names


def test_every_command_is_called_here():
    assert CALLS.keys() == {" ".join(words) for words, runs in all_parsers(parser()) if runs}


@pytest.mark.usefixtures("signal_handlers")
@pytest.mark.parametrize("command", CALLS)
def test_every_command_writes_whatever_the_encoding(command, with_letters, tmp_path, monkeypatch):
    if command == "plot":
        pytest.importorskip("matplotlib")
    first, *last = CALLS[command].split("|")
    for encoding in ENCODINGS:
        names = {**with_letters, "new": tmp_path / f"{encoding}-{LETTERS}"}
        words = [word.format(**names) for word in first.split()] + last
        given = b"the small house does not fall\nthe dog sees the red cat\n"
        status, out, err = call_in(encoding, monkeypatch, *command.split(), *words, given=given)
        assert status == STATUS.get(command, 0), err
        assert b"Traceback" not in out + err
        assert out and can_be_read(out, encoding) and can_be_read(err, encoding)


@pytest.mark.parametrize("words", [" ".join(words) for words, _ in all_parsers(parser())])
def test_help_is_written_whatever_the_encoding(words, monkeypatch):
    for encoding in ENCODINGS:
        status, out, err = call_in(encoding, monkeypatch, *words.split(), "--help")
        assert status == 0 and err == b"" and len(out) > 100 and can_be_read(out, encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp874", "utf-16"])
def test_the_encoding_of_the_environment_counts(encoding):
    done = subprocess.run(
        [*COMMAND, "bench", "--help"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0 and done.stderr == b"" and len(done.stdout) > 300


def test_a_reader_who_has_seen_enough_ends_the_command_quietly(run):
    done = shell('"$@" --help | head -1 && "$@" list | head -1', "exercises")
    assert done.stderr == "" and done.stdout.count("\n") == 2


def test_a_folder_whose_name_is_no_text_can_be_used(run, tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.symlink(run, name)
    for command in (["average"], ["evaluate", "--json"], ["evaluate"]):
        done = subprocess.run([*COMMAND, command[0], name, *command[1:]], capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
