"""A training step on a GPU, here and in PyTorch eager: time between two events of the device, and memory.

    python tests/benchmarks/gpu.py [SHAPE ...] [--rounds N] [--dropout P ...] [--json FILE]

Needs CuPy, PyTorch and a CUDA GPU. float32, without TF32 and with it, for both. Each side is a process of its own; they
take turns in blocks of steps. Both read the loss after every step, as a training loop does. "share" is the rate of the
step's matrix products in the measured rate of CuPy's own large product.
"""

from __future__ import annotations

import os
import statistics
from typing import Any

import numpy as np
from shapes import SHAPES, Shape
from sides import Table, Worker, parser

STEPS = 20  # in a block


class Cupy:
    """This project's step: milliseconds each, of a block of them."""

    def __init__(self, shape: Shape, dropout: float, tf32: bool) -> None:
        os.environ["CUPY_TF32"] = str(int(tf32))  # read when CuPy is imported
        import cupy
        from numpy_side import Step

        self.cuda, self.step = cupy.cuda, Step(shape, dropout, "cuda")
        self.pool = cupy.get_default_memory_pool()

    def __call__(self) -> dict[str, float]:
        start, stop = self.cuda.Event(), self.cuda.Event()
        start.record()
        for _ in range(STEPS):
            self.step()
        stop.record()
        stop.synchronize()
        ms = self.cuda.get_elapsed_time(start, stop) / STEPS
        return {"ms": ms, "gpu_memory_mb": self.pool.total_bytes() / 1e6}


class Torch:
    """PyTorch's."""

    def __init__(self, shape: Shape, dropout: float, tf32: bool) -> None:
        import torch
        from torch_peer import Step

        torch.backends.cuda.matmul.allow_tf32 = tf32
        self.cuda, self.step = torch.cuda, Step(shape, dropout, "cuda")

    def __call__(self) -> dict[str, float]:
        start, stop = (self.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(STEPS):
            self.step()
        stop.record()
        stop.synchronize()
        return {
            "ms": start.elapsed_time(stop) / STEPS,
            "gpu_memory_mb": self.cuda.max_memory_reserved() / 1e6,
        }


class Product:
    """The rate of a large matrix product, in 10^9 operations a second."""

    def __init__(self, shape: Shape, tf32: bool) -> None:
        os.environ["CUPY_TF32"] = str(int(tf32))
        import cupy

        # random numbers: constants take less power, so that the clock stays higher than in earnest
        x = np.random.default_rng(1).standard_normal((8192, 8192), "float32")
        self.cuda, self.x = cupy.cuda, cupy.asarray(x)

    def __call__(self) -> float:
        start, stop = self.cuda.Event(), self.cuda.Event()
        start.record()
        for _ in range(STEPS):
            self.x @ self.x
        stop.record()
        stop.synchronize()
        return 2e-6 * STEPS * len(self.x) ** 3 / self.cuda.get_elapsed_time(start, stop)


def compare(name: str, dropout: float, tf32: bool, rounds: int) -> dict[str, Any]:
    """Both sides at one shape."""
    shape = SHAPES[name]
    product = Worker("gpu.Product", shape=shape, tf32=tf32)
    product.take(2)
    rate = product.close()["result"]
    workers = {s: Worker(f"gpu.{s}", shape=shape, dropout=dropout, tf32=tf32) for s in ("Cupy", "Torch")}
    blocks: dict[str, list[dict[str, float]]] = {side: [] for side in workers}
    for round in range(rounds + 1):
        for side, worker in workers.items():
            worker.take(1)
            blocks[side] += [worker.result] if round else []  # the first compiles and fills the memory pools
    for worker in workers.values():
        worker.close()
    ms = {side: statistics.median(block["ms"] for block in found) for side, found in blocks.items()}
    gflops = shape.step_flops() / (1e6 * ms["Cupy"])
    memory = {side: found[-1]["gpu_memory_mb"] for side, found in blocks.items()}
    return {"shape": name, "dropout": dropout, "tf32": tf32, "ms": ms, "gpu_memory_mb": memory,
            "ratio": ms["Cupy"] / ms["Torch"], "share": gflops / rate}  # fmt: skip


def card() -> str:
    """The name of the GPU."""
    import cupy

    name: bytes = cupy.cuda.runtime.getDeviceProperties(0)["name"]
    return name.decode()


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "shapes", nargs="*", default=["a", "g"], metavar="SHAPE", help="of " + ", ".join(SHAPES)
    )
    options.add_argument("--rounds", type=int, default=10, help=f"blocks of {STEPS} steps for each side")
    options.add_argument("--dropout", type=float, nargs="+", default=[0.1, 0.0], metavar="P")
    chosen = options.parse_args()
    titles = ["shape", "dropout", "TF32", "CuPy ms", "MB", "PyTorch ms", "MB", "× time", "share"]
    table = Table("{:<6} {:>7} {:>5}  {:>8} {:>8}  {:>10} {:>8}  {:>7} {:>6}", titles, chosen.json)
    table.machine["card"] = card()
    print(table.machine["card"])
    for tf32 in (False, True):
        for dropout in chosen.dropout:
            for shape in chosen.shapes:
                row = compare(shape, dropout, tf32, chosen.rounds)
                cells = [shape, dropout, "yes" if tf32 else "no"]
                for side in ("Cupy", "Torch"):
                    cells += [f"{row['ms'][side]:.2f}", f"{row['gpu_memory_mb'][side]:.0f}"]
                table.row(row, [*map(str, cells), f"{row['ratio']:.2f}", f"{row['share']:.2f}"])


if __name__ == "__main__":
    main()
