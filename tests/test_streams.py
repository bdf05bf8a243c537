"""Closed and broken streams, and terminals that lack a symbol: nothing is lost, and nobody sees a traceback."""

import os
import subprocess
import sys

import pytest

import minitransformer as mt

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


@pytest.mark.parametrize("command", ["bench", "train", "translate", "gradcheck"])
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437", "cp874", "cp1252", "utf-16"])
def test_help_is_written_whatever_the_encoding(command, encoding):
    done = subprocess.run(
        [*COMMAND, command, "--help"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}
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
