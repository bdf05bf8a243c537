"""Gradients there and weights back: the exchange of training/ranks.py beside MPI's own operations for it.

    mpiexec -n 2 python tests/benchmarks/exchange.py [--rounds N] [--json FILE]

For gradients of two sizes in float32; the three take turns, all ranks begin together. Medians; in brackets the middle
half.
"""

from __future__ import annotations

import time
from contextlib import nullcontext, redirect_stdout
from io import StringIO

import numpy as np
from sides import Table, middle, parser, spread

from minitransformer.parallel.ranks import Ranks


def main() -> None:
    from mpi4py import MPI

    ranks, options = Ranks.of_this_job(), parser(__doc__)
    options.add_argument("--rounds", type=int, default=15)
    chosen = options.parse_args()
    with nullcontext() if ranks.rank == 0 else redirect_stdout(StringIO()):
        titles = [
            f"numbers, {ranks.n} ranks",
            "ranks.py ms",
            "",
            "Reduce_scatter, Allgather ms",
            "",
            "Allreduce ms",
            "",
        ]
        path = chosen.json if ranks.rank == 0 else None
        table = Table("{:>18}  {:>11} {:<18} {:>28} {:<18} {:>12} {:<18}", titles, path)
        for size in (2**17, 20_000_000):
            size -= size % ranks.n
            grad, own = np.ones(size, "float32"), np.empty(size // ranks.n, "float32")
            ways = {
                "ranks": lambda x=grad: (ranks.reduce_scatter(x), ranks.all_gather(x)),
                "reduce_scatter": lambda x=grad, own=own: (
                    ranks.comm.Reduce_scatter_block(x, own),
                    ranks.comm.Allgather(own, x),
                ),
                "allreduce": lambda x=grad: ranks.comm.Allreduce(MPI.IN_PLACE, x),
            }
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for round in range(chosen.rounds + 1):
                for name, way in ways.items():
                    grad[...] = 1
                    ranks.comm.Barrier()
                    start = time.perf_counter()
                    way()
                    if round:  # the first is for memory that nobody has touched yet
                        seconds[name].append(time.perf_counter() - start)
            found = {name: middle(times) for name, times in seconds.items()}
            cells = [f"{size:,}"]
            for figures in found.values():
                cells += [f"{figures['ms']:.2f}", spread(figures)]
            table.row({"ranks": ranks.n, "size": size, **found}, cells)


if __name__ == "__main__":
    main()
