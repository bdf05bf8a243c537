"""Reverse and copy at lengths that training never showed, by what the model knows of positions.

    python tests/benchmarks/lengths.py [METHOD ...] [--task reverse|copy] [--seeds N ...] [--steps N]
        [--json FILE] [--figure FILE]

Each method trains on sequences of 1 to 25 symbols and is measured on 1,000 new ones of each group of lengths, by greedy
decoding. A row a seed: exact match in percent, in brackets the share of right symbols, and the seconds of the training,
its evaluations included. Seeds below 100 are for the figures that are reported; what is tuned is tuned on others.
The figure shows where each method's last model looks while it answers a sequence of 40 symbols.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sides import Table, parser

import minitransformer as mt
from minitransformer.runs.evaluation import held_out
from minitransformer.tasks import Copy, Reverse, Task

# What each method changes in the task's own settings, which are those of "rotary, both ends, gaps".
SINUSOIDS: dict[str, Any] = {"positions": "sinusoidal", "random_gaps": 1}
METHODS: dict[str, dict[str, Any]] = {
    "rotary, both ends, gaps": {},
    "rotary, both ends": {"random_gaps": 1},
    "rotary, both ends, gaps, no dropout": {"dropout": 0.0},
    "rotary, end, gaps": {"count_source_from": "end"},
    "rotary, start, gaps": {"count_source_from": "start"},
    "rotary, both ends, gaps, the paper's schedule": {"schedule": "noam", "learning_rate": None},
    "sinusoids, both ends, gaps": {**SINUSOIDS, "random_gaps": 7},
    "sinusoids, both ends, random start": {**SINUSOIDS, "random_start": 80},
    "sinusoids, start": {**SINUSOIDS, "count_source_from": "start"},
}


def task_of(name: str) -> Task:
    """Reverse; or copying of the same sequences."""
    same = {
        "first_symbol": 0,
        "n_symbols": 50,
        "min_length": 1,
        "max_length": 25,
        "longest": 100,
        "epoch_size": 160,
    }
    return Reverse() if name == "reverse" else Copy(**same)


def train(task: Task, changes: dict[str, Any], seed: int) -> tuple[mt.Transformer, dict[str, Any]]:
    """The model of a training with these settings, and its figures, as result.json has them."""
    reverse = {**Reverse.model, **Reverse.training}
    settings = mt.RunSettings.of(task, {**reverse, **changes}, seed)
    trainer = mt.Trainer(settings)
    return trainer.model, trainer.run()


def draw(models: dict[str, mt.Transformer], task: Task, path: str) -> None:
    """Cross-attention of each model's layers, the mean over the heads, for one sequence of 40 symbols."""
    from minitransformer.figures import save
    from minitransformer.figures.attention import attention_weights
    from minitransformer.figures.canvas import new_figure

    source, target = next(pair for pair in held_out(task)["31-50"] if len(pair[0]) == 40)
    n_layers = next(iter(models.values())).config.n_layers
    figure = new_figure(2.2 * n_layers * len(models), 2.8)
    panels = iter(figure.subplots(1, n_layers * len(models)))
    for name, model in models.items():
        weights = attention_weights(model, list(source), list(target))["cross"].mean(1)
        for i, of_layer in enumerate(weights, 1):
            panel = next(panels)
            panel.imshow(of_layer, cmap="Blues", vmin=0, vmax=1)
            panel.set_title(f"{name},\nlayer {i}", fontsize=7)
            panel.tick_params(labelsize=6)
    save(figure, Path(path))


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "methods", nargs="*", default=list(METHODS), metavar="METHOD", help="; ".join(METHODS)
    )
    options.add_argument("--task", choices=("reverse", "copy"), default="reverse")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    options.add_argument("--figure", metavar="FILE")
    options.add_argument("--steps", type=int, default=Reverse.training["steps"])
    chosen = options.parse_args()
    task = task_of(chosen.task)
    groups = [name for name in held_out(task) if name != "valid"]
    table = Table(
        "{:<46} {:>5}" + " {:>15}" * len(groups) + " {:>6}", ["method", "seed", *groups, "s"], chosen.json
    )
    models = {}
    for method in chosen.methods:
        for seed in chosen.seeds:
            models[method], found = train(task, {**METHODS[method], "steps": chosen.steps}, seed)
            cells = [
                f"{100 * found['sets'][group]['exact_match']:.1f} ({100 * found['sets'][group]['token_accuracy']:.2f})"
                for group in groups
            ]
            table.row(
                {"method": method, "seed": seed, **found}, [method, seed, *cells, f"{found['seconds']:.0f}"]
            )
    if chosen.figure:
        draw(models, task, chosen.figure)


if __name__ == "__main__":
    main()
