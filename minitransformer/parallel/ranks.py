"""Data parallelism by MPI: several processes, perhaps on several machines, train one model.

A rank is a process that MPI started. Like a replica (see replicas.py), it has a copy of the weights, takes its share of
the batches of a step, and adds up a gradient of its own. The flat gradient buffers are then summed, always in the order
of the ranks, so the result does not depend on which was faster. But ranks share no memory, so each sums and updates
only its share of the numbers, 1/n of them:

    reduce-scatter   rank r receives its share of every rank's gradient, and adds them up
    update           Adam moves its share of the weights; it keeps m and v for that share only
    all-gather       rank r sends its share of the weights to all
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

from minitransformer.backend import Array, array_module
from minitransformer.errors import ConfigError, describe
from minitransformer.parallel.exchange import exchange
from minitransformer.parallel.job import mpi, place_in_job
from minitransformer.parts import parts
from minitransformer.system import cores

T = TypeVar("T")


class Ranks:
    """All ranks of an mpi4py communicator, seen from one of them; without a communicator, only this process.

    All ranks call each method, in the same order. With a single rank there is nothing to exchange.
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.n: int = 1 if comm is None else comm.size
        self.rank: int = 0 if comm is None else comm.rank
        # the number of this rank among those of its machine, and how many of these share its cores
        self.on_machine, self._n_sharing = 0, 1
        if self.n > 1:
            from mpi4py import MPI

            here = comm.Split_type(MPI.COMM_TYPE_SHARED)
            self.on_machine = here.rank
            self._n_sharing = sum(bool(cores() & theirs) for theirs in here.allgather(cores()))
        self._received: Array = None

    @classmethod
    def of_this_job(cls) -> Ranks:
        """All ranks of the MPI job that this process belongs to, if any. Raises ConfigError without mpi4py."""
        rank, n = place_in_job()
        if n == 1:
            return cls()
        try:
            MPI = mpi()  # its warnings are about the launcher, which is checked below
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"rank {rank} of a job of {n} needs mpi4py: pip install 'minitransformer[mpi]' ({error})"
            ) from None
        if MPI.COMM_WORLD.size != n:
            raise ConfigError(
                f"the launcher started {n} processes, but mpi4py's MPI library sees {MPI.COMM_WORLD.size}: start them "
                f"with the mpiexec of that library, {MPI.Get_library_version().split(',')[0].splitlines()[0]}"
            )
        # COMM_WORLD itself is left to `as_one`.
        return cls(MPI.COMM_WORLD.Dup())

    def first(self, n: int) -> Ranks:
        """The first `n` of these ranks (or, on any other rank, the others), each with as many cores as here."""
        if self.n == 1:
            return self
        few = Ranks(self.comm.Split(int(self.rank >= n), self.rank))
        few._n_sharing = self._n_sharing
        return few

    @property
    def n_cores(self) -> int:
        """How many processor cores this rank has to itself."""
        return max(1, len(cores()) // self._n_sharing)

    def share(self, size: int) -> slice:
        """Which of `size` numbers this rank sums and updates."""
        return parts(size, self.n)[self.rank]

    def reduce_scatter(self, grad: Array) -> None:
        """Reduce-scatter: put the sum over all ranks into this rank's share of `grad`; the rest stays as it is."""
        if self.n == 1:
            return
        shares = [grad[part] for part in parts(grad.size, self.n)]
        own, shape = shares[self.rank], (self.n, shares[self.rank].size)
        if self._received is None or (self._received.shape, self._received.dtype) != (shape, grad.dtype):
            self._received = array_module(grad).empty(shape, grad.dtype)
        received = [self._received[r] for r in range(self.n)]
        exchange(self.comm, shares, received)
        before, after = received[: self.rank], received[self.rank + 1 :]
        for x in before[1:]:
            before[0] += x
        # Since a + b is b + a, this is the sum in the order of the ranks, as in Replicas.
        for x in [*before[:1], *after]:
            own += x

    def all_gather(self, x: Array) -> None:
        """All-gather: fill `x` with each rank's share from that rank."""
        if self.n > 1:
            shares = [x[part] for part in parts(x.size, self.n)]
            exchange(self.comm, [shares[self.rank]] * self.n, shares)

    def numbers(self, *mine: float) -> list[list[float]]:
        """The numbers that each rank passed (all equally many), in the order of the ranks."""
        if self.n == 1:
            return [list(mine)]
        k = len(mine)
        found = array("d", bytes(8 * k * self.n))
        self.comm.Allgather(array("d", mine), found)
        return [list(found[r * k : (r + 1) * k]) for r in range(self.n)]

    def wait(self) -> None:
        """Wait until all ranks call this, without taking a core from those that still compute."""
        if self.n > 1:
            request = self.comm.Ibarrier()
            while not request.Test():
                time.sleep(1e-3)

    def objects(self, mine: T) -> list[T]:
        """The objects that the ranks passed, in the order of the ranks."""
        return [mine] if self.n == 1 else self.comm.allgather(mine)

    def any(self, mine: bool) -> bool:
        """Whether `mine` is true on any rank."""
        return any(flag for (flag,) in self.numbers(mine))

    def broadcast_from_root(self, function: Callable[[], T]) -> T:
        """Call function() on rank 0 only, and broadcast its answer, or its exception, to all ranks."""
        if self.n == 1:
            return function()
        answer: Any = None
        error: Exception | None = None
        if self.rank == 0:
            try:
                answer = function()
            except Exception as raised:
                error = raised
        answer, error = self.comm.bcast((answer, error))
        if error is not None:
            raise error
        return answer

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError, on all ranks, unless all pass the same settings and have the same versions."""
        if self.n == 1:
            return
        from minitransformer import __version__

        mine = {"minitransformer": __version__, "numpy": version("numpy")}
        for name, value in settings.items():
            mine |= value if isinstance(value, dict) else {name: value}
        first, *others = self.objects(mine)
        for rank, theirs in enumerate(others, 1):
            for name in first | theirs:
                ours, other = first.get(name), theirs.get(name)
                if ours != other:
                    got = f"{describe(ours)} on rank 0, {describe(other)} on rank {rank}"
                    raise ConfigError(f"{name}: expected the same on all ranks, got {got}")


ALONE = Ranks()
