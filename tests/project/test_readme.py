"""The README's promises that can be checked in a moment: its example, its links, its names of tests."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import readme

ROOT = Path(readme.__file__).parents[2]


def test_the_example_prints_what_the_readme_says():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(readme.block("python", "library"), {})
    assert readme.without_rounding(printed.getvalue()) == readme.without_rounding(
        readme.block("output", "library")
    )


def test_links_lead_somewhere():
    links = re.findall(r"(?:\]\(|src=\")(?!http)([^)#\"]+)", readme.TEXT)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_contents_lead_to_the_sections():
    sections = re.findall(r"^## (.+)$", readme.TEXT, re.MULTILINE)
    contents = re.findall(r"^- \[(.+)\]\(#(.+)\)$", readme.TEXT, re.MULTILINE)
    assert contents == [(name, re.sub(r"[^\w -]", "", name).lower().replace(" ", "-")) for name in sections]


def test_deviations_name_tests_that_exist():
    text = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = re.findall(r"`(test_\w+)`", text)
    assert len(names) > 5 and [name for name in names if f"def {name}(" not in tests] == []
    files = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert [file for file in files if not (ROOT / file).exists()] == []
