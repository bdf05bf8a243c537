"""The first updates of a translation model, with W_Q, W_K, W_V as they are at first, and √2 times as large.

    python tests/benchmarks/first_weights.py DATA [--seeds 100 101 ...] [--updates 1250] [--larger] [--json FILE]

first_weights_torch.py, with the same arguments, trains the same model in PyTorch.

DATA holds the files of Multi30k (train, val; lc.norm.tok; en, de; gzipped), the settings are those of
examples/multi30k.json. For each seed, and after each evaluation: BLEU and loss on the validation set, the loss when
each of its first 256 sentences gets another one's source, and how sharp cross-attention is (docs/translation.md). One
run of 1,250 updates takes about 20 minutes of one core.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from sides import Table, parser

import minitransformer as mt
from minitransformer.runs.interrupt import Interrupted
from minitransformer.runs.progress import Progress
from minitransformer.tasks import Text
from minitransformer.training import by_length, make_batch

CONFIG = Path(__file__).parents[2] / "examples" / "multi30k.json"
EVERY = 250
LARGER = 2**0.5


def settings_of(data: Path, seed: int) -> mt.RunSettings:
    """The settings of the example, for one process."""
    settings = json.loads(CONFIG.read_text())
    files = {
        f"{ours}_{side}": str(data / f"{theirs}.lc.norm.tok.{language}.gz")
        for ours, theirs in (("train", "train"), ("valid", "val"))
        for side, language in (("src", "en"), ("tgt", "de"))
    }
    task = Text(**{name: settings.pop(name) for name in ("vocab_size", "bleu_tokenize")}, **files)
    return mt.RunSettings.of(task, {**settings, "processes": 1, "evaluate_every": EVERY}, seed)


def loss_with_another_source(model: mt.Transformer, pairs: list[Any]) -> float:
    """Nats a token when the i-th sentence of each batch gets the source of the one before it."""
    batches = [make_batch([pairs[i] for i in indices]) for indices in by_length(pairs, 2000)]
    n, loss_fn = sum(batch.n_tokens for batch in batches), mt.LabelSmoothedCrossEntropy(0.0)
    total = 0.0
    for batch in batches:
        logits, _ = model.forward(np.roll(batch.src_ids, 1, 0), batch.tgt_in, keep="nothing")
        total += float(loss_fn.forward(logits, batch.tgt_out, n)[0])
    return total


class Rows(Progress):
    """Adds a row to the table after each evaluation, in place of a line on standard error."""

    def __init__(self, table: Table, trainer: mt.Trainer) -> None:
        super().__init__(0, quiet=True)
        self.table, self.trainer = table, trainer

    def report(self, record: dict[str, Any]) -> None:
        if "valid" not in record:
            return
        row = {"seed": self.trainer.settings.seed, "updates": record["step"]}
        row |= {name: record["valid"][name] for name in ("bleu", "loss")}
        row["another"] = loss_with_another_source(self.trainer.model, self.trainer.sets["valid"][:256])
        row["sharp"] = record["cross_attention"]
        self.table.row(row, [f"{x:.2f}" if isinstance(x, float) else str(x) for x in row.values()])


def run_each(description: str | None, run: Callable[[mt.Trainer, int, Rows], None]) -> None:
    """Let `run` make the updates, their number given, of a trainer for each seed that was asked for."""
    options = parser(description)
    options.add_argument("data", type=Path)
    options.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 110)))
    options.add_argument("--updates", type=int, default=1250, help=f"a multiple of {EVERY}")
    options.add_argument("--larger", action="store_true", help="each matrix Xavier-uniform by itself")
    chosen = options.parse_args()
    titles = ["seed", "updates", "BLEU", "loss", "another source", "sharp"]
    table = Table("{:>5} {:>8} {:>6} {:>6} {:>14} {:>6}", titles, chosen.json)
    for seed in chosen.seeds:
        trainer = mt.Trainer(settings_of(chosen.data, seed))
        for name, p in trainer.model.parameters().items():
            if chosen.larger and name.rpartition(".")[2] in ("W_Q", "W_K", "W_V"):
                p.data *= LARGER
        run(trainer, chosen.updates, Rows(table, trainer))


def train(trainer: mt.Trainer, updates: int, rows: Rows) -> None:
    """With this package."""
    with suppress(Interrupted):
        trainer.run(rows, lambda: trainer.step >= updates)


if __name__ == "__main__":
    run_each(__doc__, train)
