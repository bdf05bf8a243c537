"""An MPI job as one program: which rank this process is, which rank prints, and how the job ends."""

from __future__ import annotations

import io
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import Any

from minitransformer.errors import ConfigError, describe
from minitransformer.streams import say

PATIENCE = 5.0  # seconds for which a rank that failed waits for the others to fail too

# The variables in which launchers set the rank and the number of ranks: mpiexec of MPICH, Intel MPI and MVAPICH, and
# srun --mpi=pmi2; mpiexec of Open MPI; srun --mpi=pmix. (In a batch script Slurm sets its own, but none of PMI's.)
LAUNCHERS = [
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
]


def place_in_job() -> tuple[int, int]:
    """This process's rank and the number of ranks, as set by the launcher; (0, 1) without one.

    Raises ConfigError if there are several ranks, and this process's rank is not the number of one of them.
    """
    for rank, n in LAUNCHERS:
        n_ranks = _count(os.environ.get(n, "")) or 0
        if rank in os.environ and n_ranks > 1:
            number = _count(os.environ[rank])
            if number is None or number >= n_ranks:
                raise ConfigError(
                    f"{rank}: expected a rank 0 … {n_ranks - 1}, as {n}={n_ranks}, got {describe(os.environ[rank])}; "
                    f"outside a job, unset both"
                )
            return number, n_ranks
    return 0, 1


def _count(text: str) -> int | None:
    """The number that a text stands for, of ranks or of one rank; None if it is not such a number."""
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def as_one(run: Callable[[], int], command: Sequence[str] = ()) -> int:
    """Run the whole program, `run`, in each process of a job, and return its exit status. Only rank 0 prints.

    If a rank fails and the others do not, they would wait for it for ever. So it prints why, and ends the job. Ranks
    that were started with different commands would wait for each other too, so they are refused.
    """
    try:
        rank, n = place_in_job()
    except ConfigError as error:
        say(f"minitransformer: error: {error}")
        return 2
    # If MPI knows of no job, the variables were left behind by another program, and must not silence anybody.
    if n == 1 or not _known_to_mpi(n):
        return run()
    if (commands := _commands(command)) is not None:
        if rank == 0:
            say(f"minitransformer: error: expected the same command on all ranks, got {commands}")
        return 2
    with ExitStack() as silence:
        said = sys.stderr if rank == 0 else silence.enter_context(redirect_stderr(io.StringIO()))
        if rank > 0:
            silence.enter_context(redirect_stdout(silence.enter_context(open(os.devnull, "w"))))
        try:
            status = run()
        except Exception:
            traceback.print_exc()
            status = 1
    if status == 0:
        return status
    from mpi4py import MPI

    reason = said.getvalue().strip().rpartition("\n")[2] if isinstance(said, io.StringIO) else "see above"
    if not _all_end(MPI.COMM_WORLD):
        say(f"minitransformer: rank {rank} of {n} has failed, which ends the job: {reason}")
        time.sleep(0.3)  # for mpiexec to pass the message on before it ends all ranks
        MPI.COMM_WORLD.Abort(status)
    return status


def _known_to_mpi(n: int) -> bool:
    """Whether mpi4py is there and its MPI library sees `n` ranks. (Ranks.of_this_job says what is wrong if not.)"""
    try:
        return bool(mpi().COMM_WORLD.size == n)
    except (ImportError, RuntimeError):
        return False


def mpi() -> Any:
    """mpi4py.MPI, without its warnings. Raises ImportError without mpi4py, RuntimeError without an MPI library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        from mpi4py import MPI
    return MPI


def _commands(mine: Sequence[str]) -> str | None:
    """The first two commands that differ among the ranks, in words; None if all ranks have the same."""
    from mpi4py import MPI

    first, *others = MPI.COMM_WORLD.allgather([str(word) for word in mine])
    for rank, theirs in enumerate(others, 1):
        if theirs != first:
            return f"{' '.join(first)!r} on rank 0, {' '.join(theirs)!r} on rank {rank}"
    return None


def _all_end(comm: Any) -> bool:
    """Whether all ranks call this within PATIENCE seconds."""
    request, deadline = comm.Ibarrier(), time.monotonic() + PATIENCE
    while not request.Test():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
