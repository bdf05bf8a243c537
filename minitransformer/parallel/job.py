"""An MPI job as one program: which of its processes this is, who speaks, and how it ends."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any

PATIENCE = 5.0  # seconds that a rank which failed waits for the others to fail, too

# What launchers tell each process: its rank, and how many there are. mpiexec of MPICH, Intel MPI and MVAPICH, and
# srun --mpi=pmi2; mpiexec of Open MPI; srun --mpi=pmix. (Slurm counts tasks in a batch script as well, without PMI.)
LAUNCHERS = [
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
]


def place_in_job() -> tuple[int, int]:
    """This process's rank and the number of ranks, as the launcher has it; (0, 1) if there is none."""
    for rank, n in LAUNCHERS:
        if os.environ.get(rank, "").isdigit() and os.environ.get(n, "").isdigit():
            return int(os.environ[rank]), int(os.environ[n])
    return 0, 1


def as_one(run: Callable[[], int]) -> int:
    """run(), the whole program, in each process of a job: the status with which it ends. Rank 0 speaks for all.

    If a rank fails and the others do not, they would wait for it for ever. It says so, and ends them all.
    """
    rank, n = place_in_job()
    if n == 1:
        return run()
    with ExitStack() as silence:
        said = sys.stderr if rank == 0 else silence.enter_context(redirect_stderr(io.StringIO()))
        if rank > 0:
            silence.enter_context(redirect_stdout(io.StringIO()))
        try:
            status = run()
        except Exception:
            traceback.print_exc()
            status = 1
    if status == 0:
        return status
    MPI: Any = sys.modules.get("mpi4py.MPI")
    reason = said.getvalue().strip().rpartition("\n")[2] if isinstance(said, io.StringIO) else "see above"
    if MPI is None:  # no way to know how the others fare, or to end them
        if rank > 0 and reason:
            say(
                f"minitransformer: rank {rank} of {n} has failed, and if others wait for it, stop the job: {reason}"
            )
    elif not _all_end(MPI.COMM_WORLD):
        say(f"minitransformer: rank {rank} of {n} has failed, which ends the job: {reason}")
        time.sleep(0.3)  # for mpiexec to pass it on before it ends all
        MPI.COMM_WORLD.Abort(status)
    return status


def say(line: str) -> None:
    """Write a line to standard error, in one piece: the lines of several ranks come out one after the other.

    (`print` writes the text and the end of the line separately, and another rank's text can come between them.)
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _all_end(comm: Any) -> bool:
    """Whether all ranks come here, within some seconds."""
    request, deadline = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
