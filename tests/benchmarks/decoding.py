"""Decoding here and in PyTorch, both with the keys and values of the tokens before kept: tokens a second.

    python tests/benchmarks/decoding.py [--rounds N] [--json FILE]

Greedy, and with a beam of 4. Shape b, sources of up to 24 tokens, 24 new tokens for each, one sentence and 64 at a
time. The row of E that belongs to the end symbol is 0 on both sides, so its logit is 0 and never among the largest of
8,000: no sentence ends early, and both sides do the same work, the look for the end included. Sides take turns, each
in a process of its own; figures are medians, the spread is the middle half of the calls. Without PyTorch, this side
alone.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from shapes import NEW_TOKENS, SHAPES
from sides import TORCH, Table, Worker, parser, spread, take_turns

SIDES = {"numpy": "numpy_decoding.Decode", **({"torch": "torch_peer.Decode"} if TORCH else {})}
BATCHES = (1, 64)
BEAMS = (1, 4)  # 1: greedy


def compare(batch: int, beam: int, rounds: int) -> dict[str, Any]:
    """Both sides with one size of batch and one width of the beam."""
    shape = SHAPES["b"]._replace(batch=batch)
    found = take_turns({side: Worker(what, shape=shape, beam=beam) for side, what in SIDES.items()}, rounds)
    for side, figures in found.items():
        written = figures.pop("result")
        assert written == batch * NEW_TOKENS, f"{side} wrote {written} tokens: a sentence has ended early"
        figures["tokens_per_s"] = 1e3 * written / figures["ms"]
    return {"batch": batch, "beam": beam, **found}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=6, help="blocks of three calls for each side")
    chosen = options.parse_args()
    side = "tokens/s", "ms", "(middle half)"
    table = Table(
        "{:>5} {:>4}  {:>14} {:>8} {:<19} {:>16} {:>8} {:<19} {:>6}",
        ["batch", "beam", f"NumPy {side[0]}", *side[1:], f"PyTorch {side[0]}", *side[1:], "ratio"],
        chosen.json,
    )
    for batch, beam in product(BATCHES, BEAMS):
        row = compare(batch, beam, chosen.rounds)
        cells = [str(batch), str(beam)]
        for name in SIDES:
            figures = row[name]
            cells += [f"{figures['tokens_per_s']:,.0f}", f"{figures['ms']:.1f}", spread(figures)]
        if TORCH:  # of the times, as in step.py
            row["ms_ratio"] = row["numpy"]["ms"] / row["torch"]["ms"]
            cells.append(f"{row['ms_ratio']:.2f}")
        table.row(row, cells + [""] * (9 - len(cells)))


if __name__ == "__main__":
    main()
