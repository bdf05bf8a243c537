"""What the site's hand-written pages name exists: files, symbols, tests, and every public name in the reference."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHAPTERS = sorted((DOCS / "textbook").glob("[0-9]*.md"))
PUBLIC = [
    "",
    ".layers",
    ".models",
    ".training",
    ".inference",
    ".parallel",
    ".runs",
    ".figures",
    ".gradcheck",
    ".testing",
    ".tasks",
]
# Constants and the name of a type, which have no docstring of their own.
NOT_IN_THE_REFERENCE = {"BOS", "EOS", "PAD", "TASKS", "KINDS", "Pair", "TOLERANCE"}


def module(name: str) -> ModuleType:
    return import_module(f"minitransformer{name}")


def rows_of_the_map() -> list[list[str]]:
    lines = (DOCS / "paper-map.md").read_text(encoding="utf-8").splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| §")]


def defined_in(path: Path) -> set[str]:
    """The names that a file gives to its classes, functions and variables."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def missing_in(row: list[str]) -> list[str]:
    """What a row of the map names and the repository does not have."""
    _, files, symbols, tests = (re.findall(r"`([^`]+)`", cell) for cell in row)
    sources = [ROOT / "minitransformer" / file for file in files]
    missing = [str(path) for path in sources if not path.is_file()]
    there = set().union(*(defined_in(path) for path in sources if path.is_file()))
    missing += [symbol for symbol in symbols if symbol not in there]
    for test in tests:
        file, _, function = test.partition("::")
        path = ROOT / "tests" / file
        if not path.is_file() or function not in defined_in(path):
            missing.append(test)
    assert sources and symbols and tests
    return missing


def test_the_map_of_the_paper_names_what_exists() -> None:
    rows = rows_of_the_map()
    assert len(rows) > 20
    assert not [(row[0], missing) for row in rows if (missing := missing_in(row))]


def test_a_wrong_row_of_the_map_would_be_noticed() -> None:
    right = "§3.3 | `layers/linear.py` | `Linear` | `layers/test_linear.py::test_linear_is_x_times_w_plus_b`"
    assert not missing_in(right.split(" | "))
    for wrong in ("linear.py", "Linear", "test_linear_is_x_times_w_plus_b"):
        assert missing_in(re.sub(rf"{wrong}(?=`)", "no_such_thing", right).split(" | "))


