"""Runs that earlier versions wrote are loaded, used, and trained to their end (tests/fixtures/write_runs.py)."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.runs.run_folder import FORMAT

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUNS = [
    pytest.param(file.parent, name, id=f"{file.parent.name}-{name}")
    for file in sorted(FIXTURES.glob("*/expected.json"))
    for name in json.loads(file.read_text())
]


def test_there_are_runs_of_all_formats_and_the_page_says_which_is_the_newest():
    formats = {json.loads(file.read_text()).get("format") for file in FIXTURES.glob("*/*/config.json")}
    assert {None, *range(1, FORMAT + 1)} <= formats  # the first had no number before 0.1.0 was released
    page = (FIXTURES.parents[1] / "docs" / "stability.md").read_text(encoding="utf-8")
    assert f"`format`, a whole number, {FORMAT} at present" in page


@pytest.mark.parametrize(("version", "name"), RUNS)
def test_a_run_of_an_older_version_is_used_and_goes_on(version, name, tmp_path, monkeypatch, capsys):
    if name == "text" and not (find_spec("sentencepiece") and find_spec("sacrebleu")):
        pytest.skip("needs the extra text")
    shutil.copytree(version, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")  # where the text files of the run lie
    expected = json.loads(Path("expected.json").read_text())[name]

    folder = mt.RunFolder(name)
    how = ["decode"] if folder.settings().task.has_answers else ["sample", "--top-k", "1", "--length", "20"]
    for weights, answer in expected["answers"].items():
        assert main([*how, name, expected["asked"], "--weights", weights]) == 0
        assert capsys.readouterr().out == answer + "\n"
    assert main(["evaluate", name]) == 0
    assert "held-out sequences" in capsys.readouterr().out

    assert folder.load()[1]["step"] == expected["stopped_at"] < expected["steps"]
    assert main(["train", name, "--out", name, "--resume", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == expected["steps"]
    assert result.get("exact_match", 0) >= expected.get("exact_match", 0) - 0.1
    # Another processor rounds differently, and training magnifies that.
    assert folder.metrics()[-1]["loss"] == pytest.approx(expected["loss"], rel=0.05)
