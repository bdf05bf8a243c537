"""docs/laws.md names tests that exist, and all of this folder's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "laws.md").read_text(encoding="utf-8")


def names_of_tests(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_the_page_of_laws_and_the_tests_are_one():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) == len(set(named)) == PAGE.count("::test_")
    missing = [f"{file}::{name}" for file, name in named if name not in names_of_tests(TESTS / file)]
    assert not missing, "docs/laws.md names tests that do not exist"
    here = {
        (path.relative_to(TESTS).as_posix(), name)
        for path in Path(__file__).parent.glob("test_*.py")
        for name in names_of_tests(path)
        if path != Path(__file__)
    }
    assert not here - set(named), "laws that docs/laws.md does not state"
