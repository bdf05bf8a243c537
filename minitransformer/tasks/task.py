"""The interface of a task: something that a model can learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from minitransformer.backend import Generator
from minitransformer.tasks.vocabulary import Vocabulary
from minitransformer.training.batching import MakeBatch, Pair, joined_batch, make_batch


class Task(ABC):
    """A source of sentence pairs, with the settings to learn it.

    `model` and `training` are the settings in which the task departs from TransformerConfig and
    TrainingConfig. Pairs hold symbols only: batching adds BOS, EOS and PAD.
    """

    name: ClassVar[str]
    # the figure on "valid" by which the best weights are chosen, and whether the largest is the best
    selection_metric: ClassVar[str] = "exact_match"
    larger_is_better: ClassVar[bool] = True
    # whether the model's own answers are measured, or only its loss
    has_answers: ClassVar[bool] = True
    # the families of models that can learn the task, the usual one first, and how a batch of pairs is made for each
    families: ClassVar[Mapping[str, MakeBatch]] = {
        "encoder-decoder": make_batch,
        "decoder-only": joined_batch,
    }
    model: ClassVar[Mapping[str, Any]] = {}
    # settings in which a model of another family departs from `model`
    model_of_family: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    training: ClassVar[Mapping[str, Any]] = {}

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The symbols of source and target."""

    @abstractmethod
    def training_pairs(self, rng: Generator) -> list[Pair]:
        """The pairs of one epoch: drawn afresh from `rng`, or the same each time."""

    @abstractmethod
    def evaluation_sets(self, rng: Generator) -> dict[str, list[Pair]]:
        """Pairs that training never shows, by name: "valid" steers the training, the others measure it.

        "test" is the set whose figures are the task's result; without one, they are those of "valid".
        """

    def figures(self, name: str, answers: Sequence[Sequence[int]]) -> dict[str, float]:
        """The task's own figures, besides exact match, on the answers to the sources of the evaluation set `name`."""
        return {}

    def remarks(self) -> list[str]:
        """Remarks on the training pairs, for the user who trains on them."""
        return []

    def files(self) -> dict[str, bytes]:
        """The files, by name, that a run folder needs to read and write the symbols, besides the settings."""
        return {}

    def load(self, folder: Path) -> None:
        """Load what `files` returns from a run folder, if it is there."""
        return None
