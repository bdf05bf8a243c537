"""MPI jobs for tests: ranks that run a program under mpiexec, if it is there; by default rank_program.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitransformer.parallel.job import LAUNCHERS

BESIDE_PYTHON = Path(sys.executable).with_name("mpiexec")  # where pip puts MPICH's and Open MPI's
MPIEXEC = str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else shutil.which("mpiexec")
PROGRAM = Path(__file__).parents[1] / "adversarial" / "rank_program.py"


def has_mpi() -> bool:
    try:
        from mpi4py import get_config  # noqa: F401
    except ImportError:
        return False
    return MPIEXEC is not None


mpi = pytest.mark.skipif(not has_mpi(), reason="needs mpi4py and mpiexec: pip install mpi4py mpich")


def started(n: int, *arguments: Any, program: Path = PROGRAM, **variables: str) -> subprocess.Popen:
    environment = {name: x for name, x in os.environ.items() if name not in sum(LAUNCHERS, ())}
    environment |= {"OPENBLAS_NUM_THREADS": "1", **variables}
    environment["PYTHONPATH"] += os.pathsep + str(PROGRAM.parent)  # what conftest.py put there stays first
    # Open MPI's objections: to the user root, and to more ranks than cores
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}  # fmt: skip
    command = [MPIEXEC, "-n", n, sys.executable, program, *arguments]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        env=environment,
    )


def finished(process: subprocess.Popen) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def job(n: int, *arguments: Any, program: Path = PROGRAM, **variables: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `n` ranks that run `program`."""
    return finished(started(n, *arguments, program=program, **variables))


def relative_difference(x: np.ndarray, y: np.ndarray) -> float:
    """The largest, number by number."""
    return float((np.abs(x - y) / np.abs(y)).max())
