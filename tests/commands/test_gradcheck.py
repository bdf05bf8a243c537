"""`minitransformer gradcheck`: a line for each layer, one JSON object, and a status that says whether all is right."""

from __future__ import annotations

import json

import pytest

from minitransformer import layers
from minitransformer.cli import main

LAYERS = ["Linear", "LabelSmoothedCrossEntropy", "Transformer"]


def test_the_table_has_a_line_for_each_layer(capsys):
    assert main(["gradcheck", *LAYERS]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["layer", *LAYERS, "largest", "tolerance", "Every"]
    assert lines[1][-1] == "ok" and "*" not in lines[1][2] and float(lines[1][2]) < 1e-12
    assert all("*" in error for error in lines[3][2:4])  # thousands of numbers: along one direction


def test_json_is_one_object_with_the_figures_of_the_table(capsys):
    assert main(["gradcheck", "--json", *LAYERS]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and [layer["name"] for layer in answer["layers"]] == LAYERS
    for method, tolerance in (("complex", 1e-12), ("central", 1e-8)):
        errors = [layer[method] for layer in answer["layers"]]
        assert max(errors) == answer["worst"][method] < tolerance
    assert answer["layers"][0]["numbers"] == (8 * 11 + 11 + 80) + (8 * 11 + 40)


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_wrong_gradient_is_status_1_and_says_where(capsys, monkeypatch, json_too):
    backward = layers.LayerNorm.backward
    monkeypatch.setattr(layers.LayerNorm, "backward", lambda self, dy, cache: -backward(self, dy, cache))
    assert main(["gradcheck", "Linear", "LayerNorm", *json_too]) == 1
    out = capsys.readouterr().out
    if json_too:
        assert [layer["ok"] for layer in json.loads(out)["layers"]] == [True, False]
    else:
        assert "LayerNorm: WRONG" in out and "every entry has the wrong sign" in out


def test_an_unknown_layer_is_refused_with_the_nearest_name(capsys):
    assert main(["gradcheck", "LayrNorm"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "LayerNorm" in err


def test_full_adds_the_base_model_of_the_paper(capsys, monkeypatch):
    """Here a smaller one in its place, since 63 million parameters take half a minute."""
    from minitransformer.checks import cases, run

    monkeypatch.setattr(
        cases.TransformerConfig, "base", lambda: cases.tiny_config(run.Sizes(), tie_embeddings=False)
    )
    assert main(["gradcheck", "Linear", "--full", "--json"]) == 0
    names = [layer["name"] for layer in json.loads(capsys.readouterr().out)["layers"]]
    assert names == ["Linear", "base model with loss"]


OWN = """
import numpy as np
x = np.random.default_rng(0).normal(size=(2, 3))
right = (np.sin, lambda dy, x: dy * np.cos(x), x)
wrong = (np.sin, lambda dy, x: -dy * np.cos(x), x)
kinks = (np.abs, lambda dy, x: dy * np.sign(x), x)
"""


def test_ones_own_file_is_checked_and_its_reports_are_shown(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert main(["gradcheck", "own.py:right", "own.py:kinks", "Linear"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines[1:4]] == ["own.py:right", "own.py:kinks", "Linear"]
    assert lines[2][1:3] == ["6", "none"] and "absolute: ok (central differences" in out
    assert "sin: ok (complex step, 6 numbers" in out and "Linear: ok" not in out


def test_a_wrong_gradient_in_ones_own_file_is_status_1_and_a_wrong_file_status_2(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    assert main(["gradcheck", "own.py:wrong"]) == 1
    assert "every entry has the wrong sign" in capsys.readouterr().out
    assert main(["gradcheck", "own.py:kinks", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["worst"]["complex"] is None and answer["layers"][0]["central"] < 1e-8
    assert main(["gradcheck", "own.py:none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_left_out_is_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "x = np.array([0.0, 1.0, -2.0])\n"
        "kink = (np.abs, lambda dy, x: dy * np.sign(x), x)\n"
    )
    assert main(["gradcheck", "own.py:kink"]) == 0
    assert "ok  (1 left out)" in capsys.readouterr().out


def test_dropout_is_checked_in_training(monkeypatch):
    monkeypatch.setattr(layers.Dropout, "backward", lambda self, dy, cache: dy)
    assert main(["gradcheck", "Dropout"]) == 1


def test_one_wrong_case_makes_a_layer_wrong(capsys, monkeypatch):
    backward = layers.Linear.backward
    wrong = lambda self, dy, cache: backward(self, dy, cache) * (1 if self.b is None else -1)  # noqa: E731
    monkeypatch.setattr(layers.Linear, "backward", wrong)
    assert main(["gradcheck", "Linear", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"] and not answer["layers"][0]["ok"] and min(answer["worst"].values()) > 0.1


def test_all_layers_are_checked_by_default_and_each_once(monkeypatch):
    from minitransformer.checks import run

    monkeypatch.setattr(run, "outcome", lambda name, seed: name)
    assert list(run.check_gradients()) == list(run.CASES)
    found = list(run.check_gradients(["ReLU", "Linear", "ReLU"], full=True))
    assert found == ["ReLU", "Linear", "base model with loss"]