def test_the_reference_has_every_public_name() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    documented = []
    for path in re.findall(r"^\.\. auto\w+:: minitransformer\.([\w.]+)$", pages, re.MULTILINE):
        prefix, _, name = path.rpartition(".")
        documented.append(getattr(module(f".{prefix}" if prefix else ""), name))
    public = {
        f"minitransformer{name}.{symbol}": getattr(module(name), symbol)
        for name in PUBLIC
        for symbol in module(name).__all__
        if symbol not in NOT_IN_THE_REFERENCE
    }
    left_out = [
        name
        for name, thing in public.items()
        if not isinstance(thing, ModuleType) and not any(thing is other for other in documented)
    ]
    assert not left_out, "docs/api/ lacks public names"
    assert len(documented) == len(set(documented)), "docs/api/ has a name twice"


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2.1 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_of_figures_stand_out_from_both_pages() -> None:
    text = (DOCS / "book.py").read_text(encoding="utf-8")
    colours = re.findall(
        r"#[0-9a-f]{6}", next(line for line in text.splitlines() if line.startswith("COLORS"))
    )
    assert len(set(colours)) == 8
    for page in ("#ffffff", "#131416"):  # furo's light and dark background
        for colour in colours:
            light, dark = sorted((luminance(page), luminance(colour)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 3, (page, colour)


def letters_and_chapters() -> list[tuple[str, int]]:
    """(letter, chapter) for each chapter in which docs/notation.md says that the letter has a meaning of its own."""
    page = (DOCS / "notation.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| \{math\}`(\w)` \|(.*)\|$", page.partition("## Letters with more")[2], re.MULTILINE
    )
    numbers = [(letter, re.findall(r"\((\d+(?:, \d+)*)\)", text)) for letter, text in rows]
    return [(letter, int(n)) for letter, lists in numbers for each in lists for n in each.split(", ")]


def formulas_of(chapter: int) -> str:
    """The formulas and cells of a chapter, without LaTeX's commands and text, which are not names."""
    (path,) = (DOCS / "textbook").glob(f"{chapter:02}-*.md")
    text = path.read_text(encoding="utf-8")
    cells = re.findall(r"^```\{code-cell\}.*?^```", text, re.MULTILINE | re.DOTALL)
    formulas = re.findall(
        r"\$\$.+?\$\$|\$[^$]+\$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.DOTALL
    )
    return " ".join(cells + [re.sub(r"\\text\{[^}]*\}|\\[a-zA-Z]+", " ", formula) for formula in formulas])


def test_the_letters_of_the_notation_occur_in_the_chapters_that_it_names() -> None:
    listed = letters_and_chapters()
    assert len(listed) > 60 and {chapter for _, chapter in listed} == set(range(13))
    text = {chapter: formulas_of(chapter) for chapter in range(13)}
    assert not [
        f"{letter} in chapter {chapter}"
        for letter, chapter in listed
        if not re.search(rf"(?<![A-Za-z])d?{letter}(?![A-Za-z])", text[chapter])
    ]


def test_the_glossary_is_in_order_and_each_term_names_a_chapter() -> None:
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    entries = page.partition("```{glossary}\n")[2].rpartition("```")[0].strip().split("\n\n")
    terms = [entry.splitlines()[0] for entry in entries]
    assert len(terms) > 70 and terms == sorted(terms, key=str.lower)
    for entry in entries:
        chapters = re.findall(r"\{doc\}`textbook/([^`]+)`", entry)
        assert chapters and all((DOCS / "textbook" / f"{chapter}.md").is_file() for chapter in chapters), (
            entry
        )


def cells_of(chapter: str) -> list[tuple[bool, str]]:
    """(whether the page shows its code, the code) of each cell of a chapter."""
    cells = re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)
    parts = [
        re.match(r"(---\n.*?^---\n|(?::[^\n]*\n)*)(.*)", cell, re.MULTILINE | re.DOTALL) for cell in cells
    ]
    return [("remove-" not in part[1], part[2]) for part in parts if part]


def names_of(code: str) -> tuple[set[str], set[str]]:
    """The names that a cell gives to something, and those that it reads."""
    given, read = set(), set()
    for node in ast.walk(ast.parse(re.sub(r"^[!%]", "#", code, flags=re.MULTILINE))):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else given).add(node.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            given.add(node.name)
        elif isinstance(node, ast.arg):
            given.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            given |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return given, read


def used_before_shown(chapter: str) -> set[str]:
    """The names that a shown cell reads and only cells whose code is not shown have given to something."""
    shown: set[str] = set()
    hidden: set[str] = set()
    missing: set[str] = set()
    for is_shown, code in cells_of(chapter):
        given, read = names_of(code)
        if is_shown:
            missing |= read & hidden - shown - given
            shown |= given
        else:
            hidden |= given
    return missing


def test_whoever_copies_the_cells_that_are_shown_has_every_name() -> None:
    found = {path.name: used_before_shown(path.read_text(encoding="utf-8")) for path in CHAPTERS}
    assert len(found) == 15 and not {name: names for name, names in found.items() if names}


def test_a_name_from_a_hidden_cell_would_be_noticed() -> None:
    hidden = "```{code-cell} python3\n:tags: [remove-input]\na = 1\n```\n"
    shown = "```{code-cell} python3\nb = a + 1\n```\n"
    assert used_before_shown(hidden + shown) == {"a"}
    assert used_before_shown(hidden.replace("remove-input", "hide-input") + shown) == set()


def test_no_line_of_a_page_begins_with_a_percent_sign() -> None:
    """MyST would take it for a comment, and leave it out of the site."""
    pages = list(DOCS.rglob("*.md"))
    lines = [(page, line) for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert len(pages) > 40 and [where for where in lines if where[1].lstrip().startswith("%")] == []
