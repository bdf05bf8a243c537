"""The README as data: its commands and its Python examples with the output they promise.

python tests/helpers/readme.py command test      prints the shell command in the block marked <!-- command: test -->
python tests/helpers/readme.py same library      compares standard input with the block <!-- output: library -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(kind: str, name: str) -> str:
    """The code block that follows the comment <!-- kind: name -->."""
    found = re.search(rf"<!-- {kind}: {name} -->\n```\w*\n(.*?)\n```", TEXT, re.DOTALL)
    if found is None:
        raise SystemExit(f"README.md has no block <!-- {kind}: {name} -->")
    return found.group(1)


def without_rounding(text: str) -> str:
    """`text` without what rounding decides, which machines do differently: which entry is worst, and by how little."""
    return re.sub(r"[-+]?\d\.\d+e[-+]\d+|at \[.*\]", "…", text.strip())


if __name__ == "__main__":
    kind, name = sys.argv[1:3]
    if kind != "same":
        print(block(kind, name))
    elif without_rounding(printed := sys.stdin.read()) != without_rounding(block("output", name)):
        sys.exit(f"expected what the README says, got\n{printed}")
