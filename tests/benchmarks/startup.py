"""How long the package, its gradient checker and its models take to import, beside `import numpy` and `import torch`.

    python tests/benchmarks/startup.py [--rounds N] [--json FILE]

Each import in a fresh process, in processor time, which does not depend on what else runs; the imports take turns.
Figures are medians, the spread is the middle half; a first round, which reads files from the disk, does not count.
"""

from __future__ import annotations

import subprocess
import sys

from sides import TORCH, Table, middle, parser, spread

IMPORTS = {  # what is timed -> what is imported before it
    "numpy": "",
    "minitransformer": "",
    "minitransformer.gradcheck, after numpy": "import numpy",
    "minitransformer.models, after numpy": "import numpy",
    "minitransformer.cli, after numpy": "import numpy",
    "minitransformer.pytest_plugin, after pytest": "import pytest",
    **({"torch": ""} if TORCH else {}),
}


def seconds_of(what: str) -> float:
    """One import in one process."""
    module = what.split(",")[0]
    lines = ["import time", IMPORTS[what], "start = time.process_time()", f"import {module}"]
    code = "\n".join([*lines, "print(time.process_time() - start)"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=11, help="processes for each import")
    chosen = options.parse_args()
    seconds: dict[str, list[float]] = {what: [] for what in IMPORTS}
    table = Table("{:<45} {:>7}  {}", ["import", "ms", "(middle half)"], chosen.json)
    for _ in range(1 + chosen.rounds):
        for what in IMPORTS:
            seconds[what].append(seconds_of(what))
    for what in IMPORTS:
        figures = middle(seconds[what][1:])
        table.row({"import": what, **figures}, [what, f"{figures['ms']:.1f}", spread(figures)])


if __name__ == "__main__":
    main()
