"""`minitransformer bench`: its figures belong together, its arithmetic is the model's, its timers count no time
twice and come off again. No test knows how long anything should take.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import count

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import bench
from minitransformer.checks import Sizes, tiny_config
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


def test_progress_is_told_once_a_second(monkeypatch):
    """On a clock that is 0.4 seconds further with each look at it."""
    looks, told = count(), []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: 0.4 * next(looks))
    bench.bench(batch=2, length=3, steps=4, processes=1, say=told.append)
    monkeypatch.undo()
    of_steps = [line for line in told if "in 1 process" in line]
    assert [line[:8] for line in of_steps] == ["step 2/4", "step 4/4"]
    assert sum("layer by layer" in line for line in told) == 4  # with so many timers, a second each


# --- the arithmetic -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [True, False])
def test_the_arithmetic_is_that_of_the_models_weights_and_attentions(tie):
    """Counted another way: from the weights that a real model has, each used once at every position it reads.

    The sizes are different primes, and queries and values differ in width.
    """
    B, T_src, T_tgt = 2, 5, 7
    config = tiny_config(Sizes(), tie_embeddings="target_output" if tie else False, n_layers=3)
    model = mt.Transformer(config)
    total = 0
    for name, p in model.parameters().items():
        if len(p.shape) == 2 and "embedding" not in name:  # an embedding looks up, it multiplies nothing
            of_source = name.startswith("encoder") or name.endswith(
                ("cross_attention.W_K", "cross_attention.W_V")
            )
            total += p.size * (T_src if of_source else T_tgt)
    if tie:  # E is listed as the embedding's
        total += model.output.E.size * T_tgt
    for T_q, T_k in ((T_src, T_src), (T_tgt, T_tgt), (T_tgt, T_src)):
        total += config.n_layers * config.n_heads * T_q * T_k * (config.d_k + config.d_v)
    assert bench.step_flops(config, B, T_src, T_tgt) == 6 * B * total


def test_the_arithmetic_of_the_base_model_by_hand():
    """d_model 512, d_ff 2048, N 6, V 1000, 2 sentences of 10 words: the terms written out."""
    projections = 12 * 512 * 512 * 10  # four in the encoder, eight in the decoder
    attentions = 3 * 2 * 10 * 10 * 512
    feed_forwards = 2 * 2 * 512 * 2048 * 10
    multiplications = 6 * (projections + attentions + feed_forwards) + 512 * 1000 * 10
    config = mt.TransformerConfig.base(1000)
    assert bench.step_flops(config, 2, 10, 10) == 2 * 3 * 2 * multiplications


# --- the timers -----------------------------------------------------------------------------------------


class Inner(mt.Module):
    """Takes 2 seconds, and 3 on the way back, of the clock below."""

    def forward(self, clock):
        clock[0] += 2

    def backward(self, clock):
        clock[0] += 3


class Outer(mt.Module):
    """1 second of its own before, between and after the inner layers; one of these has two names."""

    def __init__(self):
        self.inner, self.more = Inner(), [Inner()]
        self.again = self.inner

    def forward(self, clock):
        clock[0] += 1
        self.inner.forward(clock)
        clock[0] += 1
        self.more[0].forward(clock)
        clock[0] += 1

    def backward(self, clock):
        self.again.backward(clock)


def test_a_timer_does_not_count_what_is_inside_it(monkeypatch):
    clock = [0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    outer = Outer()
    with bench.own_times(outer) as own:
        outer.forward(clock)
        outer.backward(clock)
    monkeypatch.undo()
    assert own == {
        ("Outer", "forward"): 3,
        ("Inner", "forward"): 4,
        ("Outer", "backward"): 0,
        ("Inner", "backward"): 3,
    }
    outer.forward(clock)
    assert own["Outer", "forward"] == 3


def test_warm_up_does_not_count_and_the_rest_comes_last(monkeypatch):
    clock, outer, steps = [0], Outer(), count()

    def step():
        clock[0] += 100 if next(steps) < bench.WARM_UP else 5
        outer.forward(clock)
        outer.backward(clock)

    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    rows = bench._layer_times(step, (outer,), 2, lambda text: None)
    monkeypatch.undo()
    names = ("name", "forward_ms", "backward_ms", "ms", "share")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("Inner", 4000, 3000, 7000, 7 / 15),
        ("Outer", 3000, 0, 3000, 3 / 15),
        (bench.REST, None, None, 5000, 5 / 15),
    ]


def test_the_timers_change_no_number_and_come_off_even_after_an_error():
    config = mt.TransformerConfig.preset("toy", 13)
    model = mt.Transformer(config)
    ids = np.array([[3, 4, 5, 2]])
    logits, _ = model.forward(ids, ids)
    layers = [model, *bench._layers_in(model)]
    before = [(type(layer), dict(vars(layer))) for layer in layers]
    with pytest.raises(mt.InputError), bench.own_times(model) as own:
        assert np.array_equal(model.forward(ids, ids)[0], logits)
        assert own["Transformer", "forward"] > 0
        assert list(model.parameters()) == list(mt.Transformer(config).parameters())
        model.forward(ids + 100, ids)
    assert [(type(layer), dict(vars(layer))) for layer in layers] == before


def test_bench_leaves_the_classes_as_they_were():
    classes = [cls for cls in (*vars(mt.layers).values(), *vars(mt.models).values()) if isinstance(cls, type)]
    classes += [mt.Transformer, mt.Adam, mt.LabelSmoothedCrossEntropy, mt.Module]
    before = [dict(vars(cls)) for cls in classes]
    bench.bench(batch=2, length=3, steps=1)
    assert [dict(vars(cls)) for cls in classes] == before


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
