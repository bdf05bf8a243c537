"""The settings of a training run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.tasks import Task, task_class
from minitransformer.training.batching import PAD
from minitransformer.validation.settings import from_settings, one_of, require


@dataclass(frozen=True)
class RunSettings:
    """The task, the model, the training and the seed of a run: the contents of config.json."""

    task: Task
    model: TransformerConfig
    training: TrainingConfig
    seed: int = 0

    def __post_init__(self) -> None:
        require(type(self.seed) is int and self.seed >= 0, "seed", "a whole number, 0 or more", self.seed)

    @classmethod
    def of(cls, task: Task, settings: dict[str, Any] | None = None, seed: int = 0) -> RunSettings:
        """The task's own settings, changed by `settings` of the model and the training."""
        V = len(task.vocabulary)
        of_task = {"src_vocab_size": V, "tgt_vocab_size": V, "pad_id": PAD}
        model, training = {**task.model, **of_task}, dict(task.training)
        of_model = TransformerConfig.__annotations__
        for name, value in (settings or {}).items():
            require(name not in of_task, name, f"to be left to the task ({of_task.get(name)})", value)
            one_of("setting", name, [*of_model, *TrainingConfig.__annotations__])
            (model if name in of_model else training)[name] = value
        return cls(
            task, from_settings(TransformerConfig, model), from_settings(TrainingConfig, training), seed
        )

    def as_dict(self) -> dict[str, Any]:
        """The settings as a dict that JSON can hold."""
        return {
            "task": self.task.name,
            "task_settings": asdict(self.task) if is_dataclass(self.task) else {},
            "model": asdict(self.model),
            "training": asdict(self.training),
            "seed": self.seed,
        }

    def as_json(self) -> dict[str, Any]:
        """The settings that a resumed run must share: as JSON gives them back, without the number of processes."""
        settings: dict[str, Any] = json.loads(json.dumps(self.as_dict()))
        del settings["training"]["processes"]
        return settings

    @classmethod
    def from_dict(cls, config: dict[str, Any], task: Task | None = None) -> RunSettings:
        """The inverse of `as_dict`; `task` is the run's task, if the command line does not know it by name."""
        return cls(
            task or from_settings(task_class(config["task"]), config["task_settings"]),
            from_settings(TransformerConfig, config["model"]),
            from_settings(TrainingConfig, config["training"]),
            config["seed"],
        )
