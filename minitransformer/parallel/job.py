"""An MPI job as one program: which rank this process is, which rank prints, and how the job ends."""

from __future__ import annotations

import io
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any

PATIENCE = 5.0  # seconds that a failed rank waits for the others to fail, too

# The variables in which launchers set the rank and the number of ranks: mpiexec of MPICH, Intel MPI and MVAPICH, and
# srun --mpi=pmi2; mpiexec of Open MPI; srun --mpi=pmix. (In a batch script Slurm sets its own, but none of PMI's.)
LAUNCHERS = [
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
]


def place_in_job() -> tuple[int, int]:
    """This process's rank and the number of ranks, as set by the launcher; (0, 1) without one."""
    for rank, n in LAUNCHERS:
        if os.environ.get(rank, "").isdigit() and os.environ.get(n, "").isdigit():
            return int(os.environ[rank]), int(os.environ[n])
    return 0, 1


def as_one(run: Callable[[], int]) -> int:
    """Run the whole program, `run`, in each process of a job, and return its exit status. Only rank 0 prints.

    If a rank fails and the others do not, they would wait for it for ever. So it prints why, and ends the job.
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
    if MPI is None:  # no way to ask the other ranks, or to end them
        if rank > 0 and reason:
            say(
                f"minitransformer: rank {rank} of {n} has failed, and if others wait for it, stop the job: {reason}"
            )
    elif not _all_end(MPI.COMM_WORLD):
        say(f"minitransformer: rank {rank} of {n} has failed, which ends the job: {reason}")
        time.sleep(0.3)  # for mpiexec to pass the message on before it ends all ranks
        MPI.COMM_WORLD.Abort(status)
    return status


def say(line: str) -> None:
    """Write a line to standard error in one piece, so that the lines of several ranks do not mix.

    (`print` writes the text and the end of the line separately, and another rank's text can come between them.)
    """
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _all_end(comm: Any) -> bool:
    """Whether all ranks call this within PATIENCE seconds."""
    request, deadline = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
