"""What a model can learn: the interface of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from minitransformer.backend import Generator
from minitransformer.tasks.vocabulary import Vocabulary

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]  # ids of the source's and the target's symbols


class Task(ABC):
    """A source of sentence pairs, with the settings that learn it.

    `model` and `training` are the settings in which the task departs from TransformerConfig and
    TrainingConfig. Pairs hold symbols only: batching adds BOS, EOS and PAD.
    """

    name: ClassVar[str]
    model: ClassVar[Mapping[str, Any]] = {}
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

        "test" is the set whose exact match is the task's result.
        """
