"""The translated chapters: each message of today's source, with the same formulas, code, links and numbers.

A chapter that changes fails here until its catalogue follows; CONTRIBUTING.md says how.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCALE = ROOT / "docs" / "locale"
CATALOGUES = sorted(LOCALE.rglob("*.po"))
# What both languages must have in common: (its name, how it is found, how one form of it becomes another's).
COMMON = [
    ("formulas", re.compile(r"\$([^$]+)\$"), lambda formula: "".join(formula.split())),
    (
        "roles and their targets",
        re.compile(r"(\{\w+\}`(?:[^`<]*<)?[^`>]+)>?`"),
        lambda role: re.sub(r"`.*<", "`", role),
    ),
    ("code spans", re.compile(r"`([^`]+)`"), str),
    ("addresses of links", re.compile(r"\]\(([^)]*)\)"), str),
    ("numbers", re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*"), lambda number: re.sub(r"\D", "", number)),
]


def common(text: str) -> dict[str, Counter[str]]:
    """The parts of a message that a translation leaves as they are. What was found is not looked at again."""
    found = {}
    for name, pattern, plain in COMMON:
        found[name] = Counter(plain(match) for match in pattern.findall(text))
        text = pattern.sub(" ", text)
    return found


def faults(catalogue: Any, template: Any) -> list[str]:
    """What is wrong with a catalogue, if `template` has the messages of the source."""
    found = [f"no longer in the source: {text!r}" for text in catalogue.obsolete]
    messages = {message.id: message for message in template if message.id}
    for message in catalogue:
        if not message.id:
            continue
        if message.id not in messages:
            found.append(f"no longer in the source: {message.id!r}")
        if message.fuzzy:
            found.append(f"marked as fuzzy: {message.id!r}")
    for text in messages:
        translated = catalogue.get(text)
        if translated is None or not translated.string:
            found.append(f"not translated: {text!r}")
            continue
        ours, theirs = common(text), common(translated.string)
        found += [
            f"other {name}, {dict(ours[name] - theirs[name])} became {dict(theirs[name] - ours[name])}: {text!r}"
            for name in ours
            if ours[name] != theirs[name]
        ]
    return found


def sphinx(builder: str, page: str, out: Path, *settings: str) -> str:
    """Build one page alone, without its outputs: what Sphinx says about it. (Links to other pages lead nowhere.)"""
    only = ["-D", f"root_doc={page}", "-D", f"include_patterns={page}.md", "-D", "nb_execution_mode=off"]
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", builder, *only, *settings, str(ROOT / "docs"), str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def language_and_page(path: Path) -> tuple[str, str]:
    """docs/locale/es/LC_MESSAGES/textbook/01.po -> es, textbook/01"""
    language, _, *page = path.relative_to(LOCALE).with_suffix("").parts
    return language, "/".join(page)


@pytest.fixture
def read_po() -> Any:
    for name in ("sphinx", "myst_nb", "furo", "sphinx_design", "sphinx_copybutton"):
        pytest.importorskip(name, reason="catalogues are checked where Sphinx is: pip install '.[docs]'")
    return pytest.importorskip("babel.messages.pofile").read_po


def test_a_chapter_is_translated() -> None:
    assert "docs/locale/es/LC_MESSAGES/textbook/01-why-attention.po" in [
        path.relative_to(ROOT).as_posix() for path in CATALOGUES
    ]


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: "-".join(language_and_page(path)))
def test_a_catalogue_has_every_message_of_its_page(path: Path, read_po: Any, tmp_path: Path) -> None:
    language, page = language_and_page(path)
    sphinx("gettext", page, tmp_path)
    with path.open("rb") as po, (tmp_path / f"{page}.pot").open("rb") as pot:
        found = faults(read_po(po, locale=language), read_po(pot))
    update = (
        f"docs/{page}.md has changed. In the repository, run\n"
        "    sphinx-build -b gettext docs POT\n"
        f"    pybabel update -w 100 --ignore-obsolete -l {language} -i POT/{page}.pot \\\n"
        f"        -o {path.relative_to(ROOT).as_posix()}\n"
        "then translate what is empty in it, mend what is marked as fuzzy, and take the mark away."
    )
    assert not found, "\n".join([*found, update])


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: "-".join(language_and_page(path)))
def test_a_translated_page_shows_no_message_of_the_source(
    path: Path, read_po: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    language, page = language_and_page(path)
    said = sphinx("html", page, tmp_path, "-D", f"language={language}").splitlines()
    assert not [line for line in said if "WARNING" in line and "unknown document" not in line]
    html = (tmp_path / f"{page}.html").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    with path.open("rb") as po:
        messages = [message for message in read_po(po, locale=language) if message.id]
    plain = [message for message in messages if not re.search(r"[$`*\"{<&']", message.id + message.string)]
    assert f'<html class="no-js" lang="{language}"' in html and len(plain) > 20
    assert not [message.id for message in plain if len(message.id) > 40 and message.id in text]
    headings = re.findall(r"<h[12]>(.*?)<a", html)
    assert headings and set(headings) <= {message.string for message in messages}

    # The words of pictures, by the catalogues that this build has compiled.
    spec = importlib.util.spec_from_file_location("words_of_the_book", ROOT / "docs" / "words.py")
    assert spec is not None and spec.loader is not None
    words = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(words)
    for chosen, expected in ((language, messages[0].string), ("en", messages[0].id)):
        monkeypatch.setenv("BOOK_LANGUAGE", chosen)
        assert words.tr(messages[0].id) == expected


SOURCE = "See {doc}`04-attention`: $O(n^2)$ for 1,024 words, by [this](https://a.b) and `mt.Adam`."
GOOD = "Véase {doc}`04-attention`: $O(n ^2)$ con 1.024 palabras, por `mt.Adam` y [esto](https://a.b)."


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Véase", "Mira", None),
        ("{doc}`04-attention`", "{doc}`la atención <04-attention>`", None),
        ("04-attention", "05-heads", "roles and their targets"),
        ("n ^2", "n^3", "formulas"),
        ("1.024", "1.025", "numbers"),
        ("`mt.Adam`", "`mt.Adán`", "code spans"),
        ("a.b", "a.c", "addresses of links"),
        (GOOD, "", "not translated"),
    ],
)
def test_faults_of_a_translation_are_noticed(old: str, new: str, fault: str | None, read_po: Any) -> None:
    from babel.messages.catalog import Catalog

    template, catalogue = Catalog(), Catalog(locale="es", fuzzy=False)
    template.add(SOURCE)
    assert old in GOOD
    catalogue.add(SOURCE, GOOD.replace(old, new))
    found = faults(catalogue, template)
    assert (not found) if fault is None else (len(found) == 1 and fault in found[0]), found


def test_a_changed_source_is_noticed(read_po: Any) -> None:
    from babel.messages.catalog import Catalog

    template, catalogue = Catalog(), Catalog(locale="es", fuzzy=False)
    template.add(SOURCE.replace("See", "Look at"))
    catalogue.add(SOURCE, GOOD)
    assert [line.partition(":")[0] for line in faults(catalogue, template)] == [
        "no longer in the source",
        "not translated",
    ]
    catalogue.update(template)  # as pybabel update does, with what is similar as a guess
    assert any(line.startswith("marked as fuzzy") for line in faults(catalogue, template))
