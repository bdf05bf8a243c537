"""The tasks that a model can learn; `TASKS` are those that the command line knows by name."""

from __future__ import annotations

from minitransformer.tasks.chars import Chars
from minitransformer.tasks.copy import Copy
from minitransformer.tasks.reverse import Reverse
from minitransformer.tasks.sequence import SequenceTask
from minitransformer.tasks.sort import Sort
from minitransformer.tasks.subwords import Subwords
from minitransformer.tasks.task import Task
from minitransformer.tasks.text import Text
from minitransformer.tasks.translate import Translate
from minitransformer.tasks.vocabulary import Vocabulary
from minitransformer.training.batching import BOS, EOS, PAD, Pair
from minitransformer.validation.settings import one_of

TASKS: dict[str, type[Task]] = {task.name: task for task in (Copy, Reverse, Sort, Translate, Text, Chars)}


def task_class(name: str) -> type[Task]:
    """The task called `name`. Raises ConfigError, suggesting the nearest, if there is none."""
    one_of("task", name, TASKS)
    return TASKS[name]


__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "TASKS",
    "Chars",
    "Copy",
    "Pair",
    "Reverse",
    "SequenceTask",
    "Sort",
    "Subwords",
    "Task",
    "Text",
    "Translate",
    "Vocabulary",
    "task_class",
]
