"""A training step here and in PyTorch: time and memory, side by side.

    python tests/benchmarks/step.py [SHAPE ...] [--rounds N] [--json FILE]        needs torch==2.13.0 and threadpoolctl

Each side runs in a process of its own; they take turns in short blocks, so that what else the machine does hits
both. Figures are medians; the spread is the middle half of the steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from shapes import SHAPES

HERE = Path(__file__).parent
SIDES = ("numpy", "torch")


class Worker:
    """A process that takes steps when asked to."""

    def __init__(self, side: str, shape: str, dropout: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "worker.py", side, shape, str(dropout)],
            cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.seconds: list[float] = []

    def take(self, steps: int, record: bool = True) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(steps, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.seconds += answer["seconds"] if record else []
        self.loss, self.memory_mb = answer["loss"], answer["memory_mb"]

    def close(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        low, median, high = statistics.quantiles(self.seconds, n=4)
        return {"ms": 1e3 * median, "ms_low": 1e3 * low, "ms_high": 1e3 * high, "memory_mb": self.memory_mb}


def matmul_gflops(n: int = 1024, repeats: int = 10) -> float:
    """The best rate of a matrix product of NumPy's on this machine, in 10^9 operations a second."""
    x = np.ones((n, n), np.float32)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return 2e-9 * n**3 / best


def compare(shape: str, dropout: float, rounds: int) -> dict[str, Any]:
    """Both sides at one shape."""
    workers = {side: Worker(side, shape, dropout) for side in SIDES}
    for worker in workers.values():
        worker.take(2, record=False)
    for round in range(rounds):
        for side in SIDES if round % 2 == 0 else SIDES[::-1]:
            workers[side].take(3)
    floor_ms = SHAPES[shape].step_flops() / (1e6 * matmul_gflops())
    found = {side: worker.close() for side, worker in workers.items()}
    ratio = {f"{what}_ratio": found["numpy"][what] / found["torch"][what] for what in ("ms", "memory_mb")}
    return {"shape": shape, "dropout": dropout, "floor_ms": floor_ms, **found, **ratio}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "shapes", nargs="*", default=["a", "b", "c", "d"], metavar="SHAPE", help=", ".join(SHAPES)
    )
    parser.add_argument("--rounds", type=int, default=6, help="blocks of three steps for each side")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    columns = "{:<6} {:>7}  {:>8} {:<19} {:>10} {:<19} {:>5}   {:>13} {:>6}  {:>8}"
    print(columns.format("shape", "dropout", "NumPy ms", "(middle half)", "PyTorch ms", "(middle half)",
                         "ratio", "memory MB", "ratio", "floor ms"))  # fmt: skip
    rows = []
    for dropout in (0.1, 0.0):
        for shape in options.shapes:
            row = compare(shape, dropout, options.rounds)
            ours, torch = row["numpy"], row["torch"]
            spread = [f"({side['ms_low']:.1f} … {side['ms_high']:.1f})" for side in (ours, torch)]
            memory = f"{ours['memory_mb']:.0f} / {torch['memory_mb']:.0f}"
            print(columns.format(shape, dropout, f"{ours['ms']:.1f}", spread[0], f"{torch['ms']:.1f}", spread[1],
                                 f"{row['ms_ratio']:.2f}", memory, f"{row['memory_mb_ratio']:.2f}",
                                 f"{row['floor_ms']:.1f}"), flush=True)  # fmt: skip
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
