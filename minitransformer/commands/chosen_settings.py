"""The settings of a training as its command line gives them: --init, changed by --config, then by --set."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from minitransformer.config import TrainingConfig
from minitransformer.errors import CheckpointError, ConfigError, InputError, describe
from minitransformer.files import read_text
from minitransformer.one_stack_config import OneStackConfig, family_of
from minitransformer.runs.run_folder import RunFolder
from minitransformer.runs.settings import RunSettings
from minitransformer.tasks import Task, task_class
from minitransformer.validation.settings import from_settings, one_of


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
        settings |= _of_file(arguments.config)
    kinds = kinds_of(cls)
    settings = {name: _whole(x, kinds.get(name)) for name, x in settings.items()}
    settings |= assigned(arguments.set, kinds)
    for name in settings:
        one_of("setting", name, kinds)
    of_task = {name: settings.pop(name) for name in list(settings) if name in names_of(cls)}
    seed = 0 if arguments.seed is None else arguments.seed
    task = from_settings(cls, of_task)
    if other is not None:
        try:
            task.load(arguments.init)
        except CheckpointError:  # not damaged: the run itself has just loaded it
            raise ConfigError(
                f"--init {arguments.init}: expected a task with the vocabulary of that run; leave out the settings "
                "that change it, such as vocab_size"
            ) from None
        _same_vocabulary(task, other.task, arguments.init)
    return RunSettings.of(task, settings, seed)


def _of_file(path: Path) -> dict[str, Any]:
    """The settings in a JSON file."""
    try:
        settings = json.loads(read_text(path))
    except InputError as error:
        raise ConfigError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep
        raise ConfigError(f"{path}: not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: expected a JSON object of settings")
    return settings


def _same_vocabulary(task: Task, of_run: Task, run: Path) -> None:
    """Raise ConfigError unless the task has the symbols of the run whose weights it begins with."""
    if (mine := task.vocabulary.symbols) != (theirs := of_run.vocabulary.symbols):
        differ = next((x for x in zip(theirs, mine, strict=False) if x[0] != x[1]), None)
        how = f"{len(theirs)} symbols" if differ is None else f"{differ[0]!r}"
        but = len(mine) if differ is None else f"{differ[1]!r} in its place"
        raise ConfigError(f"--init {run}: expected a task with the vocabulary of that run, {how}, got {but}")


def names_of(config: type) -> list[str]:
    """The names of the settings in a config."""
    return [field.name for field in fields(config)]


def kinds_of(task: type) -> dict[str, Any]:
    """The names of all settings, with their annotations."""
    return {f.name: f.type for config in (task, OneStackConfig, TrainingConfig) for f in fields(config)}


def assigned(assignments: list[str], kinds: dict[str, Any]) -> dict[str, Any]:
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
