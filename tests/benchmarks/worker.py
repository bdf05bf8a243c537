"""One side of a comparison in a process of its own: a number of steps on standard input, their times on the output.

python worker.py numpy|torch SHAPE DROPOUT
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time

from shapes import SHAPES

side, shape, dropout = sys.argv[1:4]
step = importlib.import_module({"numpy": "numpy_side", "torch": "torch_peer"}[side]).Step(
    SHAPES[shape], float(dropout)
)
for line in sys.stdin:
    seconds, loss = [], 0.0
    for _ in range(int(line)):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps({"seconds": seconds, "loss": loss, "memory_mb": memory_mb}), flush=True)
