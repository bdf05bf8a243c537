"""`minitransformer train`: trains a model with settings from the command line, into a run folder."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from minitransformer.commands.common import Answer, Commands, device, example, integer, program, quoted
from minitransformer.commands.evaluate import summary
from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.errors import ConfigError, InputError, describe
from minitransformer.files import read_text
from minitransformer.one_stack_config import OneStackConfig, family_of
from minitransformer.parallel.ranks import Ranks
from minitransformer.runs.interrupt import stop_on_signal
from minitransformer.runs.progress import Progress
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.settings import MAY_CHANGE, RunSettings
from minitransformer.runs.trainer import Trainer
from minitransformer.tasks import TASKS, Task, task_class
from minitransformer.training.schedule import learning_rate
from minitransformer.validation.settings import from_settings, one_of

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
        remark = _longer(trainer, before)
    else:
        settings = settings_of(arguments)
        trainer = Trainer(settings, folder, arguments.device, ranks)
        if arguments.init is not None:
            trainer.begin_with(RunFolder(arguments.init))
    progress = Progress(settings.training.steps, trainer.step, quiet=arguments.json or ranks.rank > 0)
    if remark:
        progress.say(remark)
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


def _continued(arguments: argparse.Namespace, before: RunSettings, folder: RunFolder) -> RunSettings:
    """The settings of a resumed run: its own, `before`, changed by --set where that is possible."""
    if arguments.config or arguments.init or arguments.seed is not None:
        raise ConfigError("--resume takes the run's own settings; drop --config, --init and --seed")
    if before.task.name != arguments.task:
        raise ConfigError(f"{folder.path} holds a run of task {before.task.name!r}, not {arguments.task!r}")
    changes = _assigned(arguments.set, _kinds(type(before.task)))
    for name in changes:
        if name not in MAY_CHANGE:
            raise ConfigError(
                f"--set {name}: expected, with --resume, one of {', '.join(MAY_CHANGE)}; for others, begin a new run, "
                f"with these weights if you like: --init {quoted(str(folder.path))}"
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


def settings_of(arguments: argparse.Namespace) -> RunSettings:
    """The settings of a new run: the task's (or --init's task and model), changed by --config, then by --set."""
    settings: dict[str, Any] = {}
    cls, other = task_class(arguments.task), None
    if arguments.init is not None:
        other = RunFolder(arguments.init).settings()
        of_data = ("src_vocab_size", "tgt_vocab_size", "pad_id")
        settings = {name: x for name, x in asdict(other.model).items() if name not in of_data}
        settings["family"] = family_of(other.model)
        if type(other.task) is cls and is_dataclass(other.task):
            settings |= asdict(other.task)
    if arguments.config is not None:
        try:
            of_file = json.loads(read_text(arguments.config))
        except InputError as error:
            raise ConfigError(f"{arguments.config}: {error}") from None
        except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
            raise ConfigError(f"{arguments.config}: not JSON ({error})") from None
        if not isinstance(of_file, dict):
            raise ConfigError(f"{arguments.config}: expected a JSON object of settings")
        settings |= of_file
    kinds = _kinds(cls)
    settings = {name: _whole(x, kinds.get(name)) for name, x in settings.items()}
    settings |= _assigned(arguments.set, kinds)
    for name in settings:
        one_of("setting", name, kinds)
    of_task = {name: settings.pop(name) for name in list(settings) if name in _names(cls)}
    seed = 0 if arguments.seed is None else arguments.seed
    task = from_settings(cls, of_task)
    if other is not None:
        task.load(arguments.init)
        if (mine := task.vocabulary.symbols) != (theirs := other.task.vocabulary.symbols):
            differ = next((x for x in zip(theirs, mine, strict=False) if x[0] != x[1]), None)
            how = f"{len(theirs)} symbols" if differ is None else f"{differ[0]!r}"
            but = len(mine) if differ is None else f"{differ[1]!r} in its place"
            raise ConfigError(
                f"--init {arguments.init}: expected a task with the vocabulary of that run, {how}, got {but}"
            )
    return RunSettings.of(task, settings, seed)


def _names(config: type) -> list[str]:
    return [field.name for field in fields(config)]


def _kinds(task: type) -> dict[str, Any]:
    """The names of all settings, with their annotations."""
    return {f.name: f.type for config in (task, OneStackConfig, TrainingConfig) for f in fields(config)}


def _assigned(assignments: list[str], kinds: dict[str, Any]) -> dict[str, Any]:
    """The settings in a list of KEY=VALUE. Raises ConfigError for an unknown one."""
    settings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected KEY=VALUE, got {describe(assignment)}")
        one_of("setting", name, kinds)
        settings[name] = _whole(_value(value, kinds[name]), kinds[name])
    return settings


def _whole(value: Any, kind: object) -> Any:
    """`value`, as an int if it is a float without a fraction, such as 1e4, for a setting that is a whole number."""
    counts = kind in ("int", "int | None") and isinstance(value, float) and value.is_integer()
    return int(value) if counts else value


def _value(text: str, kind: object) -> Any:
    """The value of a setting from its text. `kind` is its annotation; for a str, such as a file name, it is the text.

    Otherwise the value is a number if Python reads one, the value of the JSON if it is JSON, a list if it has commas,
    and else the text.
    """
    words = {"none": None, "true": True, "false": False}
    if kind == "str":
        return text
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, too many digits, or nested too deep
        return text.split(",") if "," in text else text


def _default_folder(task: str, resume: bool) -> Path:
    """The first free one of runs/TASK, runs/TASK-2, …, or, to resume, the one that was begun last."""
    if not resume:
        return next(_free_folders(task))
    begun = [path for pattern in (task, f"{task}-*") for path in RUNS.glob(f"{pattern}/config.json")]
    return max(begun, key=lambda path: path.stat().st_mtime_ns).parent if begun else RUNS / task


def _free_folders(task: str) -> Iterator[Path]:
    """The folders runs/TASK, runs/TASK-2, … that hold no run when it is their turn."""
    names = (RUNS / (f"{task}-{n}" if n > 1 else task) for n in count(1))
    return (path for path in names if not RunFolder(path).exists())
