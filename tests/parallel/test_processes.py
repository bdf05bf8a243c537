"""Forks that compute: an error, a kill and an end are noticed, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from replica_cases import LOSS, model_and_batches, rngs

import minitransformer as mt
from minitransformer import system


def test_each_replica_has_a_process_of_its_own(monkeypatch):
    """The first this one, the other a fork, which ends with the block."""
    monkeypatch.setattr(mt.Replicas, "_pid", lambda self, i: os.getpid(), raising=False)
    replicas = mt.Replicas(model_and_batches(0)[0], 3)
    assert replicas._each("_pid", [()] * 3) == [os.getpid()] * 3
    with replicas.processes():
        here, *forks = replicas._each("_pid", [()] * 3)
        assert here == os.getpid() and len({here, *forks}) == 3
        assert forks == replicas._processes.pids
        assert replicas.peak_memory_mb() > system.peak_memory_mb()
    for pid in forks:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_in_a_process_is_raised_here_and_the_others_go_on(which):
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    wrong = batches[which]._replace(src_ids=batches[which].src_ids + 1000)
    with replicas.processes():
        expected = replicas.loss_and_gradients(LOSS, batches, rngs(2))
        with pytest.raises(mt.InputError, match="src_ids: expected ids"):
            replicas.loss_and_gradients(
                LOSS, [wrong if i == which else batches[i] for i in range(2)], rngs(2)
            )
        assert replicas.loss_and_gradients(LOSS, batches, rngs(2)) == expected


def test_a_process_that_was_killed_is_noticed():
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    with replicas.processes():
        os.kill(replicas._processes.pids[0], signal.SIGKILL)
        with pytest.raises(mt.errors.MinitransformerError, match="a worker process has died"):
            for _ in range(2):
                replicas.loss_and_gradients(LOSS, batches, rngs(2))


def test_processes_end_with_a_program_that_does_not_close_them(tmp_path):
    """And a Ctrl-C, which the terminal sends to all of them, is the first one's to answer."""
    script = tmp_path / "program.py"
    script.write_text(
        "import os, signal, time, minitransformer as mt\n"
        "from minitransformer.runs.evaluation import decode\n"
        "from minitransformer.parallel.processes import Processes\n"
        "serve = Processes._serve\n"
        "Processes._serve = lambda *given: (time.sleep(1), serve(*given))\n"  # the signal comes before a fork is ready
        "model = mt.Transformer(mt.TransformerConfig.preset('toy', 11))\n"
        "replicas = mt.Replicas(model, 2)\n"
        "block = replicas.processes()\n"
        "block.__enter__()\n"
        "time.sleep(0.2)\n"
        "os.kill(replicas._processes.pids[0], signal.SIGINT)\n"
        "print(replicas.in_shares(decode, [[3, 4], [5]]) != [], replicas._processes.pids[0])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    answered, pid = done.stdout.split()
    assert answered == "True"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_at_work_ends_with_a_process_that_is_killed(tmp_path, number):
    """It does not finish its share first."""
    script = tmp_path / "program.py"
    script.write_text(
        "import time\n"
        "from minitransformer.parallel.processes import Processes\n"
        "class Slow:\n"
        "    def work(self, i):\n"
        "        print(i, flush=True)\n"
        "        time.sleep(600)\n"
        "Processes(Slow(), 2).each('work', [(), ()])\n"
    )
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert {process.stdout.readline() for _ in range(2)} == {"0\n", "1\n"}
    process.send_signal(number)
    process.communicate(timeout=30)  # which ends when no process holds the pipe open
    assert process.returncode == -number
