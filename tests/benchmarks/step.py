"""A training step here and in PyTorch: time and memory, side by side.

    python tests/benchmarks/step.py [SHAPE ...] [--rounds N] [--json FILE]        needs threadpoolctl

Each side runs in a process of its own; they take turns in short blocks, so that what else the machine does hits
both. Figures are medians; the spread is the middle half of the steps. "floor" is the time that the matrix products
of the step take at the rate of NumPy's product. Without PyTorch (2.13.0 was compared with), this side alone.
"""

from __future__ import annotations

from typing import Any

from shapes import SHAPES
from sides import TORCH, Table, Worker, parser, spread, take_turns

from minitransformer.bench import matmul_gflops

SIDES = {"numpy": "numpy_side.Step", **({"torch": "torch_peer.Step"} if TORCH else {})}


def compare(name: str, dropout: float, rounds: int) -> dict[str, Any]:
    """Both sides, and this one in multiples of the other, at one shape."""
    shape = SHAPES[name]
    workers = {side: Worker(what, shape=shape, dropout=dropout) for side, what in SIDES.items()}
    found = take_turns(workers, rounds)
    floor_ms = shape.step_flops() / (1e6 * matmul_gflops())
    row = {"shape": name, "dropout": dropout, "floor_ms": floor_ms, **found}
    if TORCH:
        row |= {f"{what}_ratio": found["numpy"][what] / found["torch"][what] for what in ("ms", "memory_mb")}
    return row


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "shapes", nargs="*", default=list(SHAPES), metavar="SHAPE", help="of " + ", ".join(SHAPES)
    )
    options.add_argument("--rounds", type=int, default=6, help="blocks of three steps for each side")
    chosen = options.parse_args()
    times = [f"{side} {what}" for side in ("NumPy", "PyTorch") for what in ("ms", "MB")]
    table = Table(
        "{:<6} {:>7} {:>9}  {:>8} {:<19} {:>8}  {:>10} {:<19} {:>10}  {:>7} {:>5}",
        ["shape", "dropout", "floor ms", times[0], "(middle half)", times[1], times[2], "(middle half)", times[3],
         "× time", "× MB"],
        chosen.json,
    )  # fmt: skip
    for dropout in (0.1, 0.0):
        for shape in chosen.shapes:
            row = compare(shape, dropout, chosen.rounds)
            cells = [shape, str(dropout), f"{row['floor_ms']:.1f}"]
            for side in SIDES:
                cells += [f"{row[side]['ms']:.1f}", spread(row[side]), f"{row[side]['memory_mb']:.0f}"]
            cells += [f"{row[ratio]:.2f}" for ratio in ("ms_ratio", "memory_mb_ratio") if TORCH]
            table.row(row, cells + [""] * (11 - len(cells)))


if __name__ == "__main__":
    main()
