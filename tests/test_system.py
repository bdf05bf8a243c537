"""What the system has to offer: forks, memory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from replica_cases import model_and_batches

import minitransformer as mt
from minitransformer import system


def test_without_threadpoolctl_or_a_fork_all_work_stays_in_this_process(monkeypatch):
    for there, platform in ((None, "linux"), (object(), "darwin"), (object(), "win32")):
        monkeypatch.setattr(system, "find_spec", lambda name, there=there: there)
        monkeypatch.setattr(system.sys, "platform", platform)
        assert not system.can_fork()
        replicas = mt.Replicas(model_and_batches(0)[0], 2)
        with replicas.processes():
            assert replicas._processes is None
    monkeypatch.setattr(system.sys, "platform", "linux")
    assert system.can_fork()
    monkeypatch.setattr(
        system.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True)
    )  # a worker of a Pool
    assert not system.can_fork()


def test_memory_is_not_known_where_the_system_does_not_say():
    assert system.peak_memory_mb() > 10
    assert system.peak_memory_mb([2**22 + 1]) is None  # no such process


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the two apart")
def test_the_memory_of_the_process_that_started_this_one_does_not_count():
    large = np.ones(50_000_000)  # 400 MB
    code = "from minitransformer.system import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 < float(done.stdout) < large.nbytes / 1e6 < system.peak_memory_mb()


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows says it otherwise")
@pytest.mark.parametrize(("limit", "mb"), [("1000000\n", 1.0), ("max\n", None)])
def test_the_limit_of_a_control_group_counts(monkeypatch, limit, mb):
    monkeypatch.setattr(system, "open", lambda path: io.StringIO(limit), raising=False)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert system.memory_mb() == (whole if mb is None else mb)
