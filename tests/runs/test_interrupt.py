"""Processes that are killed, or asked to stop, and the runs that go on from there."""

import os
import signal
import subprocess
import sys
import time

import pytest
from training_runs import assert_same_outcome

import minitransformer as mt

SETTINGS = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=12 dropout=0.1 steps=240 batch_tokens=66 warmup_steps=20 log_every=3
evaluate_every=20 solved_at=none epoch_size=50 test_size=5 n_symbols=6 min_length=4
""".split()  # noqa: SIM905


def start(*arguments):
    command = [sys.executable, "-m", "minitransformer", *map(str, arguments)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_until(process, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)  # between two looks


@pytest.fixture(scope="module")
def whole_process(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return path


def test_a_process_killed_twice_resumes_bit_for_bit(tmp_path, whole_process):
    path = tmp_path / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    wait_until(process, lambda: list(path.glob("checkpoint-*.npz")))
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (path / "result.json").exists()

    newest = mt.RunFolder(path).checkpoints()[-1].name
    process = start("train", "copy", "--out", path, "--resume")
    wait_until(process, lambda: max(p.name for p in path.glob("checkpoint-*.npz")) > newest)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    process = start("train", "copy", "--out", path, "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_resumes_bit_for_bit(tmp_path, whole_process, number):
    path = tmp_path / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    wait_until(process, lambda: (path / "metrics.jsonl").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "--resume" in stderr
    _, meta = mt.RunFolder(path).load()
    assert 3 <= meta["step"] < 240

    process = start("train", "copy", "--out", path, "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)
