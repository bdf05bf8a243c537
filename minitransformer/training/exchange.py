"""How arrays get from rank to rank: by MPI, or between GPUs by NCCL, where CuPy has it."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Sequence
from typing import Any

from minitransformer.backend import Array, array_module, on_gpu, to_host, zeros

# With these set to 1 or true, MPI libraries read and write a GPU's memory themselves (MPICH, HPE Cray, Open MPI).
CUDA_AWARE = ("MPIR_CVAR_ENABLE_GPU", "MPICH_GPU_SUPPORT_ENABLED", "OMPI_MCA_opal_cuda_support")


class Exchange:
    """Every rank of `comm` sends an array to each of the others, and receives one from each."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self._nccl: Any = None  # once it is known: a communicator of CuPy's, or False

    def __call__(self, outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
        """Send outgoing[r] to rank r and fill incoming[r] from there, for every r but this rank.

        What lies on GPUs goes by NCCL, if it is there and each rank has a GPU of its own; else by MPI, straight out of
        their memory if MPI can do that (see CUDA_AWARE), and through the CPU's if not.
        """
        n, rank = self.comm.size, self.comm.rank
        others = [(rank + i) % n for i in range(1, n)]  # not all to the same rank at first
        xp = array_module(outgoing[rank])
        if not on_gpu(outgoing[rank]):
            self._by_mpi(others, outgoing, incoming)
        elif self._has_nccl(xp):
            self._by_nccl(xp.cuda.get_current_stream().ptr, others, outgoing, incoming)
        elif any(os.environ.get(name, "").lower() in ("1", "true") for name in CUDA_AWARE):
            xp.cuda.get_current_stream().synchronize()  # MPI knows nothing of streams
            self._by_mpi(others, outgoing, incoming)
        else:
            landing = [zeros(x.shape, x.dtype) for x in incoming]
            self._by_mpi(others, [to_host(x) for x in outgoing], landing)
            for r in others:
                incoming[r][...] = xp.asarray(landing[r])

    def _by_mpi(self, others: list[int], outgoing: Sequence[Array], incoming: Sequence[Array]) -> None:
        from mpi4py import MPI

        receiving = [self.comm.Irecv(incoming[r], r) for r in others]
        MPI.Request.Waitall([*receiving, *(self.comm.Isend(outgoing[r], r) for r in others)])

    def _by_nccl(
        self, stream: int, others: list[int], outgoing: Sequence[Array], incoming: Sequence[Array]
    ) -> None:
        from cupy.cuda import nccl

        nccl.groupStart()  # up to groupEnd, all of them are one operation of the stream
        for r in others:
            self._nccl.send(outgoing[r].data.ptr, outgoing[r].nbytes, nccl.NCCL_INT8, r, stream)
            self._nccl.recv(incoming[r].data.ptr, incoming[r].nbytes, nccl.NCCL_INT8, r, stream)
        nccl.groupEnd()

    def _has_nccl(self, cupy: Any) -> bool:
        if self._nccl is None:
            try:
                with warnings.catch_warnings():  # CuPy's advice to install it; MPI does as well
                    warnings.simplefilter("ignore", UserWarning)
                    from cupy.cuda import nccl

                there = nccl.available
            except ImportError:
                there = False
            own = (socket.gethostname(), cupy.cuda.Device().pci_bus_id)
            gpus = self.comm.allgather(own if there else None)
            self._nccl = False
            if None not in gpus and len(set(gpus)) == self.comm.size:
                name = self.comm.bcast(nccl.get_unique_id() if self.comm.rank == 0 else None)
                self._nccl = nccl.NcclCommunicator(self.comm.size, name, self.comm.rank)
        return self._nccl is not False
