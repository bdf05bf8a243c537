"""A process of its own for one side of a comparison: a number of times on standard input, how long they took on the
output. Started by sides.py: python worker.py module.Class '{"shape": [...], ...}'
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

from shapes import Shape


def peak_memory_mb() -> float:
    """The most memory this process has held, and what its forks have for themselves (what they share is counted once).

    (Linux's ru_maxrss begins with that of the process that started it.)
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            * (1 if sys.platform == "darwin" else 1024)
            / 1e6
        )
    kilobytes = int(status.read_text().split("VmHWM:")[1].split()[0])
    for fork in multiprocessing.active_children():
        lines = Path(f"/proc/{fork.pid}/smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return kilobytes * 1024 / 1e6


what, arguments = sys.argv[1], json.loads(sys.argv[2])
module, name = what.split(".")
call = getattr(importlib.import_module(module), name)(**{**arguments, "shape": Shape(*arguments["shape"])})
for line in sys.stdin:
    seconds, result = [], None
    for _ in range(int(line)):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "result": result, "memory_mb": peak_memory_mb()}), flush=True)
