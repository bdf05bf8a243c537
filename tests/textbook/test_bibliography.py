"""docs/bibliography.md has every work that the book or the package cites, and none that nobody does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "bibliography.md"
# "Ba et al. 2016", "Press and Wolf (2017)", "Elman 1990", "He et al. 2016b"
CITATION = re.compile(
    r"((?:Mac)?[A-Z][a-zéöü]+)(?: et al\.| and [A-Z][a-z]+)?,? \(?((?:19|20)\d\d[a-z]?)(?:[),;:.]|\b)"
)


def citations(text: str) -> set[tuple[str, str]]:
    """(first author, year) of each citation, also of those that go over the end of a line."""
    return set(CITATION.findall(re.sub(r"[ \n]+", " ", text)))


def listed() -> list[tuple[str, str]]:
    return re.findall(r"^- (\w+)[^()]*\((\d{4}[a-z]?)\): \*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def cited() -> set[tuple[str, str]]:
    pages = [path for path in (ROOT / "docs").rglob("*.md") if path != PAGE and "_build" not in path.parts]
    sources = list((ROOT / "minitransformer").rglob("*.py"))
    assert len(pages) > 20 and len(sources) > 50
    return set().union(*(citations(path.read_text(encoding="utf-8")) for path in pages + sources))


def test_every_work_that_is_cited_is_listed_and_the_other_way_round() -> None:
    works = listed()
    entries = re.findall(r"^- ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(works) == len(entries) == len(set(works)) > 40
    assert works == sorted(works, key=lambda work: work[0])
    assert cited() == set(works)


def test_a_citation_is_recognised_in_every_form_that_the_book_uses() -> None:
    text = "(Ba et al. 2016; Press and\nWolf (2017), Elman 1990) He et al. (2016, §4.1) He et al. 2016b,"
    found = {("Ba", "2016"), ("Press", "2017"), ("Elman", "1990"), ("He", "2016"), ("He", "2016b")}
    assert citations(text) == found
