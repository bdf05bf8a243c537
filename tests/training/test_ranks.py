"""Ranks of an MPI job: the numbers of one process, whoever is faster; and how a job stops, ends and goes on."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rank_program
from mpi_jobs import finished, has_mpi, job, mpi, started
from rank_program import SETTINGS, TASK, steps
from test_trainer import assert_same_outcome, outcome

import minitransformer as mt
from minitransformer.parallel.job import LAUNCHERS, place_in_job, say
from minitransformer.parallel.ranks import ALONE, Ranks, parts

COMMAND = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=12 dropout=0.1 steps=120 batch_tokens=66 warmup_steps=20 log_every=3
evaluate_every=20 solved_at=none epoch_size=50 test_size=5 n_symbols=6 min_length=4 processes=2
""".split()  # noqa: SIM905


def command(n: int, path: Path, *arguments: Any, **variables: str) -> tuple[int, str, str]:
    return job(n, "command", "train", "copy", "--out", path, *arguments, **variables)


def relative_difference(x: np.ndarray, y: np.ndarray) -> float:
    """The largest, number by number."""
    return float((np.abs(x - y) / np.abs(y)).max())


# ---- the numbers


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory) -> dict[str, Any]:
    """What 2 and 3 ranks found when they trained."""
    if not has_mpi():
        pytest.skip("needs mpi4py and mpiexec")
    out = tmp_path_factory.mktemp("ranks") / "found"
    status, _, err = job(request.param, "training", out)
    assert status == 0, err
    return {"n": request.param, **pickle.loads(out.read_bytes())}


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["steps"] == other["steps"] and one["answers"] == other["answers"]
    np.testing.assert_array_equal(one["weights"], other["weights"])
    for name in ("m", "v", "t"):
        np.testing.assert_array_equal(one["adam"][name], other["adam"][name])


def test_ranks_have_the_bits_of_as_many_replicas(found):
    """20 steps with dropout, clipping and ragged batches, of which one rank has more than another, or none."""
    n = found["n"]
    for how, n_batches in (("dropout", rank_program.N_BATCHES), ("without work", n - 1)):
        alone = steps(ALONE, n, n_batches=n_batches)
        assert all(norm > 0.1 for _, norm in alone["steps"])  # all are clipped
        assert_same_bits(found["everywhere"][0][how], alone)
    other = steps(ALONE, n, n_batches=n)["weights"]
    assert relative_difference(other, alone["weights"]) > 1e-3  # which other batches change


def test_ranks_find_what_one_process_finds_with_the_whole_batch(found):
    """To rounding: 1e-12 in float64 after 20 steps, weights and losses, with one and with two replicas on each rank."""
    alone = steps(ALONE, dropout=0.0, one_batch=True)
    for how in ("whole batch", "replicas"):
        ours = found["everywhere"][0][how]
        for (loss, norm), (expected_loss, expected_norm) in zip(ours["steps"], alone["steps"], strict=True):
            assert loss == pytest.approx(expected_loss, rel=1e-12)
            assert norm == pytest.approx(expected_norm, rel=1e-11)
        assert relative_difference(ours["weights"], alone["weights"]) <= 1e-12
        assert ours["answers"] == alone["answers"]
    start = mt.Transformer(mt.TransformerConfig(13, 13, **rank_program.CONFIG), 1, "float64")
    assert (
        relative_difference(next(rank_program.weights_of(start)), alone["weights"]) > 1e-2
    )  # they have moved


def test_all_ranks_know_the_same_and_keep_a_share_of_adams_state(found):
    first, *others = found["everywhere"]
    assert len(others) == found["n"] - 1
    for how in first:
        for other in others:
            assert_same_bits(other[how], first[how])
    sizes = [rank["dropout"]["own"] for rank in found["everywhere"]]
    assert sum(sizes) == first["dropout"]["weights"].size and max(sizes) - min(sizes) <= 1


def test_the_result_does_not_depend_on_which_rank_is_faster(found):
    first = found["everywhere"][0]
    for rank in (0, 1):
        assert_same_bits(first[f"rank {rank} is slow"], first["dropout"])


