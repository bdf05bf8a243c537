"""What a step costs: the arithmetic is the model's, the timers count no time twice and come off again."""

from __future__ import annotations

from functools import partial
from itertools import count

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import bench
from minitransformer.checks import Sizes, tiny_config


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    """The rate of a matrix product, from a small one."""
    monkeypatch.setattr(bench, "matmul_gflops", partial(bench.matmul_gflops, n=16))


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


def test_where_a_process_cannot_fork_one_is_measured_and_reported(monkeypatch):
    told = []
    monkeypatch.setattr(bench, "can_fork", lambda: False)
    assert bench.bench(batch=2, length=3, steps=1, processes=2, say=told.append)["processes"] == 1
    assert told[0].startswith("in one process only")
