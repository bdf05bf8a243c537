"""Memory and time of a training step against the length of its one sentence, here and (to 2048) in PyTorch.

    python tests/benchmarks/length.py [LENGTH ...] [--json FILE]

Each length, and each side, in a process of its own; memory is the most it ever held, Python and libraries included.
"kB a token" is what each token more has cost since the length before: a constant where memory grows linearly,
twice as much each time where it grows with the square. Without PyTorch, this side alone.
"""

from __future__ import annotations

from typing import Any

from shapes import Shape
from sides import TORCH, Table, Worker, parser, take_turns

LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192]
LONGEST_FOR_TORCH = 2048  # above, it would hold gigabytes of attention weights


def compare(length: int) -> dict[str, Any]:
    """What each side needs at one length: {"numpy": figures, "torch": figures}."""
    arguments = {"shape": Shape(256, 4, 1024, 2, 8000, batch=1, length=length), "dropout": 0.1}
    workers = {"numpy": Worker("numpy_side.Step", **arguments)}
    if TORCH and length <= LONGEST_FOR_TORCH:
        workers["torch"] = Worker("torch_peer.Step", **arguments)
    return take_turns(workers, rounds=3, times=1, warm_up=1)


def cells(figures: dict[str, Any] | None) -> list[str]:
    """One side's part of a row; empty where it was not measured."""
    if figures is None:
        return 3 * [""]
    growth = f"{figures['kb_a_token']:.1f}" if "kb_a_token" in figures else ""
    return [f"{figures['ms']:.1f}", f"{figures['memory_mb']:.0f}", growth]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("lengths", nargs="*", type=int, default=LENGTHS, metavar="LENGTH")
    chosen = options.parse_args()
    titles = [f"{side} {what}" for side in ("NumPy", "PyTorch") for what in ("ms", "MB", "kB a token")]
    table = Table("{:>6}  {:>9} {:>9} {:>17}  {:>11} {:>11} {:>19}", ["length", *titles], chosen.json)
    before: dict[str, Any] = {}
    for length in chosen.lengths:
        row = {"length": length, **compare(length)}
        for side in row.keys() & before.keys() - {"length"}:
            more = row[side]["memory_mb"] - before[side]["memory_mb"]
            row[side]["kb_a_token"] = 1e3 * more / (length - before["length"])
        table.row(row, [length, *cells(row.get("numpy")), *cells(row.get("torch"))])
        before = row


if __name__ == "__main__":
    main()
