"""The exchange of arrays between ranks, by MPI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from minitransformer.backend import Array, array_module, on_gpu, to_host, zeros

# With these set to 1 or true, MPI libraries read and write a GPU's memory themselves (MPICH, HPE Cray, Open MPI).
CUDA_AWARE = ("MPIR_CVAR_ENABLE_GPU", "MPICH_GPU_SUPPORT_ENABLED", "OMPI_MCA_opal_cuda_support")


def exchange(comm: Any, outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
    """Send outgoing[r] to rank r of `comm` and fill incoming[r] from there, for every r but this rank.

    Arrays on a GPU are read straight from its memory if MPI can do that (see CUDA_AWARE; this has never been run on
    several GPUs); otherwise they go through the CPU's memory.
    """
    n, rank = comm.size, comm.rank
    # in an order that does not make all ranks send to the same one at first
    others = [(rank + i) % n for i in range(1, n)]
    xp = array_module(outgoing[rank])
    if not on_gpu(outgoing[rank]):
        _by_mpi(comm, others, outgoing, incoming)
    elif any(os.environ.get(name, "").lower() in ("1", "true") for name in CUDA_AWARE):
        xp.cuda.get_current_stream().synchronize()  # MPI knows nothing of CUDA streams
        _by_mpi(comm, others, outgoing, incoming)
    else:
        landing = [zeros(x.shape, x.dtype) for x in incoming]
        _by_mpi(comm, others, [to_host(x) for x in outgoing], landing)
        for r in others:
            incoming[r][...] = xp.asarray(landing[r])


def _by_mpi(comm: Any, others: list[int], outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
    from mpi4py import MPI

    receiving = [comm.Irecv(incoming[r], r) for r in others]
    MPI.Request.Waitall([*receiving, *(comm.Isend(outgoing[r], r) for r in others)])
