"""What `--json` prints has the names that docs/stability.md promises: no fewer, and none that is not listed there."""

import io
import re
from pathlib import Path

import pytest
from command_line import TINY, TINY_CHARS, call, the_object

PAGE = Path(__file__).parents[2] / "docs/stability.md"
ROW = re.compile(r"\| `([a-z ]+)` \| (.+) \|")
OF_FIGURES = {"loss", "n", "exact_match", "token_accuracy", "exact_match_by_length"}


def promised(command: str) -> set[str]:
    """The names in a command's row of the table; those in parentheses belong to the name before them."""
    (text,) = (
        row[2]
        for line in PAGE.read_text("utf-8").splitlines()
        if (row := ROW.fullmatch(line)) and row[1] == command
    )
    return set(re.findall(r"`(\w+)`", re.sub(r"\([^()]*\)", "", text).partition(";")[0]))


def inside(command: str, name: str) -> set[str]:
    """The names in the parentheses after `name`."""
    text = (
        PAGE.read_text("utf-8").partition(f"| `{command}` |")[2].partition(f"`{name}` (")[2].partition(")")[0]
    )
    return set(re.findall(r"`(\w+)`", text))


def test_train_evaluate_and_average(capsys, tmp_path):
    run = tmp_path / "run"
    assert call("train", "sort", "--json", "--out", run, "--set", *TINY) == 0
    answer = the_object(capsys)
    assert set(answer) == promised("train") and set(answer["best"]) == inside("train", "best")
    assert set(answer["sets"]["test"]) == OF_FIGURES
    assert call("evaluate", run, "--json") == 0
    answer = the_object(capsys)
    assert set(answer) == promised("evaluate") and set(answer["sets"]["test"]) == OF_FIGURES
    assert call("average", run, "--json") == 0
    assert set(the_object(capsys)) == promised("average")


def test_train_without_answers(capsys, tmp_path):
    assert call("train", "chars", "--json", "--out", tmp_path / "run", "--set", *TINY_CHARS) == 0
    assert set(the_object(capsys)) == promised("train") - {"exact_match", "token_accuracy"}


def test_decode_translate_and_explain(capsys, run, monkeypatch):
    assert call("decode", run, "1 2 3", "--json") == 0
    assert set(the_object(capsys)) == promised("decode")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1 2 3\n99\n")))
    assert call("translate", run, "--json", "--bad-lines", "skip") == 0
    answer = the_object(capsys)
    assert set(answer) == promised("translate") and list(answer["left_out"]) == ["2"]
    assert set(answer["lines"][0][0]) == inside("translate", "lines")
    assert call("explain", run, "--json") == 0
    assert set(the_object(capsys)) == promised("explain")


def test_plot(capsys, run):
    pytest.importorskip("matplotlib")
    assert call("plot", run, "--json") == 0
    assert set(the_object(capsys)) == promised("plot")


def test_sample(capsys, chars_run):
    assert call("sample", chars_run, "ab", "--length", 3, "--json") == 0
    assert set(the_object(capsys)) == promised("sample")


def test_gradcheck(capsys):
    assert call("gradcheck", "Linear", "--json") == 0
    answer = the_object(capsys)
    assert set(answer) == promised("gradcheck") and set(answer["worst"]) == inside("gradcheck", "worst")
    assert set(answer["layers"][0]) == inside("gradcheck", "layers")


def test_bench(capsys):
    assert call("bench", "--batch", 2, "--length", 3, "--steps", 2, "--processes", 1, "--json") == 0
    answer = the_object(capsys)
    assert set(answer) == promised("bench") and set(answer["layers"][0]) == inside("bench", "layers")


def test_exercises(capsys, tmp_path):
    assert call("exercises", "list", "--json") == 0
    assert set(the_object(capsys)) == promised("exercises list")
    assert call("exercises", "start", tmp_path / "files", "--json") == 0
    assert set(the_object(capsys)) == promised("exercises start")
    assert call("exercises", "check", tmp_path / "files", "loss", "--json") == 1
    answer = the_object(capsys)
    assert set(answer) == promised("exercises check")
    assert set(answer["exercises"][0]) == inside("exercises check", "exercises")
