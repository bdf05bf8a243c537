"""`minitransformer train`: trains a model with settings from the command line, into a run folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from itertools import count
from pathlib import Path
from typing import Any

from minitransformer.commands.common import Answer, Commands, device, example, program, quoted
from minitransformer.commands.evaluate import summary
from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.errors import ConfigError
from minitransformer.files import read_text
from minitransformer.one_stack_config import OneStackConfig
from minitransformer.parallel.ranks import Ranks
from minitransformer.runs.interrupt import stop_on_signal
from minitransformer.runs.progress import Progress
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.settings import RunSettings
from minitransformer.runs.trainer import Trainer
from minitransformer.tasks import TASKS, Task, task_class
from minitransformer.validation.settings import from_settings, one_of


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
    sub.add_argument("--out", metavar="RUN", type=Path, help="the run folder (default: a new runs/TASK)")
    sub.add_argument("--resume", action="store_true", help="continue the run in its folder where it stopped")
    sub.add_argument("--seed", type=int, help="seed of the weights, the data and the dropout (default 0)")
    device(sub)


def _epilog() -> str:
    def names(config: type) -> str:
        return textwrap.fill(", ".join(_names(config)), 100, subsequent_indent=" " * 29).strip()

    return (
        f"settings of the model:       {names(TransformerConfig)}\n"
        f"  of one stack alone:        {', '.join(_of_one_stack())}\n"
        f"settings of the training:    {names(TrainingConfig)}\n"
        + "".join(f"settings of {name + ':':<17}{names(task)}\n" for name, task in TASKS.items())
        + "example:\n  minitransformer train reverse --set d_model=128 steps=4000 --out runs/wide\n "
    )


def _of_one_stack() -> list[str]:
    return [name for name in _names(OneStackConfig) if name not in _names(TransformerConfig)]


def train(arguments: argparse.Namespace) -> Answer:
    """Train a model, or continue a run; print the figures reached, and how to try the model."""
    ranks = Ranks.of_this_job()
    folder = RunFolder(
        ranks.broadcast_from_root(lambda: arguments.out or _default_folder(arguments.task, arguments.resume))
    )
    if arguments.resume:
        if arguments.set or arguments.config or arguments.seed is not None:
            raise ConfigError("--resume takes the run's own settings; drop --set, --config and --seed")
        settings = ranks.broadcast_from_root(folder.settings)
        if settings.task.name != arguments.task:
            raise ConfigError(
                f"{folder.path} holds a run of task {settings.task.name!r}, not {arguments.task!r}"
            )
        trainer = Trainer(settings, folder, arguments.device, ranks)
        trainer.resume()
    else:
        settings = settings_of(arguments)
        trainer = Trainer(settings, folder, arguments.device, ranks)
    progress = Progress(settings.training.steps, trainer.step, quiet=arguments.json or ranks.rank > 0)
    with stop_on_signal() as stop_requested:
        result = trainer.run(progress, stop_requested)
    return {**result, "run": str(folder.path)}, summary(result["sets"]) + (
        f"\n{result['steps']} steps in {result['seconds']:.1f} s"
        + (f", peak memory {result['peak_memory_mb']:.0f} MB" if result["peak_memory_mb"] else "")
        + f"\ntry:  {program()} {_trial(settings.task, str(folder.path))}"
    )


def _trial(task: Task, run: str) -> str:
    """The arguments of a command that tries the model."""
    if task.has_answers:
        return f"decode {quoted(run)} {quoted(example(task))}"
    text = example(task)
    word = max(text.split() or [text], key=lambda word: (word.isalpha(), len(word)))
    return f"sample {quoted(run)} {quoted(word)}"


def settings_of(arguments: argparse.Namespace) -> RunSettings:
    """The task's settings, changed by --config, then by --set."""
    settings: dict[str, Any] = {}
    if arguments.config is not None:
        try:
            settings = json.loads(read_text(arguments.config))
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
            raise ConfigError(f"{arguments.config}: not JSON ({error})") from None
        if not isinstance(settings, dict):
            raise ConfigError(f"{arguments.config}: expected a JSON object of settings")
    cls = task_class(arguments.task)
    kinds = {f.name: f.type for config in (cls, OneStackConfig, TrainingConfig) for f in _fields(config)}
    for assignment in arguments.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected KEY=VALUE, got {assignment!r}")
        settings[name] = _value(value, kinds.get(name))
    for name in settings:
        one_of("setting", name, kinds)
    of_task = {name: settings.pop(name) for name in list(settings) if name in _names(cls)}
    seed = 0 if arguments.seed is None else arguments.seed
    return RunSettings.of(from_settings(cls, of_task), settings, seed)


def _fields(config: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(config)


def _names(config: type) -> list[str]:
    return [field.name for field in _fields(config)]


def _value(text: str, kind: object) -> Any:
    """The value of a setting from its text; `kind` is its annotation, and a str is the text itself, as for file names.

    Otherwise the value is read as JSON if it is JSON, as a list if it has commas, and else stays text.
    """
    words = {"none": None, "true": True, "false": False}
    if kind == "str":
        return text
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, too many digits, or nested too deep
        return text.split(",") if "," in text else text


def _default_folder(task: str, resume: bool) -> Path:
    """The first free one of runs/TASK, runs/TASK-2, …, or, to resume, the one that was begun last."""
    runs = Path("runs")
    names = (runs / (f"{task}-{n}" if n > 1 else task) for n in count(1))
    if not resume:
        return next(path for path in names if not RunFolder(path).exists())
    begun = [path for pattern in (task, f"{task}-*") for path in runs.glob(f"{pattern}/config.json")]
    return max(begun, key=lambda path: path.stat().st_mtime_ns).parent if begun else next(names)
