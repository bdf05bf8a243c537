"""Ranks of an MPI job: the numbers of one process, whoever is faster, and the same run."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rank_program
from mpi_jobs import has_mpi, job, mpi, relative_difference
from rank_program import SETTINGS, TASK, settings_of, steps
from training_runs import assert_same_outcome, outcome

import minitransformer as mt
from minitransformer.parallel.ranks import ALONE, parts

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
@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
def test_a_run_of_one_stack_has_the_bits_of_one_process_too(tmp_path, family):
    mt.Trainer(
        mt.RunSettings.of(TASK, settings_of(family), 3), mt.RunFolder(tmp_path / "alone"), ranks=ALONE
    ).run()
    status, _, err = job(2, "run", tmp_path / "run", -1, "new", family)
    assert status == 0, err
    assert_same_outcome(tmp_path / "run", tmp_path / "alone")


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


# ---- a job


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
