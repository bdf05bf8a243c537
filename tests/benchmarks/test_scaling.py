"""tests/benchmarks/scaling.py: its figures belong together. No test knows how long anything should take."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from mpi_jobs import job, mpi

SCRIPT = Path(__file__).with_name("scaling.py")
TINY = ["--batch", "3", "--length", "5", "--steps", "2"]


@pytest.fixture(scope="module")
def scaling():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_of_scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(found: dict, ranks: list[int]) -> None:
    assert (found["preset"], found["batch"], found["length"]) == ("toy", 3, 5)
    rows = found["ranks"]
    assert [row["ranks"] for row in rows] == ranks
    for row in rows:
        assert row["steps"] == 2 and row["step_ms"] > 0 < row["exchange_ms"]
        assert row["efficiency"] == pytest.approx(rows[0]["step_ms"] / row["step_ms"])
        moved = 2 * (row["ranks"] - 1) / row["ranks"] * 4 * row["n_parameters"]
        assert row["allreduce_gbit_per_s"] * 1e9 / 8 * row["exchange_ms"] / 1e3 == pytest.approx(moved)
        tokens = row["tokens_per_s"] * row["step_ms"] / 1e3
        # 3 sentences of 4 or 5 for each rank
        assert 4 * 3 * row["ranks"] < tokens <= 5 * 3 * row["ranks"]


def test_one_process_is_one_rank(scaling, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY, "--json"])
    scaling.main()
    out, err = capsys.readouterr()
    assert err.startswith("1 ranks: ") and err.count("\n") == out.count("\n") == 1
    check(json.loads(out), [1])
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *TINY])
    scaling.main()
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["ranks", "step", "ms"] and row.split()[0] == "1" and "100%" in row


@mpi
def test_three_ranks_are_measured_as_one_two_and_three():
    status, out, err = job(3, *TINY, "--json", program=SCRIPT)
    assert status == 0 and "Traceback" not in err, err
    check(json.loads(out), [1, 2, 3])
    # rank 0 speaks for all
    assert [line.split(":")[0] for line in err.splitlines()] == [f"{n} ranks" for n in (1, 2, 3)]
