"""The pytest plugin, in suites of its own: what a failed check shows, and that other suites do not notice it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gradcheck_layers import Affine, x

import minitransformer as mt
from minitransformer.pytest_plugin import AssertGradients

SUITE = """
import numpy as np

x = np.random.default_rng(0).normal(size=(2, 3))

class Square:
    factor = 2
    def forward(self, x):
        return x * x, x
    def backward(self, dy, x):
        return self.factor * dy * x

class Wrong(Square):
    factor = 3

def test_right(gradcheck):
    assert gradcheck(Square(), x, method="complex").layer == "Square"
    assert gradcheck.function(np.sin, lambda dy, x: dy * np.cos(x), x).ok

def test_wrong_layer(gradcheck):
    gradcheck(Wrong(), x)  # the line that fails

def test_wrong_function(gradcheck):
    gradcheck.function(np.sin, lambda dy, x: -dy * np.cos(x), x)
"""


def suite(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest on a file with this text, the plugin loaded as pytest loads it."""
    (folder / "test_it.py").write_text(text)
    plugin = ["-p", "minitransformer.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *options, str(folder)]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=quiet)


def test_a_failed_check_shows_the_table_the_hint_and_the_line_of_the_test(tmp_path: Path) -> None:
    run = suite(tmp_path, SUITE)
    assert "1 passed" in run.stdout and "2 failed" in run.stdout
    assert "Wrong: WRONG (central differences, 6 numbers" in run.stdout
    assert "every entry is 1.5 times what it should be" in run.stdout
    assert "sin: WRONG" in run.stdout and "every entry has the wrong sign" in run.stdout
    assert "the line that fails" in run.stdout and "raise AssertionError" not in run.stdout
    assert "pytest_plugin.py" not in run.stdout


def test_a_suite_that_does_not_use_the_plugin_loads_nothing_of_it(tmp_path: Path) -> None:
    text = "import sys\ndef test_nothing():\n    print(*sys.modules)\n"
    run = suite(tmp_path, text, "-s", "-W", "error")
    assert run.returncode == 0, run.stdout
    assert "minitransformer.pytest_plugin" in run.stdout
    assert "numpy" not in run.stdout and "minitransformer.gradcheck" not in run.stdout


def test_a_fixture_of_the_suite_comes_first(tmp_path: Path) -> None:
    text = (
        "import pytest\n@pytest.fixture\ndef gradcheck():\n    return 3\n"
        "def test_mine(gradcheck):\n    assert gradcheck == 3\n"
    )
    assert suite(tmp_path, text).returncode == 0


def test_the_plugin_is_registered_for_pytest_to_find() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    section = project.split("[project.entry-points.pytest11]\n")[1].split("\n\n")[0]
    assert '"minitransformer.pytest_plugin" = "minitransformer.pytest_plugin"' in section


def test_checks_return_their_report_and_pass_options_on() -> None:
    check = AssertGradients()
    assert check(Affine(), x(2, 7, 3), method="complex").method == "complex"
    report = check.function(np.sin, lambda dy, x: dy * np.cos(x), x(3), method="complex", seed=3)
    assert report.ok and report.method == "complex"
    with pytest.raises(AssertionError, match=r"^Affine: WRONG"):
        check(Affine(W=np.negative), x(2, 7, 3))
    with pytest.raises(AssertionError, match=r"^sin: WRONG"):
        check.function(np.sin, lambda dy, x: dy, x(3))


def test_what_could_not_be_compared_is_no_pass() -> None:
    with pytest.raises(AssertionError, match="UNDECIDED"):
        mt.gradcheck(mt.layers.ReLU(), np.zeros(3)).raise_if_wrong()
