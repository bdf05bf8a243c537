"""`minitransformer bench --scaling`: its figures belong together, and its model is its formula."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mpi_jobs import job, mpi

from minitransformer import scaling
from minitransformer.cli import main
from minitransformer.scaling import Network, Step, step_seconds

TINY = ["bench", "--scaling", "--batch", "3", "--length", "5", "--steps", "2", "--json"]


def check(found: dict, ranks: list[int]) -> None:
    rows = found["ranks"]
    assert [row["ranks"] for row in rows] == ranks
    for row in rows:
        assert row["steps"] == 2 and row["step_ms"] > 0 < row["update_ms"] and row["add_ms"] > 0
        assert row["efficiency"] == pytest.approx(rows[0]["step_ms"] / row["step_ms"])
        moved = 2 * (row["ranks"] - 1) / row["ranks"] * 4 * found["n_parameters"]
        assert row["allreduce_gbit_per_s"] * 1e9 / 8 * row["exchange_ms"] / 1e3 == pytest.approx(moved)
        tokens = row["tokens_per_s"] * row["step_ms"] / 1e3
        assert 4 * 3 * row["ranks"] < tokens <= 5 * 3 * row["ranks"]  # 3 sentences of 4 or 5 for each rank
    assert len(found["predictions"]) == 2 * len(scaling.PAPERS_MODELS) * len(scaling.NETWORKS) * len(
        scaling.RANKS
    )
    assert all(0 < row["efficiency"] <= row["with_overlap"] for row in found["predictions"])


def test_one_process_is_one_rank(capsys):
    assert main(TINY) == 0
    check(json.loads(capsys.readouterr().out), [1])
    assert main(TINY[:-1]) == 0
    out = capsys.readouterr().out
    assert out.count(" 65 M ") == out.count(" 213 M ") == 4
    assert main([*TINY, "--processes", "2"]) == 2


@mpi
def test_three_ranks_are_measured_as_one_two_and_three():
    status, out, err = job(3, "command", *TINY)
    assert status == 0 and err == ""
    check(json.loads(out), [1, 2, 3])


def test_the_model_is_its_formula():
    step, network = Step(compute=3.0, update=0.5, add=0.2, size=1e9), Network(gbit=16, latency=1e-3)
    assert step_seconds(step, 1, network) == 3.5
    for n in (2, 8):
        exchange = (n - 1) / n * 1e9 / 2e9 + (n - 1) * 1e-3  # 16 Gbit/s are 2 Gbyte/s
        rest = 0.5 / n + (n - 1) / n * 0.2
        assert step_seconds(step, n, network) == pytest.approx(3 + 2 * exchange + rest)
        assert step_seconds(step, n, network, overlap=True) == pytest.approx(3 + rest)  # all of it is hidden
    slow = Network(gbit=0.8, latency=0)  # 5 s for half of it, 2 s and 1 s of which can be hidden
    assert step_seconds(step, 2, slow, overlap=True) == pytest.approx(10 + 0.25 + 0.1)


def test_a_prediction_scales_what_was_measured():
    found = scaling.predictions(1000.0, 2.0, update=2e-9, add=1e-9)
    base = {(x["gbit"], x["ranks"]): x for x in found if x["parameters"] == 65e6}
    big = {(x["gbit"], x["ranks"]): x for x in found if x["parameters"] == 213e6}
    compute = base[10, 8]["one_rank_s"] - 65e6 * 2e-9 * 0.5
    flops = scaling.step_flops(scaling.TransformerConfig.base(), 125, 25, 25)
    assert compute == pytest.approx(1e-12 * flops)
    assert base[10, 8]["efficiency"] == pytest.approx(
        base[10, 8]["one_rank_s"] / step_seconds(Step(compute, 0.065, 0.0325, 2.6e8), 8, scaling.NETWORKS[0])
    )
    for one in (base, big):
        assert np.all(np.diff([one[10, n]["efficiency"] for n in scaling.RANKS]) < 0)
        assert one[10, 64]["efficiency"] < one[100, 64]["efficiency"]
