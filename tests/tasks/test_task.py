"""Tasks of a user's own."""

from collections.abc import Sequence

import numpy as np
import pytest
from own_tasks import Double

import minitransformer as mt
from minitransformer.backend import generator
from minitransformer.tasks import (
    Task,
    Vocabulary,
)

TINY = {
    "n_layers": 1,
    "d_model": 6,
    "d_k": 4,
    "n_heads": 2,
    "d_ff": 10,
    "max_len": 11,
    "steps": 3,
    "batch_tokens": 40,
    "warmup_steps": 2,
    "log_every": 1,
    "evaluate_every": 3,
}


class Capitals(Task):
    """A user's task that is not one on numbers, and no dataclass."""

    name = "capitals"

    @property
    def vocabulary(self):
        return Vocabulary("abcABC")

    def training_pairs(self, rng):
        words = [["abc"[i] for i in rng.integers(0, 3, 4)] for _ in range(12)]
        return [self._pair(word) for word in words]

    def evaluation_sets(self, rng):
        return {"valid": [self._pair("ab")], "test": [self._pair("cab"), self._pair("b")]}

    def _pair(self, word: Sequence[str]):
        encode = self.vocabulary.encode
        return encode(" ".join(word)), encode(" ".join(word).upper())


@pytest.mark.parametrize("task", [Double(), Capitals()], ids=["dataclass", "plain"])
def test_a_users_task_trains(task):
    settings = mt.RunSettings.of(task, TINY, seed=1)
    assert settings.training.steps == 3  # of the caller, over the task's own
    result = mt.Trainer(settings).run()
    assert result["task"] == task.name
    assert result["steps"] == 3
    assert result["sets"]["test"]["n"] == len(task.evaluation_sets(generator(0))["test"])


@pytest.mark.parametrize("task", [Double(n_symbols=7), Capitals()], ids=["dataclass", "plain"])
def test_a_users_task_trains_into_a_folder_and_its_model_comes_back(task, tmp_path):
    folder = mt.RunFolder(tmp_path / "run")
    settings = mt.RunSettings.of(task, TINY, seed=1)
    trainer = mt.Trainer(settings, folder)
    trainer.run()
    assert folder.settings(task) == trainer.settings  # in which the number of processes is decided
    model = mt.load_model(folder)  # which needs the model's settings only
    np.testing.assert_array_equal(model.flatten().data, trainer.model.flatten().data)
