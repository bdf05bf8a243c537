"""A decoder alone in the sizes of task chars, here and in PyTorch: a training step, and sampling one sequence.

    python tests/benchmarks/language_model.py [--rounds N] [--json FILE]          needs threadpoolctl

Sides take turns, each in a process of its own; figures are medians, the spread is the middle half. Both sides keep the
keys and values of the characters before, and read the last half anew when the context of 64 is full. Without PyTorch,
this side alone.
"""

from __future__ import annotations

from shapes import Shape
from sides import TORCH, Table, Worker, parser, spread, take_turns

CHARS = Shape(128, 4, 512, 4, 68, 12, 64)
WRITTEN = 512  # characters at a call


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=8, help="blocks of three calls for each side")
    chosen = options.parse_args()
    table = Table(
        "{:<24} {:>9} {:<19} {:>11} {:<19} {:>7}",
        ["what", "NumPy ms", "(middle half)", "PyTorch ms", "(middle half)", "ratio"],
        chosen.json,
    )
    sides = {"numpy": "numpy_language_model", **({"torch": "torch_language_model"} if TORCH else {})}
    for what, name, arguments in (
        ("training step", "Step", {}),
        (f"{WRITTEN} characters", "Sample", {"n": WRITTEN}),
    ):
        workers = {side: Worker(f"{file}.{name}", shape=CHARS, **arguments) for side, file in sides.items()}
        found = take_turns(workers, chosen.rounds, times=20 if name == "Step" else 3)
        cells = [what]
        for side in sides:
            cells += [f"{found[side]['ms']:.1f}", spread(found[side])]
        if TORCH:
            cells.append(f"{found['numpy']['ms'] / found['torch']['ms']:.2f}")
        table.row({"what": what, **found}, cells + [""] * (6 - len(cells)))


if __name__ == "__main__":
    main()
