"""A user's task on numbers, whose class is a dataclass."""

from dataclasses import dataclass
from typing import ClassVar

from minitransformer.tasks import (
    SequenceTask,
)


def words_of(task, ids):
    return task.vocabulary.decode(ids).split()


@dataclass(frozen=True)
class Double(SequenceTask):
    """A user's task on numbers: every one doubled, modulo n_symbols."""

    name: ClassVar[str] = "double"
    training: ClassVar[dict] = {"steps": 5}
    max_length: int = 5
    epoch_size: int = 20
    test_size: int = 4

    def answer(self, sequence):
        return 2 * sequence % self.n_symbols
