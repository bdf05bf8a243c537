"""The README as data: its commands and its Python examples with the output they promise.

python tests/helpers/readme.py command test      the shell command in the block marked <!-- command: test -->
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


if __name__ == "__main__":
    print(block(*sys.argv[1:3]))
