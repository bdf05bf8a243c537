"""Layers and functions in users' files: what a file may hold, and what is said of one that cannot be checked."""

from __future__ import annotations

from pathlib import Path

import pytest
from messages import message_of

import minitransformer as mt
from minitransformer.checks.own import check_own

FILE = """
import numpy as np
import minitransformer as mt
import beside_it

x = np.random.default_rng(0).normal(size=(2, 3))
print("some words of the file")

class Scale:
    def __init__(self, factor):
        self.W, self.factor = mt.Parameter(np.ones(3)), factor
    def forward(self, x):
        return x * self.W.data, x
    def backward(self, dy, x):
        self.W.grad += self.factor * (dy * x).sum(0)
        return dy * self.W.data

right = (Scale(1), x)
def wrong():
    return Scale(2), x

functions = (np.sin, lambda dy, x: dy * np.cos(x), x)
loss = (lambda p: ((p["W"] ** 2).sum(), {"W": 2 * p["W"]}), None, {"W": x})
absolute = (np.abs, lambda dy, x: dy * np.sign(x), x)
number = 3
nothing = ()
def fails():
    return 1 / 0
def fails_later():
    def f(x):
        raise KeyError("mine")
    return f, f, x
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("sys.path", __import__("sys").path[:])
    (tmp_path / "beside_it.py").write_text("")
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def test_a_layer_a_pair_of_functions_and_a_loss_are_checked_by_both_methods(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, ok in (("right", True), ("wrong", False), ("functions", True), ("loss", True)):
        reports = check_own(f"{file}:{name}", seed=0)
        assert [(r.method, r.ok) for r in reports] == [("central", ok), ("complex", ok)]
        assert [row.name for row in reports[0].wrong] == ([] if ok else ["W"])
    out, err = capsys.readouterr()
    assert out == "" and "some words of the file" in err


def test_what_is_not_analytic_is_checked_by_central_differences_and_a_note_says_so(file: str) -> None:
    (report,) = check_own(f"{file}:absolute", seed=0)
    assert report.ok and report.notes[0].startswith("not checked by complex steps: forward: ")


def test_the_seed_is_passed_on(file: str) -> None:
    def analytic(seed: int) -> list[float]:
        return [report.rows[0].analytic for report in check_own(f"{file}:functions", seed)]

    assert analytic(1) == analytic(1) and all(a != b for a, b in zip(analytic(1), analytic(2), strict=True))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "number",
            "mine.py:number: expected a tuple (layer, input, ...) or (f, f_backward, array, ...), or a function",
        ),
        ("Scale", "that returns one, got <class "),
        ("nothing", "that returns one, got ()"),
        ("no_such_name", "mine.py: expected a 'no_such_name' in it, found none"),
        ("fails", "mine.py: line 28: ZeroDivisionError: division by zero"),
        ("fails_later", "mine.py: line 31: KeyError: 'mine'"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(file: str, name: str, message: str) -> None:
    found = message_of(mt.InputError, check_own, f"{file}:{name}", 0)
    assert message in found and "\n" not in found


def test_a_file_that_is_not_there_or_no_python_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = (\n")
    assert "broken.py: line 1: SyntaxError: " in message_of(
        mt.InputError, check_own, f"{tmp_path}/broken.py:x", 0
    )
    assert "FileNotFoundError" in message_of(mt.InputError, check_own, f"{tmp_path}/none.py:x", 0)


@pytest.mark.parametrize("path", ["mine.py", "./mine.py"])
def test_the_line_is_told_of_a_relative_path_too(
    file: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(file).parent)
    assert "mine.py: line 28: ZeroDivisionError" in message_of(mt.InputError, check_own, f"{path}:fails", 0)


MORE = """
from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass
class Twice:
    factor: float = 2.0
    def forward(self, x):
        return self.factor * x, None
    def backward(self, dy, cache):
        return self.factor * dy

right = (Twice(), np.ones((2, 3)))
def stops():
    raise SystemExit(3)
def inner():
    return 1 / 0
def outer():
    return inner()
def imports():
    import broken_too
"""


def test_a_file_may_have_a_dataclass_and_is_told_where_it_failed(tmp_path: Path) -> None:
    file = tmp_path / "more.py"
    file.write_text(MORE)
    (tmp_path / "broken_too.py").write_text("\n\nx = (\n")
    assert all(report.ok for report in check_own(f"{file}:right", seed=0))
    for name, words in (
        ("stops", "line 16: SystemExit: 3"),
        ("outer", "line 18: ZeroDivisionError: "),
        ("imports", "line 22: SyntaxError: "),
    ):
        found = message_of(mt.InputError, check_own, f"{file}:{name}", 0)
        assert found.startswith(f"{file}: {words}")
