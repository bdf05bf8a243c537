"""How BLEU grows with the number of updates: what the checkpoints of a run of task text translate like.

    python tests/benchmarks/bleu_curve.py RUN... [--last N] [--beam K] [--alpha A] [--every M] [--figure FILE]

For every M-th checkpoint of each run that is still there (train with a large keep_checkpoints): the wall-clock time of
the training until then, evaluations and checkpoints included, the greedy BLEU of its weights on the validation set as
the run noted it, and the BLEU of the mean of the last N checkpoints' weights on the test set, with a beam of K.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sides import parser

import minitransformer as mt
from minitransformer.backend import generator
from minitransformer.runs.evaluation import measure
from minitransformer.runs.weights import mean_of_checkpoints
from minitransformer.system import can_fork, n_cores


def rows(folder: mt.RunFolder, last: int, beam: int, alpha: float, every: int) -> Iterator[dict[str, Any]]:
    """The figures at each of the checkpoints."""
    settings = folder.settings()
    task, paths = settings.task, folder.checkpoints()
    pairs = task.evaluation_sets(generator(0))["test"]
    noted = {record["step"]: record for record in folder.metrics() if "valid" in record}
    model = mt.Transformer(settings.model)
    replicas = mt.Replicas(model, n_cores() if can_fork() else 1)
    with replicas.processes():
        for i in range(len(paths) - 1, last - 2, -every)[::-1]:  # where there are `last` of them
            mean, metas = mean_of_checkpoints(folder, paths[i + 1 - last : i + 1])
            step = metas[-1]["step"]
            if step not in noted:  # saved when the run was stopped
                continue
            model.load_state_dict({name: x.astype("float32") for name, x in mean.items()})
            figures = measure(replicas, task, "test", pairs, beam, alpha)
            record = noted[step]
            yield {
                "step": step,
                "minutes": record["seconds"] / 60,
                "valid_greedy_bleu": record["valid"]["bleu"],
                "test_bleu": figures["bleu"],
                "test_loss": figures["loss"],
            }


def draw(found: dict[str, list[dict[str, Any]]], label: str, path: Path) -> None:
    """BLEU over updates, a line for each run."""
    from minitransformer.figures import save
    from minitransformer.figures.canvas import new_figure

    figure = new_figure(7, 4)
    panel = figure.subplots()
    for i, (run, of_run) in enumerate(found.items()):
        noted = [record for record in mt.RunFolder(run).metrics() if "valid" in record]
        valid, test = [record["valid"]["bleu"] for record in noted], [row["test_bleu"] for row in of_run]
        panel.plot(
            [record["step"] for record in noted], valid, color="C0", marker=".", linewidth=1,
            label=None if i else "validation set, greedy, the weights as they are",
        )  # fmt: skip
        panel.plot(
            [row["step"] for row in of_run], test, color="C1", marker="o", markersize=4, linewidth=1,
            label=None if i else f"test set, {label}",
        )  # fmt: skip
    panel.set_xlabel("updates")
    panel.set_ylabel("BLEU")
    panel.grid(alpha=0.3)
    panel.legend(loc="lower right")
    save(figure, path)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("runs", nargs="+", metavar="RUN")
    options.add_argument("--last", type=int, default=10)
    options.add_argument("--beam", type=int, default=5)
    options.add_argument("--alpha", type=float, default=0.6)
    options.add_argument("--every", type=int, default=1)
    options.add_argument("--figure", type=Path)
    chosen = options.parse_args()
    found: dict[str, list[dict[str, Any]]] = {run: [] for run in chosen.runs}
    for run in found:
        print(f"{run}\n{'step':>6} {'minutes':>8} {'valid, greedy':>14} {'test, average, beam':>20}")
        for row in rows(mt.RunFolder(run), chosen.last, chosen.beam, chosen.alpha, chosen.every):
            found[run].append(row)
            print(
                "{step:>6} {minutes:>8.1f} {valid_greedy_bleu:>14.2f} {test_bleu:>20.2f}".format(**row),
                flush=True,
            )
            if chosen.json:
                chosen.json.write_text(json.dumps(found, indent=1))
    if chosen.figure:
        draw(found, f"beam {chosen.beam}, mean of {chosen.last} checkpoints", chosen.figure)


if __name__ == "__main__":
    main()