def test_each_operation_does_what_its_words_say(found):
    n = found["n"]
    for grads, shares in found["sums"]:
        expected = sum(grads[1:], grads[0].copy())  # in this order
        np.testing.assert_array_equal(np.concatenate([own for _, own in shares]), expected)
        assert [share for share, _ in shares] == parts(grads[0].size, n)
    for size, everywhere in found["gathered"]:
        expected = np.concatenate([[r] * (part.stop - part.start) for r, part in enumerate(parts(size, n))])
        for x in everywhere:
            np.testing.assert_array_equal(x, expected)
    assert found["numbers"] == [[[r, r / 3] for r in range(n)]] * n
    assert found["any"] == [True] * n + [False]
    assert found["broadcast_from_root"] == [(0, int(r == 0)) for r in range(n)]
    assert found["error"] == [(0,)] * n
    assert [place[:2] for place in found["places"]] == [(r, r) for r in range(n)]
    assert all(1 <= n_cores <= max(1, len(os.sched_getaffinity(0)) // n) for *_, n_cores in found["places"])


def test_one_process_is_a_job_of_one_rank():
    x = np.arange(5.0)
    ALONE.reduce_scatter(x)
    ALONE.all_gather(x)
    assert x.tolist() == [0, 1, 2, 3, 4] and ALONE.share(5) == slice(0, 5)
    assert (
        ALONE.numbers(1.5, 2) == [[1.5, 2]]
        and ALONE.objects("x") == ["x"]
        and ALONE.broadcast_from_root(int) == 0
    )
    assert ALONE.any(True) and not ALONE.any(False)
    ALONE.agree({"seed": 1})


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


# ---- a run


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The folder of a run of one process with two replicas."""
    path = tmp_path_factory.mktemp("alone") / "run"
    mt.Trainer(mt.RunSettings.of(TASK, SETTINGS, 3), mt.RunFolder(path), ranks=ALONE).run()
    return path


def resume_alone(path: Path, stop: int | None = None) -> None:
    folder = mt.RunFolder(path)
    trainer = mt.Trainer(folder.settings(), folder, ranks=ALONE)
    trainer.resume()
    if stop is None:
        trainer.run()
        return
    with pytest.raises(mt.runs.Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == stop)


@mpi
def test_a_run_goes_from_two_ranks_to_one_and_back_bit_for_bit(tmp_path, alone):
    """Not one bit, and not one file, differs from the run of one process; the last rank alone asks for the stops."""
    path = tmp_path / "run"
    for n, stop, how in ((2, 4, "new"), (1, 9, "resume"), (2, -1, "resume")):
        status, _, err = (0, "", "") if n == 1 else job(n, "run", path, stop, how)
        assert status == 0, err
        if n == 1:
            resume_alone(path, stop)
        if stop > 0:
            assert mt.RunFolder(path).load()[1]["step"] == stop
    assert_same_outcome(path, alone)
    assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in alone.iterdir())
    assert (path / "config.json").read_text() == (alone / "config.json").read_text()


@mpi
def test_a_run_of_one_process_goes_on_with_three_ranks(tmp_path, alone):
    """To its end; the shares are others, and so is the dropout."""
    shutil.copytree(alone, tmp_path / "run")
    for file in ("checkpoint-00000013.npz", "result.json"):
        (tmp_path / "run" / file).unlink()
    status, _, err = job(3, "run", tmp_path / "run", -1, "resume")
    assert status == 0, err
    ours, theirs = outcome(tmp_path / "run"), outcome(alone)
    assert ours[0].keys() == theirs[0].keys()
    assert all(ours[0][name][:2] == theirs[0][name][:2] for name in theirs[0])  # dtypes and shapes
    assert ours[2][:6] == theirs[2][:6]  # the reports up to step 10
    assert ours[3]["steps"] == 13 and (tmp_path / "run" / "result.json").exists()


def test_fewer_cores_and_much_memory_are_no_reason_for_more_replicas(monkeypatch):
    """A large model that was begun on many ranks goes on in as many replicas as this machine is good for."""
    settings = mt.RunSettings.of(TASK, {**SETTINGS, "processes": 64})
    assert len(mt.Trainer(settings).replicas.models) == 64  # small: as it was begun, bit for bit
    monkeypatch.setattr("minitransformer.runs.trainer.GRADIENTS", 10)
    trainer = mt.Trainer(settings)
    assert len(trainer.replicas.models) == trainer.ranks.n_cores < 64
    assert trainer.settings.training.processes == 64


# ---- a job


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
        ("another seed", "seed: expected the same on all ranks, got 5 on rank 0, 6 on rank 1"),
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
    first, second = sorted(err.splitlines())
    assert (status, out) == (2, "") and NO_MPI in first and NO_MPI in second
    assert first.startswith("minitransformer: error: a job of 2 processes ")
    assert second.startswith(
        "minitransformer: rank 1 of 2 has failed, and if others wait for it, stop the job: "
    )
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
    assert said.startswith("minitransformer: rank 1 of 2 has failed") and NO_MPI in said


@mpi
def test_ranks_run_the_package_under_test(tmp_path):
    """And not another version that happens to be installed."""
    status, _, err = job(2, "package", tmp_path / "found")
    assert status == 0, err
    assert pickle.loads((tmp_path / "found").read_bytes()) == {"files": [mt.__file__] * 2}


@mpi
def test_one_rank_measured_by_itself_has_the_threads_it_has_among_others(tmp_path):
    """Else benchmarks/scaling.py would compare a rank on all cores with ranks on one each."""
    status, _, err = job(2, "threads", tmp_path / "found", OPENBLAS_NUM_THREADS="2")
    assert status == 0, err
    found = pickle.loads((tmp_path / "found").read_bytes())
    assert found["threads"] and set(found["threads"]) == {found["cores"]}


@mpi
def test_ranks_that_mpi_does_not_know_are_no_job(tmp_path):
    """Started by the mpiexec of another MPI library than mpi4py's, each would train for itself."""
    environment = {**os.environ, "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}
    done = subprocess.run(
        [sys.executable, "-m", "minitransformer", "train", "copy", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "the launcher started 4 processes, but mpi4py's MPI library sees 1" in done.stderr


# ---- on a GPU


@mpi
def test_arrays_on_a_gpu_take_the_same_path(tmp_path):
    """On the stand-in for CuPy: through the CPU's memory, and straight from the GPU's."""
    status, _, err = job(2, "device", tmp_path / "found")
    assert status == 0, err
    done = pickle.loads((tmp_path / "found").read_bytes())
    expected = done["found"].pop("cpu")
    for found in done["found"].values():
        np.testing.assert_allclose(found["steps"], expected["steps"], rtol=1e-10)
        assert relative_difference(found["weights"], expected["weights"]) <= 1e-10
        assert found["answers"] == expected["answers"]
    assert done["ways"]["host"] == {"ndarray"}
    # "ndarray" for Adam's state_dict
    assert done["ways"]["straight"] == {"DeviceArray", "ndarray"}
