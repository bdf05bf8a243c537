"""Tasks by name."""

import pytest

import minitransformer as mt
from minitransformer.tasks import (
    TASKS,
    Chars,
    Copy,
    Reverse,
    Sort,
    Text,
    Translate,
    task_class,
)


def test_tasks_are_found_by_name():
    classes = {
        "copy": Copy,
        "reverse": Reverse,
        "sort": Sort,
        "translate": Translate,
        "text": Text,
        "chars": Chars,
    }
    assert {name: task_class(name) for name in TASKS} == classes
    with pytest.raises(mt.ConfigError, match=r"'revers'.*'reverse'"):
        task_class("revers")
