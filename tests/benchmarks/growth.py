"""Time of a training step against depth and width, beside what the arithmetic says.

    python tests/benchmarks/growth.py [--rounds N] [--json FILE]

Each size in a process of its own; the sizes of a series take turns. Figures are medians; "× time" and "× GFLOP" are
multiples of the first line of the series: where they agree, a step takes what its matrix products take, and where
the time grows less, the first line spends a larger part on everything else.
"""

from __future__ import annotations

from shapes import Shape
from sides import Table, Worker, parser, spread, take_turns

MIDDLE = Shape(256, 4, 1024, 2, 1000, batch=32, length=24)
SERIES = {
    "n_layers": {n: MIDDLE._replace(n_layers=n) for n in (1, 2, 4, 8)},
    "d_model": {d: MIDDLE._replace(d_model=d, d_ff=4 * d) for d in (64, 128, 256, 512)},
}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=6, help="blocks of three steps for each size")
    chosen = options.parse_args()
    table = Table(
        "{:<8} {:>4}  {:>8} {:<19} {:>8} {:>9} {:>8}",
        ["", "", "ms", "(middle half)", "GFLOP", "× time", "× GFLOP"],
        chosen.json,
    )
    for name, shapes in SERIES.items():
        found = take_turns(
            {size: Worker("numpy_side.Step", shape=shape, dropout=0.1) for size, shape in shapes.items()},
            chosen.rounds,
        )
        flops = {size: shape.step_flops() for size, shape in shapes.items()}
        first = next(iter(shapes))
        for size, figures in found.items():
            times, times_flops = figures["ms"] / found[first]["ms"], flops[size] / flops[first]
            more = {"flops": flops[size], "times": times, "times_flops": times_flops}
            cells = [f"{figures['ms']:.1f}", spread(figures), f"{1e-9 * flops[size]:.2f}"]
            table.row(
                {"series": name, "size": size, **figures, **more},
                [name, size, *cells, f"{times:.2f}", f"{times_flops:.2f}"],
            )


if __name__ == "__main__":
    main()
