"""`minitransformer evaluate` and `average`: the figures of a run, with the weights that were asked for."""

import json

import pytest
from command_line import assert_refused, call, contents, the_object
from learning_runs import TINY

import minitransformer as mt
from minitransformer import cli
from minitransformer.commands import evaluate, translate


def test_evaluate_measures_the_checkpoint_again(capsys, run):
    before = contents(run)
    assert call("evaluate", run, "--json") == 0
    answer = the_object(capsys)
    valid = mt.RunFolder(run).metrics()[-1]["valid"]
    sets = {"valid": valid, **json.loads((run / "result.json").read_text())["sets"]}
    assert answer == {"run": str(run), "sets": sets}
    assert call("evaluate", run) == 0
    out, err = capsys.readouterr()
    assert f"{answer['sets']['test']['exact_match']:.2%}" in out and err == ""
    assert contents(run) == before


def test_other_sequences_than_the_run_was_to_be_measured_on_are_refused(capsys, chars_run, tmp_path):
    path = json.loads((chars_run / "config.json").read_text())["task_settings"]["text"]
    other = tmp_path / "other.txt"
    other.write_bytes("ab cd\r\nefé\n".encode() * 40)
    config = (chars_run / "config.json").read_text()
    assert call("evaluate", chars_run) == 0
    (chars_run / "config.json").write_text(config.replace(path, str(other)))
    assert_refused(capsys, tmp_path, ["evaluate", chars_run], str(chars_run), "held-out sequences", "restore")


def test_the_command_averages_and_evaluates(tmp_path, capsys):
    path = tmp_path / "run"
    settings = {**TINY, "n_symbols": 7, "max_length": 5, "epoch_size": 40, "test_size": 9}
    command = ["train", "sort", "--json", "--out", str(path), "--set"]
    assert cli.main([*command, *(f"{name}={value}" for name, value in settings.items())]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(path), "--weights", "average"]) == 2
    assert "expected averaged weights" in capsys.readouterr().err
    assert cli.main(["average", str(path), "--last", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(path), "steps": [12, 15]}
    found = {}
    for weights in ("last", "best", "average"):
        assert cli.main(["evaluate", str(path), "--weights", weights, "--beam", "3", "--json"]) == 0
        found[weights] = json.loads(capsys.readouterr().out)["sets"]["test"]
    assert len({figures["loss"] for figures in found.values()}) >= 2
    model, task = mt.load_model(path, weights="average"), mt.RunFolder(path).settings().task
    pairs = task.evaluation_sets(mt.backend.generator(0))["test"]
    right = [mt.translate(model, [source], beam=3)[0] == list(target) for source, target in pairs]
    assert found["average"]["exact_match"] == sum(right) / 9


def test_evaluate_and_decode_search_as_they_are_told_to(run, monkeypatch):
    given, measure = [], evaluate.measure
    monkeypatch.setattr(evaluate, "measure", lambda *a: given.append(a[4:]) or measure(*a))
    monkeypatch.setattr(translate, "translate", lambda *a: given.append(a[2:]) or [[3]])
    for command in (["evaluate", run], ["decode", run, "3 1"]):
        assert call(*command, "--beam", "3", "--alpha", "0.9") == 0
    assert given == [(3, 0.9)] * 3  # "valid", "test", decode


@pytest.mark.parametrize("weights", ["last", "best", "average"])
def test_other_sequences_are_refused_for_all_weights(capsys, chars_run, tmp_path, weights):
    assert call("average", chars_run) == 0
    config = (chars_run / "config.json").read_text()
    other = tmp_path / "other.txt"
    other.write_bytes("ab cd\r\nefé\n".encode() * 40)
    assert call("evaluate", chars_run, "--weights", weights) == 0
    (chars_run / "config.json").write_text(
        config.replace(json.loads(config)["task_settings"]["text"], str(other))
    )
    assert_refused(capsys, tmp_path, ["evaluate", chars_run, "--weights", weights], "held-out sequences")
