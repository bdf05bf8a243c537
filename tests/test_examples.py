"""The examples run, and say what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import minitransformer as mt

EXAMPLES = Path(__file__).parent.parent / "examples"


def output(name: str) -> str:
    run = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=True)
    return run.stdout


def test_examples_are_short():
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 100 for path in EXAMPLES.glob("*.py"))


def test_train_by_hand_learns_to_copy():
    share = re.search(r"without a mistake: ([\d.]+)%", output("train_by_hand.py"))
    assert share is not None and float(share.group(1)) > 80


def test_own_task_is_a_task():
    sys.path.insert(0, str(EXAMPLES))
    try:
        from own_task import Doubles
    finally:
        sys.path.remove(str(EXAMPLES))
    assert Doubles().answer(np.array([3, 14])).tolist() == [3, 6, 14, 8]
    settings = {"steps": 3, "warmup_steps": 1, "evaluate_every": 3}
    result = mt.Trainer(mt.RunSettings.of(Doubles(test_size=5), settings)).run()
    assert result["task"] == "doubles" and result["steps"] == 3


def test_check_your_own_layer_tells_right_from_wrong():
    titles = re.findall(r"^(\w+): (ok|WRONG)", output("check_your_own_layer.py"), re.MULTILINE)
    assert titles == [("RMSNorm", "ok"), ("AlmostRMSNorm", "WRONG"), ("Bias", "WRONG"), ("RMSNorm", "ok")]
