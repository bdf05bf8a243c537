"""How an MPI job is recognised, and how it stops, fails, ends and goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mpi_jobs import finished, has_mpi, job, mpi, started
from training_runs import assert_same_outcome

import minitransformer as mt
from minitransformer.parallel.job import LAUNCHERS, place_in_job
from minitransformer.parallel.ranks import Ranks
from minitransformer.streams import say

COMMAND = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=12 dropout=0.1 steps=120 batch_tokens=66 warmup_steps=20 log_every=3
evaluate_every=20 solved_at=none epoch_size=50 test_size=5 n_symbols=6 min_length=4 processes=2
""".split()  # noqa: SIM905


def command(n: int, path: Path, *arguments: Any, **variables: str) -> tuple[int, str, str]:
    return job(n, "command", "train", "copy", "--out", path, *arguments, **variables)


def test_a_job_is_known_by_what_its_launcher_says(monkeypatch):
    for name in sum(LAUNCHERS, ()):
        monkeypatch.delenv(name, raising=False)
    assert place_in_job() == (0, 1) and Ranks.of_this_job().n == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")  # of a batch script, in which no MPI runs
    assert place_in_job() == (0, 1)
    for rank, n in LAUNCHERS:
        with monkeypatch.context() as inside:
            inside.setenv(rank, "2")
            inside.setenv(n, "4")
            assert place_in_job() == (2, 4)
            for wrong in ("4", "-1", "two", "²", ""):
                inside.setenv(rank, wrong)
                message = f"{rank}: expected a rank 0 … 3, as {n}=4, got {wrong!r}; outside a job, unset both"
                with pytest.raises(mt.ConfigError, match=re.escape(message)):
                    place_in_job()


@pytest.mark.parametrize(("rank", "n"), LAUNCHERS)
def test_variables_that_were_left_behind_silence_nobody(rank, n):
    """MPI knows of one process only: this one."""
    if not has_mpi():
        pytest.skip("needs mpi4py and mpiexec")
    environment = {**os.environ, rank: "1", n: "2"}

    def said(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "minitransformer", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        return done.returncode, done.stdout, done.stderr

    # Only a training is a job, and asks MPI.
    assert said("--version") == (0, f"minitransformer {mt.__version__}\n", "")
    status, out, err = said("train", "--help")
    # Under srun's variables MPICH looks for what launched it, ends the process itself, and says why.
    assert (status == 0 and "usage" in out and err == "") or (rank == "PMIX_RANK" and "MPI_Init" in err)
    environment[rank] = "second"
    status, out, err = said("train", "--help")
    assert (status, out, err.count("\n")) == (2, "", 1) and f"{rank}: expected a rank 0 … 1" in err


@pytest.fixture(scope="module")
def whole_job(tmp_path_factory) -> Path:
    """The folder of `mpiexec -n 2 minitransformer train copy`, which nobody disturbed."""
    if not has_mpi():
        pytest.skip("needs mpi4py and mpiexec")
    path = tmp_path_factory.mktemp("whole") / "run"
    status, out, err = command(2, path, "--seed", 5, "--set", *COMMAND)
    assert status == 0, err
    assert out.count("exact match") == 1 and err.count("step  60/120") == 1  # rank 0 speaks for both
    assert ", 2 ranks" in err and "Traceback" not in err
    return path


@mpi
def test_a_job_ends_well_in_a_folder_whose_name_is_not_text(tmp_path):
    path = tmp_path / os.fsdecode(b"run\xff")
    status, out, err = command(2, path, "--set", *COMMAND, "steps=2", "warmup_steps=1")
    assert status == 0 and "exact match" in out and "failed" not in err, err
    assert (path / "result.json").exists()


def test_a_killed_rank_ends_the_job_and_a_checkpoint_is_left(tmp_path, whole_job):
    path = tmp_path / "run"
    status, _, err = command(2, path, "--seed", 5, "--set", *COMMAND, MINITRANSFORMER_TEST="killed")
    assert status != 0
    assert "signal 9" in err.lower() or "killed" in err.lower()  # mpiexec says so
    assert mt.RunFolder(path).checkpoints() and not (path / "result.json").exists()
    status, _, err = command(2, path, "--resume")
    assert status == 0, err
    assert_same_outcome(path, whole_job)


@mpi
def test_a_rank_that_fails_alone_says_so_and_ends_the_job(tmp_path):
    path = tmp_path / "run"
    status, out, err = command(2, path, "--set", *COMMAND, MINITRANSFORMER_TEST="fails")
    assert status == 1 and out == ""
    assert "rank 1 of 2 has failed, which ends the job: TypeError" in err


@mpi
@pytest.mark.parametrize(
    ("number", "fate"), [(signal.SIGINT, ""), (signal.SIGTERM, ""), (signal.SIGTERM, "slow disk")]
)
def test_a_signal_to_mpiexec_saves_and_ends_the_job(tmp_path, number, fate):
    """Also where the checkpoint takes longer than a rank waits for others after a failure."""
    path = tmp_path / "run"
    arguments = ["command", "train", "copy", "--out", path, "--seed", 5, "--set", *COMMAND]
    process = started(2, *arguments, MINITRANSFORMER_TEST=fate)
    deadline = time.monotonic() + 60
    while not (path / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(number)
    status, _, err = finished(process)
    assert status == 130 and err.count("Stopped and saved") == 1 and "failed" not in err, err
    _, meta = mt.RunFolder(path).load()
    assert 3 <= meta["step"] < 120


@mpi
@pytest.mark.parametrize(
    ("fate", "message"),
    [
        ("another version", "minitransformer: expected the same on all ranks, got '"),
        ("another setting", "epoch_size: expected the same on all ranks, got 10000 on rank 0, 77 on rank 1"),
        ("another command", "expected the same command on all ranks, got 'train copy --out "),
        ("other data", "SHA-256 of their ids: expected the same on all ranks, got '"),
    ],
)
def test_what_cannot_work_is_said_on_one_line(tmp_path, fate, message):
    status, out, err = command(2, tmp_path / "run", "--seed", 5, MINITRANSFORMER_TEST=fate)
    assert (status, out) == (2, "")
    assert err.startswith(f"minitransformer: error: {message}") and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


NO_MPI = "needs mpi4py: pip install 'minitransformer[mpi]'"


@mpi
def test_without_mpi4py_each_rank_says_so(tmp_path):
    """On a line of its own: `say` writes a line in one piece (see below)."""
    status, out, err = command(2, tmp_path / "run", MINITRANSFORMER_TEST="no mpi4py")
    assert (status, out) == (2, "")
    for rank, line in enumerate(sorted(err.splitlines())):
        assert line.startswith(f"minitransformer: error: rank {rank} of a job of 2 {NO_MPI}")
    assert err.count("\n") == 2
    assert not (tmp_path / "run").exists()


def test_a_line_for_standard_error_is_written_in_one_piece(monkeypatch):
    written = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=written.append, flush=lambda: None))
    say("one line")
    assert written == ["one line\n"]


@mpi
def test_a_rank_that_lacks_mpi4py_is_not_silent_while_the_others_wait(tmp_path):
    path = tmp_path / "run"
    process = started(
        2, "command", "train", "copy", "--out", path, MINITRANSFORMER_TEST="no mpi4py on rank 1"
    )
    said = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] != 0 and not path.exists()
    assert said.startswith(f"minitransformer: error: rank 1 of a job of 2 {NO_MPI}")
