"""The folder of a training run: everything needed to look at it, to continue it, and to use its model.

config.json          what to build and how to train it
subwords.model       the vocabulary of task text
characters.txt       the vocabulary of task chars
text.txt             the text of task chars, if it is the source of this package
metrics.jsonl        a line per report: step, loss, lr, tokens_per_s, and the evaluation figures
checkpoint-N.npz     the state after step N; the last few are kept
best.npz             the weights that did best on the validation set
average.npz          the mean of the weights of several checkpoints, from `minitransformer average`
result.json          the final figures, once the run has ended
training.png         the pictures of `minitransformer plot`, and attention.png
explain.html         the page of `minitransformer explain`
lock                 empty; locked by the process that trains here

Only files with these names are read, replaced or deleted; all others are left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

from minitransformer.backend import Array
from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.errors import CheckpointError, ConfigError, InputError, MinitransformerError, describe
from minitransformer.files import (
    append_line,
    as_json,
    open_in_place,
    read_bytes,
    read_text,
    sweep,
    write_bytes,
    write_text,
)
from minitransformer.one_stack_config import config_of
from minitransformer.runs.checkpoint import load_checkpoint, save_checkpoint
from minitransformer.runs.settings import RunSettings, weights_settings
from minitransformer.tasks import Task
from minitransformer.validation.settings import from_settings, one_of

try:
    from fcntl import LOCK_EX, LOCK_NB, lockf
except ImportError:  # Windows
    lockf = None  # type: ignore[assignment]

FORMAT = 1  # of what a run folder holds; a version raises it if earlier ones would misread its folders
WEIGHTS = ("last", "best", "average")
CHECKPOINT = re.compile(r"checkpoint-[0-9]{8,}\.npz")
# what is written whole, under a temporary name first
WRITTEN = re.compile(
    rf"{CHECKPOINT.pattern}|(best|average)\.npz|(config|result)\.json|subwords\.model|(characters|text)\.txt|metrics\.jsonl|"
    r"(training|attention)\.png|explain\.html"
)
T = TypeVar("T")


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: str | Path, others: Iterable[Path] = ()) -> None:
        self.path = Path(path)
        self._others = others  # where to begin a run if one has been begun in `path` meanwhile
        self._claimed: IO[bytes] | None = None

    def create(self, settings: RunSettings) -> None:
        """Begin a run. Raises ConfigError, and touches nothing, if the folder holds one, and there are no others."""
        begun = os.path.lexists(self.path / "config.json")
        how = "continue it with --resume" if begun else "put its config.json back, which is missing"
        taken = ConfigError(f"{self.path} already holds a run; {how}, or choose another folder with --out")
        for path in chain([self.path], self._others):
            self.path = path
            try:
                return self._create(settings)
            except FileExistsError:  # perhaps of a run that was begun in the same moment
                pass
        raise taken

    def _create(self, settings: RunSettings) -> None:
        """Begin a run here. Raises FileExistsError, and touches nothing, if the folder holds one."""
        files = settings.task.files()
        # looked for before `exists`: those of a run that is begun in this moment are written after its config.json
        there = [name for name in files if os.path.lexists(self.path / name)]
        if self.exists():
            raise FileExistsError
        if self.path.is_symlink() and not self.path.exists():
            raise ConfigError(f"{self.path} is a link that leads nowhere; choose another folder with --out")
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file; choose a folder with --out")
        if there:
            raise ConfigError(f"{self.path / there[0]} is there already; choose another folder with --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error}") from None
        try:
            self._write_config(settings, {name: _digest(x) for name, x in files.items()}, new=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        for name, content in files.items():
            write_bytes(self.path / name, content)

    def complete(self, settings: RunSettings) -> None:
        """Continue with these settings; write those of the task's files that a killed run had not written yet."""
        config = self._read_config(dict)
        if not json.loads(json.dumps(settings.as_dict())).items() <= config.items():
            self._write_config(settings, config.get("files", {}))
        for name, content in settings.task.files().items():
            if not (self.path / name).exists():
                write_bytes(self.path / name, content)

    def _write_config(self, settings: RunSettings, digests: dict[str, str], new: bool = False) -> None:
        config = {"format": FORMAT, **settings.as_dict(), "files": digests}
        write_text(self.path / "config.json", as_json(config, indent=2) + "\n", new)

    def claim(self) -> None:
        """Let only this process train here, until `release` or its end. Raises ConfigError if another one does already.

        Files that earlier processes left half written are removed.
        """
        if lockf is not None:
            # A lock of `lockf` belongs to this process and not to its forks, so it is gone at once when this process
            # is killed. It would also be gone if this process read the file elsewhere and closed it, so nobody does.
            try:
                file = open_in_place(self.path / "lock")
            except OSError as error:
                raise ConfigError(f"{self.path / 'lock'}: cannot be opened ({error.strerror})") from None
            try:
                lockf(file, LOCK_EX | LOCK_NB)
            except (BlockingIOError, PermissionError):
                file.close()
                raise ConfigError(
                    f"{self.path}: another process is training this run; wait for it, or stop it first"
                ) from None
            except OSError:  # a file system that has no locks
                pass
            self._claimed = file
        sweep(self.path, WRITTEN)

    def release(self) -> None:
        """Unlock what `claim` has locked."""
        if self._claimed is not None:
            self._claimed.close()

    def exists(self) -> bool:
        """Whether the folder holds any files of a run."""
        names = ("config.json", "metrics.jsonl", "result.json", "best.npz", "average.npz")
        return self.path.is_dir() and (
            any(os.path.lexists(self.path / name) for name in names) or bool(self.checkpoints())
        )

    def settings(self, task: Task | None = None) -> RunSettings:
        """The settings in config.json. Raises CheckpointError if there is none or it cannot be read.

        `task` is the run's task, if the command line does not know it by name.
        """
        settings, digests = self._read_config(
            lambda config: (RunSettings.from_dict(config, task), dict(config.get("files", {})))
        )
        settings.task.load(self.path)
        for name, digest in digests.items():
            self._check_file(settings.task, name, digest)
        return settings

    def _check_file(self, task: Task, name: str, digest: str) -> None:
        """Raise CheckpointError unless the task's file `name` is the one that the run began with."""
        if not isinstance(name, str) or not name or name != Path(name).name:
            raise CheckpointError(
                f"{self.path / 'config.json'}: damaged: expected the name of a file, got {describe(name)}"
            )
        path = self.path / name
        try:
            content = read_bytes(path) if path.exists() else task.files().get(name, b"")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        except InputError as error:
            raise CheckpointError(f"{path} is missing, and cannot be made again: {error}") from None
        if _digest(content) != digest:
            raise CheckpointError(
                f"{path}: expected the file that this run began with, got another one, or a damaged one; restore it, "
                f"or move it away, if the files that it is made from have not changed"
            )

    def model_settings(self) -> tuple[TransformerConfig, str]:
        """The settings and the dtype of the model, which can be read without its task."""

        def parse(config: Any) -> tuple[TransformerConfig, str]:
            training = from_settings(TrainingConfig, config["training"])
            return config_of(config["model"]), training.dtype

        return self._read_config(parse)

    def _read_config(self, parse: Callable[[Any], T]) -> T:
        path = self.path / "config.json"
        try:
            config = json.loads(read_text(path))
            if (found := config.get("format", FORMAT)) not in range(1, FORMAT + 1):
                raise CheckpointError(
                    f"format: expected at most {FORMAT}, the newest that this version knows, got {describe(found)}; "
                    f"install a newer minitransformer"
                )
            return parse(config)
        except InputError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from None
        except MinitransformerError as error:
            raise type(error)(f"{path}: {error}") from None
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{self.path}: expected a run folder, found no config.json in it") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({describe(error)})") from None

    def checkpoints(self) -> list[Path]:
        """All checkpoints, the oldest first. (Folders, and files whose names merely begin alike, do not count.)"""
        found = self.path.glob("checkpoint-*.npz")
        paths = [path for path in found if _is_checkpoint(path.name) and not path.is_dir()]
        return sorted(paths, key=lambda path: (len(path.name), path.name))

    def save(self, step: int, arrays: dict[str, Array], meta: dict[str, Any], keep: int = 2) -> None:
        """Write the checkpoint of `step`; then delete all but the last `keep`, and earlier ones' average and result."""
        save_checkpoint(self.path / f"checkpoint-{step:08d}.npz", arrays, meta)
        # Nothing is deleted before what replaces it is on disk.
        for name in ("average.npz", "result.json"):
            (self.path / name).unlink(missing_ok=True)
        for old in self.checkpoints()[:-keep]:
            old.unlink()

    def save_weights(self, which: str, arrays: dict[str, Array], meta: dict[str, Any]) -> None:
        """Write the "best" or the "average" weights."""
        save_checkpoint(self.path / f"{which}.npz", arrays, meta)

    def load(self, weights: str = "last") -> tuple[dict[str, Array], dict[str, Any]]:
        """The newest checkpoint, or other WEIGHTS.

        Raises CheckpointError if there is none, or as `read` does.
        """
        one_of("weights", weights, WEIGHTS)
        path = self.path / f"{weights}.npz"
        if weights == "average" and not path.exists():
            command = f"minitransformer average {shlex.quote(str(self.path))}"
            raise CheckpointError(f"{path}: expected averaged weights; make them with: {command}")
        if weights == "last":
            if not (paths := self.checkpoints()):
                raise CheckpointError(
                    f"{self.path}: expected a checkpoint, found none; train it first (--resume)"
                )
            path = paths[-1]
        return self.read(path)

    def read(self, path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
        """The arrays and numbers of one checkpoint of this run.

        Raises CheckpointError if it is damaged, if it has the name of another step, or if it was written with another
        task, model or seed than config.json has.
        """
        arrays, meta = load_checkpoint(path)
        if _is_checkpoint(path.name) and meta.get("step", step := int(path.name[11:-4])) != step:
            raise CheckpointError(
                f"{path}: expected the state that its name says, got that after step {describe(meta['step'])}; "
                f"give it its own name again, or move it away"
            )
        if "settings" in meta:  # older versions did not write them
            try:
                written = weights_settings(meta["settings"])
            except (KeyError, TypeError, AttributeError):
                raise CheckpointError(
                    f"{path}: damaged: expected settings in it, got {describe(meta['settings'])}"
                ) from None
            self.compare(path, written, self._read_config(_weights_settings_of))
        return arrays, meta

    def compare(self, path: Path, written: Any, settings: Any) -> None:
        """Raise CheckpointError, naming the first that differs, unless `settings` are as when `path` was written."""
        if not isinstance(written, Mapping) or not isinstance(settings, Mapping):
            raise CheckpointError(f"{path}: damaged: expected settings in it, got {describe(written)}")
        for name, value in written.items():
            if isinstance(value, Mapping):
                self.compare(path, value, settings.get(name))
            elif name in settings and settings[name] != value:
                raise CheckpointError(
                    f"{self.path / 'config.json'}: {name}: expected {describe(value)}, with which {path.name} was "
                    f"written, got {describe(settings[name])}; restore it, or begin a new run"
                )

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        append_line(self.path / "metrics.jsonl", as_json(record))

    def metrics(self) -> list[dict[str, Any]]:
        """The records in metrics.jsonl, except a last line that a killed run left unfinished.

        Raises CheckpointError if another line cannot be read.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            records = [json.loads(line) for line in read_text(path).split("\n")[:-1]]
            if odd := [i for i, record in enumerate(records, 1) if not _is_report(record)]:
                raise ValueError(f"line {odd[0]} is not a report of a step")
            return records
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); move it away to continue without it") from None

    def forget_after(self, step: int) -> None:
        """Drop the metrics of later steps: a resumed run will write them again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(as_json(record) + "\n" for record in kept))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_text(self.path / "result.json", as_json(result, indent=2) + "\n")


def _weights_settings_of(config: Any) -> dict[str, Any]:
    """The settings in config.json that decide what weights mean, with defaults for those that it lacks."""
    model = asdict(config_of(config["model"]))
    return weights_settings({**config, "model": json.loads(json.dumps(model))})


def _digest(content: bytes) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


def _is_checkpoint(name: str) -> bool:
    """Whether a file has a name that `save` gives to checkpoints, without superfluous zeros."""
    return CHECKPOINT.fullmatch(name) is not None and name == f"checkpoint-{int(name[11:-4]):08d}.npz"


def _is_report(record: Any) -> bool:
    """Whether a line of metrics.jsonl has a step, and numbers (or null) where numbers are meant."""
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        return False
    valid = record.get("valid", {})
    if not isinstance(valid, dict):
        return False
    of_valid = map(valid.get, ("loss", "exact_match", "bleu"))
    figures = [*map(record.get, ("loss", "lr", "cross_attention")), *of_valid]
    return all(
        x is None or (isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= sys.float_info.max)
        for x in figures
    )


def as_folder(run: RunFolder | str | Path) -> RunFolder:
    """The run folder itself, or the one at a path."""
    return run if isinstance(run, RunFolder) else RunFolder(run)
