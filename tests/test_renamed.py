"""Names from earlier versions still work, and say what they are called now."""

from __future__ import annotations

import re
from importlib import import_module
from typing import ClassVar

import pytest

from minitransformer import tasks, training

OLD_NAMES = {
    "Ranks": "minitransformer.parallel.Ranks",
    "Replicas": "minitransformer.parallel.Replicas",
    "RunFolder": "minitransformer.runs.RunFolder",
    "RunSettings": "minitransformer.runs.RunSettings",
    "Trainer": "minitransformer.runs.Trainer",
    "average_checkpoints": "minitransformer.runs.average_checkpoints",
    "evaluate": "minitransformer.runs.evaluate",
    "load_model": "minitransformer.runs.load_model",
    "processes_that_pay": "minitransformer.parallel.default_processes",
    "shared": "minitransformer.training.split_batch",
    "train_step": "minitransformer.parallel.train_step",
    "translate": "minitransformer.inference.translate",
}


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_an_old_name_is_the_same_object_as_the_new_one_and_warns(old, new):
    module, _, name = new.rpartition(".")
    said = re.escape(f"minitransformer.training.{old} is now {new};")
    with pytest.warns(DeprecationWarning, match=said) as warned:
        found = getattr(training, old)
    assert found is getattr(import_module(module), name)
    # where the old name is used
    assert [warning.filename for warning in warned] == [__file__]
    imported: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=said):
        exec(f"from minitransformer.training import {old}", imported)
    assert imported[old] is found


def test_no_other_old_name_is_known():
    (names,) = (
        cell.cell_contents
        for cell in training.__getattr__.__closure__
        if isinstance(cell.cell_contents, dict)
    )
    assert names == OLD_NAMES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'minitransformer\.training' has no attribute 'Trainr'"):
        _ = training.Trainr
    with pytest.raises(ImportError, match="Trainr"):
        exec("from minitransformer.training import Trainr")


def test_a_task_that_says_best_by_has_it_as_its_selection_metric_and_warns():
    with pytest.warns(DeprecationWarning, match=r"Old\.best_by is now selection_metric;"):

        class Old(tasks.Sort):
            best_by: ClassVar[str] = "token_accuracy"

    assert Old.selection_metric == "token_accuracy"
    assert tasks.Sort.selection_metric == tasks.Task.selection_metric == "exact_match"

    # Said once, where the old name stands; what is derived from it needs no change.
    class Heir(Old):
        pass

    assert Heir.selection_metric == "token_accuracy"
