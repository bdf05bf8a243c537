"""`minitransformer exercises`: list, start, check; one JSON object; a status that says whether all is right."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minitransformer.cli import main
from minitransformer.exercises import EXERCISES

SOLUTIONS = Path(__file__).parents[1] / "exercises" / "solutions"


@pytest.fixture
def folder(tmp_path, capsys):
    assert main(["exercises", "start", str(tmp_path / "bugs")]) == 0
    capsys.readouterr()
    return tmp_path / "bugs"


def fix(folder, *names):
    for name in names:
        shutil.copyfile(SOLUTIONS / f"{name}.py", folder / f"{name}.py")


def test_list_has_a_line_for_each(capsys):
    assert main(["exercises", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXERCISES) and len(lines) == 10
    assert main(["exercises", "list", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["exercises"]) == list(EXERCISES)


def test_start_writes_ten_files_and_says_how_to_go_on(tmp_path, capsys):
    bugs = tmp_path / "a" / "bugs"
    assert main(["exercises", "start", str(bugs)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"10 files in {bugs}.") and f"exercises check {bugs}" in out
    assert sorted(file.name for file in bugs.iterdir()) == sorted(f"{name}.py" for name in EXERCISES)
    assert main(["exercises", "start", "--json", str(tmp_path / "b")]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 10


def test_check_says_for_each_whether_it_is_fixed_and_what_is_wrong(folder, capsys):
    solved = list(EXERCISES)[::2]
    fix(folder, *solved)
    assert main(["exercises", "check", str(folder)]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.endswith("fixed")] == [[name, "fixed"] for name in solved]
    wrong = [line.split()[0] for line in lines if "still wrong: " in line]
    assert wrong == list(EXERCISES)[1::2] and last == "5 of 10 fixed"
    assert sum(": expected " in line for line in lines) == sum(" hint: " in line for line in lines) == 5


def test_the_status_is_that_of_the_names_asked_for(folder, capsys):
    fix(folder, "loss")
    assert main(["exercises", "check", str(folder), "loss"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 fixed"


def test_json_is_one_object_even_where_the_number_is_none(folder, capsys):
    fix(folder, "adam")
    assert main(["exercises", "check", "--json", str(folder), "adam", "masking"]) == 1
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN: that is not JSON
    adam, masking = answer["exercises"]
    assert not answer["ok"] and adam["ok"] and not masking["ok"]
    assert masking["where"].startswith("context[") and masking["expected"] == 0 and masking["got"] == "nan"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "FOLDER", "layernorm"], "did you mean 'layer_norm'?"),
        (["check", "FOLDER/nowhere"], "no such folder"),
        (["start", "FOLDER"], "is there already"),
        (["start", "FOLDER/loss.py"], "loss.py"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder, capsys, arguments, said):
    assert main(["exercises", *(argument.replace("FOLDER", str(folder)) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and said in err


@pytest.mark.parametrize("arguments", [[], ["fix"], ["check"]])
def test_a_command_that_is_none_is_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["exercises", *arguments])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_ends_a_check_without_a_traceback(folder):
    """A terminal sends it to all processes of the command; the one that runs a file does not hear it."""
    heard = "signal.signal(signal.SIGINT, lambda *_: print('heard', flush=True))"
    source = f"import signal\n{heard}\nprint('begun', flush=True)\nwhile True:\n    pass\n"
    (folder / "dropout.py").write_text(source)
    command = [sys.executable, "-m", "minitransformer", "exercises", "check", str(folder), "dropout"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stderr.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_check_that_is_killed_leaves_no_process_behind(folder):
    (folder / "dropout.py").write_text("print('begun', flush=True)\nwhile True:\n    pass\n")
    command = [sys.executable, "-m", "minitransformer", "exercises", "check", str(folder), "dropout"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "begun\n"
    process.kill()
    process.communicate(timeout=30)  # which ends when no process holds the pipe open
    assert process.returncode == -signal.SIGKILL


def test_help_says_that_the_files_are_run(capsys):
    with pytest.raises(SystemExit):
        main(["exercises", "check", "--help"])
    assert "file is run" in capsys.readouterr().out
