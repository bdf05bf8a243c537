"""`minitransformer plot`: pictures in the run's folder."""

import os
import sys

import pytest
from command_line import assert_refused, call, the_object
from drawn_models import size_of_png


def test_plot_draws_into_the_run(capsys, run):
    pytest.importorskip("matplotlib")
    assert call("plot", run, "--json") == 0
    answer = the_object(capsys)
    assert answer
    for path in answer.values():
        with open(path, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert {os.path.dirname(path) for path in answer.values()} == {str(run)}
    assert call("plot", run, "--input", "1 2 3") == 0
    assert capsys.readouterr().out.splitlines() == list(answer.values())


@pytest.mark.parametrize("text", ["3 99 4", " ".join(["3"] * 40), ""], ids=["unknown", "too long", "empty"])
def test_what_plot_cannot_use_is_refused_before_anything_is_drawn(capsys, run, tmp_path, text):
    pytest.importorskip("matplotlib")
    assert_refused(capsys, tmp_path, ["plot", run, "--input", text])


def test_some_layers_and_heads_alone_make_a_smaller_picture(capsys, run):
    pytest.importorskip("matplotlib")
    sizes = []
    for chosen in ([], ["--attention", "cross", "--layer", "1", "--head", "2"]):
        assert call("plot", run, *chosen) == 0
        sizes.append(size_of_png(run / "attention.png"))
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("chosen", ["--layer", "--head"])
def test_a_layer_or_a_head_that_is_not_there_is_refused(capsys, run, tmp_path, chosen):
    pytest.importorskip("matplotlib")
    assert_refused(capsys, tmp_path, ["plot", run, chosen, "3"], f"{chosen[2:]}s", "got 3")


def test_an_unknown_kind_of_attention_is_refused(capsys, run, tmp_path):
    pytest.importorskip("matplotlib")
    assert_refused(capsys, tmp_path, ["plot", run, "--attention", "crosses"], "crosses", "cross")


def test_plot_without_matplotlib_says_what_to_install(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_refused(capsys, tmp_path, ["plot", run], "matplotlib", "pip install", "[app]")


def test_plot_of_a_run_without_reports_is_refused(capsys, run, tmp_path):
    pytest.importorskip("matplotlib")
    (run / "metrics.jsonl").unlink()
    assert_refused(capsys, tmp_path, ["plot", run], "metrics.jsonl")
