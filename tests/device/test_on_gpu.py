"""The script for a machine with a GPU goes on whatever fails, and keeps to its time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("on_gpu.sh")


def test_its_limits_add_up_to_less_than_eight_minutes():
    limits = [int(n) for n in re.findall(r"^ *stage \w+ (\d+) ", SCRIPT.read_text(), re.MULTILINE)]
    assert len(limits) == 7 and sum(limit + 5 for limit in limits) < 480  # and 5 s to end what does not stop


@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("timeout"), reason="no bash, or no timeout")
def test_it_goes_on_whatever_fails_and_says_so(tmp_path):
    """With an interpreter that fails in one stage and takes too long in another."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\ncase $* in *versions*) echo card: a card;; *pytest*) sleep 9;; *) exit 3;; esac\n"
    )
    python.chmod(0o755)
    folder = tmp_path / "tests" / "device"
    folder.mkdir(parents=True)
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": str(python)}
    environment.pop("MINITRANSFORMER_STAND_IN", None)
    quick = re.sub(r"stage (tests|runs) \d+", r"stage \1 1", SCRIPT.read_text())
    (folder / "on_gpu.sh").write_text(quick)
    done = subprocess.run(
        ["bash", folder / "on_gpu.sh"], env=environment, capture_output=True, text=True, check=False
    )
    summary = (tmp_path / "out" / "summary.txt").read_text()
    found = {line.split()[0]: re.split(r"  +|: ", line)[1] for line in summary.splitlines()}
    assert found.pop("memcheck") in ("left out", "FAILED, status 3", "FAILED, status 9")
    assert found == {"versions": "passed", "tests": "not finished", "runs": "not finished", "speed": "left out",
                     "products": "FAILED, status 3", "host": "FAILED, status 3"}  # fmt: skip
    assert done.returncode == 1 and "== on a card, in " in done.stdout
    assert (tmp_path / "out" / "versions.log").read_text() == "card: a card\n"
