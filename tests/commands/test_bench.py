"""`minitransformer bench`: its figures belong together. No test knows how long anything should take."""

from __future__ import annotations

import json
from functools import partial

import pytest

import minitransformer as mt
from minitransformer import bench
from minitransformer.cli import main

TINY = ["--preset", "toy", "--batch", "3", "--length", "5", "--steps", "2"]


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    """The rate of a matrix product, from a small one."""
    monkeypatch.setattr(bench, "matmul_gflops", partial(bench.matmul_gflops, n=16))


def call(*arguments: str) -> int:
    """Exit status; what argparse does by SystemExit counts too."""
    try:
        return main(["bench", *arguments])
    except SystemExit as end:
        return int(end.code)


def figures(capsys, *arguments: str) -> dict:
    """What `bench --json` prints: one object, and nothing else."""
    assert call(*TINY, "--json", *arguments) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and err == ""
    return json.loads(out)


def test_the_middle_half_lies_between_the_steps(monkeypatch, capsys):
    """Of two steps, one of which took a hundred times as long, too."""
    times = bench._times
    monkeypatch.setattr(bench, "_times", lambda *given: times(*given) and [0.001, 0.1])
    found = figures(capsys)
    low, median, high = (found[name] for name in ("step_ms_low", "step_ms", "step_ms_high"))
    assert 1 <= low < median < high <= 100


@pytest.mark.parametrize("processes", [1, 2])
def test_the_figures_belong_together(capsys, processes):
    found = figures(capsys, "--processes", str(processes))
    assert (found["preset"], found["batch"], found["length"], found["steps"]) == ("toy", 3, 5, 2)
    assert (found["processes"], found["dropout"]) == (processes, 0.1)
    config = mt.TransformerConfig.preset("toy", bench.TOY_VOCABULARY)
    assert found["n_parameters"] == mt.Transformer(config).n_parameters()
    assert found["flops"] == bench.step_flops(config, 3, 5, 5)
    seconds = found["step_ms"] / 1e3
    assert 0 < found["step_ms_low"] <= found["step_ms"] <= found["step_ms_high"]
    assert found["gflops"] == pytest.approx(1e-9 * found["flops"] / seconds)
    assert found["floor_ms"] == pytest.approx(1e-6 * found["flops"] / found["matmul_gflops"])
    assert found["floor_share"] == pytest.approx(found["floor_ms"] / found["step_ms"])
    tokens = found["tokens_per_s"] * seconds
    assert tokens == pytest.approx(round(tokens)) and 5 + 2 * 4 <= tokens <= 15  # one is as long as can be


def test_every_class_of_layer_has_a_line_and_the_shares_add_up(capsys):
    found = figures(capsys)
    layers = {layer.pop("name"): layer for layer in found["layers"]}
    expected = {
        "MultiHeadAttention",
        "FeedForward",
        "AddNorm",
        "InputEmbedding",
        "OutputProjection",
        "Transformer",
    }
    assert expected <= set(layers)
    assert all(layers[name]["forward_ms"] > 0 < layers[name]["backward_ms"] for name in expected)
    assert layers["LabelSmoothedCrossEntropy"]["forward_ms"] > 0
    assert layers["Adam"]["forward_ms"] is None and layers["Adam"]["ms"] > 0
    assert list(layers)[-1] == bench.REST
    assert sum(layer["share"] for layer in layers.values()) == pytest.approx(1)
    assert sum(layer["ms"] for layer in layers.values()) == pytest.approx(found["one_process_ms"])
    for layer in layers.values():
        assert layer["share"] == pytest.approx(layer["ms"] / found["one_process_ms"])
        if layer["forward_ms"] is not None:
            assert layer["forward_ms"] + layer["backward_ms"] == pytest.approx(layer["ms"])


def test_the_table_says_the_same_and_says_how_far_it_is(capsys):
    assert call(*TINY, "--dropout", "0") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for name in (
        "step",
        "target tokens",
        "arithmetic",
        "matrix products",
        "MultiHeadAttention",
        "Adam",
        "a step",
    ):
        assert any(line.startswith(name) for line in lines), name
    assert lines[-1].endswith("100.0%")
    assert "3 sentences of up to 5 tokens" in err


def test_settings_reach_the_model(capsys):
    for arguments, dropout in (([], 0.1), (["--dropout", "0.25"], 0.25)):
        found = figures(capsys, "--batch", "2", "--length", "70", *arguments)  # longer than toy's max_len
        assert (found["dropout"], found["batch"], found["length"]) == (dropout, 2, 70)


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "tiny"], ["preset", "'tiny'"]),
        (["--preset", "bigg"], ["'bigg'", "'big'"]),
        (["--batch", "0"], ["batch", "0"]),
        (["--batch", "many"], ["--batch", "'many'"]),
        (["--length", "0"], ["length", "0"]),
        (["--length", "1048576"], ["length", "1048576"]),
        (["--steps", "0"], ["steps", "0"]),
        (["--dropout", "1"], ["dropout", "1"]),
        (["--dropout", "nan"], ["dropout", "nan"]),
        (["--processes", "0"], ["processes", "0"]),
        (["--processes", "4"], ["processes", "3", "4"]),  # of a batch of 3
        (["toy"], ["toy"]),
    ],
    ids=" ".join,
)
def test_what_bench_cannot_use_is_refused(capsys, arguments, parts):
    assert call(*TINY, "--json", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert all(part in err for part in parts), err
