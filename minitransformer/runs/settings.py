"""The settings of a training run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from minitransformer.config import TrainingConfig, TransformerConfig
from minitransformer.one_stack_config import FAMILIES, OneStackConfig, config_of, family_of
from minitransformer.tasks import Task, task_class
from minitransformer.training.batching import PAD, MakeBatch, Pair
from minitransformer.validation.settings import from_settings, one_of, require

# settings of the training that may be changed while a run is stopped; of these only `steps` and `processes`, on which
# the random numbers of dropout depend, have an effect on the weights
MAY_CHANGE = (
    "steps",
    "processes",
    "recompute",
    "log_every",
    "evaluate_every",
    "keep_checkpoints",
    "solved_at",
    "patience",
)
# settings of the model that may differ when a run begins with another run's weights, which do not depend on them
MAY_DIFFER = ("dropout", "dropout_on")
# likewise, unless positions are learned: then the weights have a row for each
MAY_DIFFER_UNLESS_LEARNED = ("max_len", "random_start", "random_gaps")


def weights_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings on which the meaning of weights depends: the task's, except its paths, the model's, and the seed."""
    task = {
        n: x for n, x in settings["task_settings"].items() if not n.endswith(("_src", "_tgt")) and n != "text"
    }
    return {name: settings[name] for name in ("task", "model", "seed")} | {"task_settings": task}


@dataclass(frozen=True)
class RunSettings:
    """The task, the model, the training and the seed of a run: the contents of config.json."""

    task: Task
    model: TransformerConfig
    training: TrainingConfig
    seed: int = 0
    init: str = ""  # the run whose weights this one began with

    def __post_init__(self) -> None:
        require(type(self.seed) is int and self.seed >= 0, "seed", "a whole number, 0 or more", self.seed)
        family, families = family_of(self.model), self.task.families
        fits = f"{' or '.join(families)}, for task {self.task.name}"
        require(family in families, "family", fits, family)
        head = getattr(self.model, "head", "projection")
        require(head != "none", "head", "one that gives logits, which the loss compares with", head)
        answers = self.task.has_answers or self.training.solved_at is None
        require(
            answers, "solved_at", f"None: task {self.task.name} has no exact match", self.training.solved_at
        )

    @classmethod
    def of(cls, task: Task, settings: dict[str, Any] | None = None, seed: int = 0) -> RunSettings:
        """The task's own settings, changed by `settings` of the model and the training."""
        V = len(task.vocabulary)
        of_task = {"src_vocab_size": V, "tgt_vocab_size": V, "pad_id": PAD}
        family = (settings or {}).get("family", next(iter(task.families)))
        # before the settings, of which a task has some for its own families alone
        fits = family in list(task.families) or family not in FAMILIES
        require(fits, "family", f"{' or '.join(task.families)}, for task {task.name}", family)
        of_family = task.model_of_family.get(family, {}) if isinstance(family, str) else {}
        model = {**task.model, **of_family, **of_task, "family": family}
        training = dict(task.training)
        of_model = [field.name for field in fields(OneStackConfig)]
        for name, value in (settings or {}).items():
            require(name not in of_task, name, f"to be left to the task ({of_task.get(name)})", value)
            one_of("setting", name, [*of_model, *TrainingConfig.__annotations__])
            (model if name in of_model else training)[name] = value
        return cls(task, config_of(model), from_settings(TrainingConfig, training), seed)

    def check_answers(self, pairs: Sequence[Pair]) -> None:
        """Raise ConfigError if the model answers a sequence once, and these pairs at each position, or vice versa.

        (One stack can do either, depending on its setting `pooling`.)
        """
        if isinstance(self.model, OneStackConfig):
            batch, pooling = self.make_batch(pairs), self.model.pooling
            single = batch.targets.shape != batch.inputs[0].shape
            expected = (
                "'mean' or 'first', for one answer to a sequence" if single else "'none', for one a position"
            )
            require((pooling != "none") == single, "pooling", expected, pooling)

    @property
    def make_batch(self) -> MakeBatch:
        """The function that makes a batch of pairs for the model's family."""
        return self.task.families[family_of(self.model)]

    def as_dict(self) -> dict[str, Any]:
        """The settings as a dict that JSON can hold."""
        return {
            "task": self.task.name,
            "task_settings": asdict(self.task) if is_dataclass(self.task) else {},
            "model": asdict(self.model),
            "training": asdict(self.training),
            "seed": self.seed,
        } | ({"init": self.init} if self.init else {})

    def as_json(self) -> dict[str, Any]:
        """The settings that a resumed run must share, as JSON gives them back: those that decide its weights."""
        settings: dict[str, Any] = json.loads(json.dumps(self.as_dict()))
        training = {name: x for name, x in settings["training"].items() if name not in MAY_CHANGE}
        return weights_settings(settings) | {"training": training}

    @classmethod
    def from_dict(cls, config: dict[str, Any], task: Task | None = None) -> RunSettings:
        """The inverse of `as_dict`; `task` is the run's task, if the command line does not know it by name."""
        return cls(
            task or from_settings(task_class(config["task"]), config["task_settings"]),
            config_of(config["model"]),
            from_settings(TrainingConfig, config["training"]),
            config["seed"],
            str(config.get("init", "")),
        )
