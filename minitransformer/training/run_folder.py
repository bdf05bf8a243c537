"""The folder of a training run: everything needed to look at it, to continue it, and to use its model.

config.json          what to build and how to train it
metrics.jsonl        a line per report: step, loss, lr, tokens_per_s, and the evaluation figures
checkpoint-N.npz     the state after step N; the last two are kept
result.json          the final figures, once the run has ended
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minitransformer.backend import Array
from minitransformer.config import TrainingConfig, TransformerConfig, from_settings, one_of
from minitransformer.errors import CheckpointError, ConfigError
from minitransformer.tasks import Task, task_class
from minitransformer.training.checkpoint import load_checkpoint, save_checkpoint, write_text

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class RunSettings:
    """What config.json holds."""

    task: Task
    model: TransformerConfig
    training: TrainingConfig
    seed: int = 0

    @classmethod
    def of(cls, task: Task, settings: dict[str, Any] | None = None, seed: int = 0) -> RunSettings:
        """The task's own settings, with `settings` of the model and the training changed."""
        V = len(task.vocabulary)
        model = {"src_vocab_size": V, "tgt_vocab_size": V, **task.model}
        training = dict(task.training)
        for name, value in (settings or {}).items():
            one_of("setting", name, [*TransformerConfig.__annotations__, *TrainingConfig.__annotations__])
            (model if name in TransformerConfig.__annotations__ else training)[name] = value
        return cls(
            task, from_settings(TransformerConfig, model), from_settings(TrainingConfig, training), seed
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "task_settings": asdict(self.task),  # type: ignore[call-overload]
            "model": asdict(self.model),
            "training": asdict(self.training),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, config: dict[str, Any], task: Task | None = None) -> RunSettings:
        """`task` stands in for one that the command line does not know by name."""
        return cls(
            task or from_settings(task_class(config["task"]), config["task_settings"]),
            from_settings(TransformerConfig, config["model"]),
            from_settings(TrainingConfig, config["training"]),
            config["seed"],
        )


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def create(self, settings: RunSettings) -> None:
        """Begin a run. Raises ConfigError, and touches nothing, if the folder holds one already."""
        if self.exists():
            raise ConfigError(
                f"{self.path} already holds a run; continue it with --resume, or choose another folder with --out"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error.strerror}") from None
        write_text(self.path / "config.json", json.dumps(settings.as_dict(), indent=2) + "\n")

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").exists()

    def settings(self, task: Task | None = None) -> RunSettings:
        """What config.json says. Raises CheckpointError if there is none or it cannot be read."""
        try:
            config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
            return RunSettings.from_dict(config, task)
        except OSError:
            raise CheckpointError(f"{self.path}: expected a run folder, found no config.json in it") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.path / 'config.json'}: damaged ({error!r})") from None

    def checkpoints(self) -> list[Path]:
        """All checkpoints, the oldest first."""
        return sorted(self.path.glob("checkpoint-*.npz"))

    def save(self, step: int, arrays: dict[str, Array], meta: dict[str, Any]) -> None:
        """Write the checkpoint of `step`, then delete all but the last few."""
        save_checkpoint(self.path / f"checkpoint-{step:08d}.npz", arrays, meta)
        for old in self.checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def load(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The newest checkpoint. Raises CheckpointError if there is none or it is damaged."""
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
        """The lines of metrics.jsonl; a last line that a killed run left unfinished is not one."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def forget_after(self, step: int) -> None:
        """Drop the metrics of later steps: a resumed run will write them again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    def write_result(self, result: dict[str, Any]) -> None:
        write_text(self.path / "result.json", json.dumps(result, indent=2) + "\n")
