"""`minitransformer train`: trains a model with settings from the command line, into a run folder."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

from minitransformer.commands.chosen_settings import assigned, kinds_of, names_of, settings_of
from minitransformer.commands.common import (
    Answer,
    Commands,
    device,
    example,
    folder_word,
    integer,
    program,
    quoted,
)
from minitransformer.commands.evaluate import summary
from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.errors import ConfigError
from minitransformer.one_stack_config import OneStackConfig
from minitransformer.parallel.ranks import Ranks
from minitransformer.runs.interrupt import Interrupted, stop_on_signal
from minitransformer.runs.progress import Progress
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.settings import MAY_CHANGE, RunSettings
from minitransformer.runs.trainer import Trainer
from minitransformer.tasks import TASKS, Task, task_class
from minitransformer.training.schedule import learning_rate

RUNS = Path("runs")


def add(commands: Commands) -> None:
    """Add the command `train`."""
    sub = commands.add("train", train, "train a model on a task", _epilog(), makes_files=True)
    sub.add_argument("task", metavar="TASK", help=", ".join(TASKS))
    sub.add_argument("--config", metavar="FILE", type=Path, help="a JSON object of settings")
    sub.add_argument(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="change settings, see below",
    )
    sub.add_argument("--out", metavar="RUN", help="the run folder (default: a new runs/TASK)")
    sub.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in its folder where it stopped; with --set steps=N, train it longer",
    )
    sub.add_argument(
        "--init",
        metavar="RUN",
        type=Path,
        help="begin with the last weights of another run, its vocabulary, and its settings of task and model",
    )
    sub.add_argument("--seed", type=integer, help="seed of the weights, the data and the dropout (default 0)")
    device(sub)


def _epilog() -> str:
    def names(config: type) -> str:
        return textwrap.fill(", ".join(names_of(config)), 100, subsequent_indent=" " * 29).strip()

    return (
        f"settings of the model:       {names(TransformerConfig)}\n"
        f"  of one stack alone:        {', '.join(_of_one_stack())}\n"
        f"settings of the training:    {names(TrainingConfig)}\n"
        + "".join(f"settings of {name + ':':<17}{names(task)}\n" for name, task in TASKS.items())
        + "example:\n  minitransformer train reverse --set d_model=128 steps=4000 --out runs/wide\n "
    )


def _of_one_stack() -> list[str]:
    return [name for name in names_of(OneStackConfig) if name not in names_of(TransformerConfig)]


def train(arguments: argparse.Namespace) -> Answer:
    """Train a model, or continue a run; print the figures reached, and how to try the model."""
    ranks = Ranks.of_this_job()
    task_class(arguments.task)  # an unknown name is refused before it is taken for a folder's
    if arguments.out == "":
        raise ConfigError("--out: expected a folder, got an empty name")
    out = None if arguments.out is None else Path(arguments.out)
    path = ranks.broadcast_from_root(lambda: out or _default_folder(arguments.task, arguments.resume))
    folder = RunFolder(path, _free_folders(arguments.task) if out is None else ())
    remark = ""
    if arguments.resume:
        before = ranks.broadcast_from_root(folder.settings)
        settings = _continued(arguments, before, folder)
        trainer = Trainer(settings, folder, arguments.device, ranks)
        trainer.resume()
        remark = "; ".join(filter(None, [_longer(trainer, before), _divided(trainer, before)]))
    else:
        settings = settings_of(arguments)
        trainer = Trainer(settings, folder, arguments.device, ranks)
        if arguments.init is not None:
            trainer.begin_with(RunFolder(arguments.init))
    progress = Progress(settings.training.steps, trainer.step, quiet=arguments.json or ranks.rank > 0)
    if remark:
        progress.say(remark)
    with stop_on_signal() as stop_requested:
        try:
            result = trainer.run(progress, stop_requested)
        except Interrupted:
            again = f"train {arguments.task} --resume --out {folder_word(folder.path)}"
            raise Interrupted(f"Stopped and saved. Continue with:  {program()} {again}") from None
    return {**result, "run": str(folder.path)}, summary(result["sets"]) + (
        f"\n{result['steps']} steps in {result['seconds']:.1f} s"
        + (f", peak memory {result['peak_memory_mb']:.0f} MB" if result["peak_memory_mb"] else "")
        + f"\ntry:  {program()} {_trial(settings.task, folder_word(folder.path))}"
    )


def _trial(task: Task, run: str) -> str:
    """The arguments of a command that tries the model."""
    if task.has_answers:
        return f"decode {run} {quoted(example(task))}"
    text = example(task)
    word = max(text.split() or [text], key=lambda word: (word.isalpha(), len(word)))
    return f"sample {run} {quoted(word)}"


def _continued(arguments: argparse.Namespace, before: RunSettings, folder: RunFolder) -> RunSettings:
    """The settings of a resumed run: its own, `before`, changed by --set where that is possible."""
    if arguments.config or arguments.init or arguments.seed is not None:
        raise ConfigError("--resume takes the run's own settings; drop --config, --init and --seed")
    if before.task.name != arguments.task:
        raise ConfigError(f"{folder.path} holds a run of task {before.task.name!r}, not {arguments.task!r}")
    changes = assigned(arguments.set, kinds_of(type(before.task)))
    for name in changes:
        if name not in MAY_CHANGE:
            raise ConfigError(
                f"--set {name}: expected, with --resume, one of {', '.join(MAY_CHANGE)}; for others, begin a new run, "
                f"with these weights if you like: --init {folder_word(folder.path)}"
            )
    return replace(before, training=replace(before.training, **changes))


def _longer(trainer: Trainer, before: RunSettings) -> str:
    """Let a run whose settings have changed go on beyond its former end; returns a line that says so, if it does."""
    old, new, state = before.training, trainer.settings.training, trainer.state
    if state.ended:
        early = f"solved_at={old.solved_at}, patience={old.patience}"
        if (old.solved_at, old.patience) != (new.solved_at, new.patience):
            state.ended = False
        elif old.steps != new.steps:
            raise ConfigError(
                f"steps: this run ended early, at step {state.step:,} ({early}); to train it longer, change that too"
            )
    if old.steps == new.steps:
        return ""
    line = f"{new.steps:,} steps instead of {old.steps:,}"
    if new.schedule == "cosine" and state.step < new.steps:
        lr = learning_rate(state.step + 1, trainer.settings.model.d_model, new)
        last = new.last_learning_rate
        line += f": the learning rate continues at {lr:.1e}, on a cosine that ends at {last:.1e} there"
    return line


def _divided(trainer: Trainer, before: RunSettings) -> str:
    """A line that says so if each step is divided among another number of processes than before."""
    old, new = before.training.processes, trainer.settings.training.processes
    if old == new or old is None:
        return ""
    return f"processes={new} instead of {old}: from here on, dropout and rounding are not those of an undisturbed run"


def _default_folder(task: str, resume: bool) -> Path:
    """The first free one of runs/TASK, runs/TASK-2, …, or, to resume, the one that was begun or changed last."""
    if not resume:
        return next(_free_folders(task))
    own = re.compile(rf"{re.escape(task)}(-[0-9]+)?")
    begun = [path.parent for path in RUNS.glob(f"{task}*/config.json") if own.fullmatch(path.parent.name)]
    return max(begun, key=_changed, default=RUNS / task)


def _changed(run: Path) -> int:
    """When a run was begun or last saved, in nanoseconds."""
    return max(path.stat().st_mtime_ns for path in [run / "config.json", *RunFolder(run).checkpoints()])


def _free_folders(task: str) -> Iterator[Path]:
    """The folders runs/TASK, runs/TASK-2, … that hold no run when it is their turn."""
    names = (RUNS / (f"{task}-{n}" if n > 1 else task) for n in count(1))
    return (path for path in names if not RunFolder(path).exists())
