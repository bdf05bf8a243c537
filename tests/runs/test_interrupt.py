"""Processes that are killed, or asked to stop, and the runs that go on from there."""

import os
import signal
import subprocess
import sys
import time

import pytest
from training_runs import assert_same_outcome

import minitransformer as mt
from minitransformer.runs.interrupt import stop_on_signal

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_the_run_resumes_bit_for_bit(tmp_path, whole_process, number):
    path = tmp_path / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    wait_until(process, lambda: (path / "metrics.jsonl").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "--resume" in stderr
    assert "a second signal ends at once" in stderr
    _, meta = mt.RunFolder(path).load()
    assert 3 <= meta["step"] < 240

    process = start("train", "copy", "--out", path, "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_signal_ends_a_step_that_never_ends(tmp_path, second, processes):
    """And its workers, too."""
    path = tmp_path / "run"
    more = ["accumulate=60000", "batch_tokens=20", f"processes={processes}"]
    process = start("train", "copy", "--out", path, "--set", *SETTINGS, *more)
    wait_until(process, lambda: (path / "lock").exists())
    time.sleep(1)  # into the step
    process.send_signal(signal.SIGTERM)
    assert "a second signal ends at once" in next(line for line in process.stderr if "stopping" in line)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(second)
    out, err = process.communicate(timeout=60)  # which ends when no worker holds the pipes open
    assert time.monotonic() - began < 10 and process.returncode == 128 + second
    assert (out, err) == ("", "") and not list(path.glob("checkpoint-*"))


def test_a_signal_that_is_ignored_stays_so(tmp_path, whole_process):
    """As under nohup."""
    path = tmp_path / "run"
    command = f"trap '' HUP; exec {sys.executable} -m minitransformer train copy --seed 5 --out {path} --set "
    process = subprocess.Popen(
        ["bash", "-c", command + " ".join(SETTINGS)], stderr=subprocess.PIPE, text=True
    )
    wait_until(process, lambda: (path / "metrics.jsonl").exists())
    process.send_signal(signal.SIGHUP)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)


def test_ctrl_c_during_the_imports_is_no_traceback():
    """Half a second in which nothing was there to catch it. (The import that is under way says when.)"""
    code = (
        "import builtins, os, signal, sys\n"
        "find = builtins.__import__\n"
        "def find_and_interrupt(name, *rest):\n"
        "    if name == 'numpy': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return find(name, *rest)\n"
        "builtins.__import__ = find_and_interrupt\n"
        "from minitransformer.__main__ import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_signals_are_heard_again_by_those_who_heard_them_before():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_on_signal():
        assert signal.getsignal(signal.SIGINT) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
