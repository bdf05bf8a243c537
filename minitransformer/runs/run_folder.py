"""The folder of a training run: everything needed to look at it, to continue it, and to use its model.

config.json          what to build and how to train it
subwords.model       the vocabulary of task text
metrics.jsonl        a line per report: step, loss, lr, tokens_per_s, and the evaluation figures
checkpoint-N.npz     the state after step N; the last few are kept
best.npz             the weights that did best on the validation set
average.npz          the mean of the weights of several checkpoints, from `minitransformer average`
result.json          the final figures, once the run has ended
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from minitransformer.backend import Array
from minitransformer.config import TransformerConfig
from minitransformer.errors import CheckpointError, ConfigError, MinitransformerError
from minitransformer.runs.checkpoint import load_checkpoint, save_checkpoint, write_bytes, write_text
from minitransformer.runs.settings import RunSettings
from minitransformer.tasks import Task
from minitransformer.validation import from_settings, one_of

try:
    from fcntl import LOCK_EX, LOCK_NB, lockf
except ImportError:  # Windows
    lockf = None  # type: ignore[assignment]

WEIGHTS = ("last", "best", "average")
T = TypeVar("T")


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._claimed: IO[bytes] | None = None

    def create(self, settings: RunSettings) -> None:
        """Begin a run. Raises ConfigError, and touches nothing, if the folder holds one already."""
        taken = ConfigError(
            f"{self.path} already holds a run; continue it with --resume, or choose another folder with --out"
        )
        if self.exists():
            raise taken
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.path / "config.json", json.dumps(settings.as_dict(), indent=2) + "\n", new=True)
        except FileExistsError:  # another process has just begun a run here
            raise taken from None
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        for name, content in settings.task.files().items():
            write_bytes(self.path / name, content)

    def claim(self) -> None:
        """Lock the folder until `release`, or until this process ends. Raises ConfigError if another process has it."""
        if lockf is None:
            return
        # A lock of `lockf` belongs to this process and not to its forks: when it is killed, the lock is gone at once.
        file = open(self.path / "config.json", "rb+")  # noqa: SIM115
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

    def release(self) -> None:
        """Unlock what `claim` has locked."""
        if self._claimed is not None:
            self._claimed.close()

    def exists(self) -> bool:
        """Whether the folder holds any files of a run."""
        names = ("config.json", "metrics.jsonl", "result.json")
        return any((self.path / name).exists() for name in names) or bool(self.checkpoints())

    def settings(self, task: Task | None = None) -> RunSettings:
        """The settings in config.json. Raises CheckpointError if there is none or it cannot be read.

        `task` is the run's task, if the command line does not know it by name.
        """
        settings = self._read_config(lambda config: RunSettings.from_dict(config, task))
        settings.task.load(self.path)
        return settings

    def model_settings(self) -> tuple[TransformerConfig, str]:
        """The settings and the dtype of the model alone, which need no task."""
        return self._read_config(
            lambda config: (from_settings(TransformerConfig, config["model"]), config["training"]["dtype"])
        )

    def _read_config(self, parse: Callable[[Any], T]) -> T:
        path = self.path / "config.json"
        try:
            return parse(json.loads(path.read_text(encoding="utf-8")))
        except MinitransformerError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{self.path}: expected a run folder, found no config.json in it") from None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error!r})") from None

    def checkpoints(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        return sorted(self.path.glob("checkpoint-*.npz"), key=lambda path: (len(path.name), path.name))

    def save(self, step: int, arrays: dict[str, Array], meta: dict[str, Any], keep: int = 2) -> None:
        """Write the checkpoint of `step`, then delete all but the last `keep`."""
        (self.path / "average.npz").unlink(missing_ok=True)  # which is of weights that are no longer the last
        save_checkpoint(self.path / f"checkpoint-{step:08d}.npz", arrays, meta)
        for old in self.checkpoints()[:-keep]:
            old.unlink()

    def save_weights(self, which: str, arrays: dict[str, Array], meta: dict[str, Any]) -> None:
        """Write the "best" or the "average" weights."""
        save_checkpoint(self.path / f"{which}.npz", arrays, meta)

    def load(self, weights: str = "last") -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays and `meta` of the newest checkpoint or other WEIGHTS. Raises CheckpointError if missing or damaged."""
        one_of("weights", weights, WEIGHTS)
        if weights != "last":
            path = self.path / f"{weights}.npz"
            if weights == "average" and not path.exists():
                raise CheckpointError(
                    f"{path}: expected averaged weights; make them with: minitransformer average {self.path}"
                )
            return load_checkpoint(path)
        paths = self.checkpoints()
        if not paths:
            raise CheckpointError(
                f"{self.path}: expected a checkpoint, found none; train it first (--resume)"
            )
        return load_checkpoint(paths[-1])

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The records in metrics.jsonl, except a last line that a killed run left unfinished.

        Raises CheckpointError if another line cannot be read.
        """
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
            if not all(
                isinstance(record, dict) and isinstance(record.get("step"), int) for record in records
            ):
                raise ValueError("a line has no step")
            return records
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); move it away to go on without it") from None

    def forget_after(self, step: int) -> None:
        """Drop the metrics of later steps: a resumed run will write them again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json."""
        write_text(self.path / "result.json", json.dumps(result, indent=2) + "\n")
