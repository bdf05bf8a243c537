"""A training step of n ranks beside the same step of one process, with as many replicas as pay there.

    python tests/benchmarks/ranks.py [SHAPE ...] [-n N] [--rounds N] [--json FILE]      needs mpi4py and mpiexec

Both sides share the same batch among the cores of this machine: the ranks as processes that mpiexec started, each with
its own weights; the one process with forks that share its weights (or with threads in its matrix products, where that
pays). They take turns in short blocks; figures are medians, the spread is the middle half.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from numpy_side import Step
from shapes import SHAPES, Shape
from sides import Table, Worker, parser, spread, take_turns

from minitransformer.parallel.ranks import Ranks


class RankStep(Step):
    """The step, on all ranks: rank 0 is asked for it, and asks the others."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        ranks = Ranks.of_this_job()
        super().__init__(shape, dropout, ranks=ranks)
        if ranks.rank == 0:
            atexit.register(self.go_on, False)
            return
        while self.go_on():
            super().__call__()
        sys.exit()

    def __call__(self) -> float:
        self.go_on()
        return super().__call__()

    def go_on(self, answer: bool = True) -> bool:
        """Rank 0's answer. MPI waits at full speed, which would slow the other side down: after a moment, sleep."""
        told, began = bytearray([answer]), time.monotonic()
        request = self.replicas.ranks.comm.Ibcast(told, 0)
        while not request.Test():
            if time.monotonic() > began + 0.02:
                time.sleep(0.002)
        return bool(told[0])


def compare(name: str, dropout: float, n: int, rounds: int) -> dict[str, Any]:
    """Both sides at one shape."""
    beside = Path(sys.executable).with_name("mpiexec")
    launcher = (str(beside) if beside.exists() else shutil.which("mpiexec") or "mpiexec", "-n", str(n))
    arguments = {"shape": SHAPES[name], "dropout": dropout}
    sides = {
        "one": Worker("numpy_side.Step", **arguments),
        "ranks": Worker("ranks.RankStep", launcher, **arguments),
    }
    found = take_turns(sides, rounds)
    return {
        "shape": name,
        "dropout": dropout,
        "n": n,
        **found,
        "ratio": found["ranks"]["ms"] / found["one"]["ms"],
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "shapes", nargs="*", default=["a", "b", "c"], metavar="SHAPE", help="of " + ", ".join(SHAPES)
    )
    options.add_argument("-n", type=int, default=2, help="ranks (default: 2)")
    options.add_argument("--rounds", type=int, default=6, help="blocks of three steps for each side")
    chosen = options.parse_args()
    table = Table(
        "{:<6} {:>7} {:>6}  {:>15} {:<19} {:>9} {:<19} {:>6}",
        [
            "shape",
            "dropout",
            "ranks",
            "one process ms",
            "(middle half)",
            "ranks ms",
            "(middle half)",
            "ratio",
        ],
        chosen.json,
    )
    for name in chosen.shapes:
        row = compare(name, 0.1, chosen.n, chosen.rounds)
        cells = [name, row["dropout"], chosen.n]
        for side in ("one", "ranks"):
            cells += [f"{row[side]['ms']:.1f}", spread(row[side])]
        table.row(row, [*map(str, cells), f"{row['ratio']:.2f}"])


if __name__ == "__main__":
    main()
