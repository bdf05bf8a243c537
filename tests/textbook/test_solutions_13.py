"""Chapter 13 shows each exercise of the command once, in the command's order, with the solution that is tested.

That the solutions are right is tested in tests/exercises/test_exercises.py.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from minitransformer.exercises import EXERCISES, FAULTY

CHAPTER = Path(__file__).parents[2] / "docs" / "textbook" / "13-find-the-bug.md"
SOLUTIONS = Path(__file__).parents[1] / "exercises" / "solutions"


def test_each_exercise_has_its_file_two_hints_and_a_solution():
    text = CHAPTER.read_text(encoding="utf-8")
    sections = re.split(r"^### \d+\. ", text[: text.index("## What found them")], flags=re.MULTILINE)[1:]
    assert len(sections) == len(EXERCISES)
    for name, section in zip(EXERCISES, sections, strict=True):
        file = f"../../minitransformer/exercises/faulty/{name}.py"
        assert f"```{{literalinclude}} {file}\n```" in section
        assert (
            section.index("First hint") < section.index("Second hint") < section.index("{dropdown} Solution")
        )


def test_the_solutions_show_all_that_changes():
    text = CHAPTER.read_text(encoding="utf-8")
    for name in EXERCISES:
        source = (SOLUTIONS / f"{name}.py").read_text(encoding="utf-8")
        classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
        shown = []
        for cls, method in re.findall(
            rf"exercises/solutions/{name}\.py\n:pyobject: (\w+)(?:\.(\w+))?\n", text
        ):
            inside = (node for node in classes[cls].body if getattr(node, "name", "") == method)
            node = next(inside) if method else classes[cls]
            shown += ast.get_source_segment(source, node, padded=True).splitlines()
        changed = set(source.splitlines()) - set(
            (FAULTY / f"{name}.py").read_text(encoding="utf-8").splitlines()
        )
        assert {line for line in changed if "import" not in line} <= set(shown), name
