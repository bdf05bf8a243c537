"""Every page of the built site in a browser.

    sphinx-build -W -j auto -b html docs docs/_build/html
    pytest tests/textbook/test_site.py

With MINITRANSFORMER_SITE, the folder of a site, a missing site or browser is a failure; without it, the tests are
skipped then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import WIDTHS, look, not_here, problems_of, served

SITE = Path(os.environ.get("MINITRANSFORMER_SITE", Path(__file__).parents[2] / "docs" / "_build" / "html"))


def built_pages() -> list[Path]:
    pages = sorted(SITE.rglob("*.html"))
    if not pages:
        not_here(f"no site in {SITE}: sphinx-build -W -j auto -b html docs docs/_build/html")
    return pages


def test_every_page(window: Any) -> None:
    pages = built_pages()
    with served(SITE) as address:
        found = {}
        for page in (page.relative_to(SITE).as_posix() for page in pages):
            if problems := problems_of(window, f"{address}/{page}"):
                found[page] = problems
    lines = [f"{page}: {problem}" for page, problems in found.items() for problem in problems]
    assert not lines, "\n".join(lines)


def test_figure_1_works_with_the_keyboard_and_a_thumb(window: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    assert built_pages()
    with served(SITE) as address:
        look(window, "light", WIDTHS["phone"])
        window.get(f"{address}/textbook/09-architecture.html")
        window.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        boxes = window.find_elements(By.CSS_SELECTOR, ".figure-1 a")
        assert len(boxes) == 18
        for box in boxes:
            assert min(box.rect["width"], box.rect["height"]) >= 24, box.accessible_name
            target = box.get_dom_attribute("href")
            box.send_keys(Keys.ENTER)
            assert target.startswith("#") and window.current_url.endswith(target)
            panel = window.find_element(By.CSS_SELECTOR, ":target")
            assert 0 <= panel.rect["y"] - window.execute_script("return scrollY") < 900
        window.execute_script("scrollTo(0, 0)")
        window.execute_script("arguments[0].focus()", boxes[0])
        window.switch_to.active_element.send_keys(Keys.TAB)
        assert window.switch_to.active_element == boxes[1]


GOOD = """<!doctype html><html lang="en"><head><title>t</title><link rel="icon" href="data:,">
<style>
body { background: white } .only-dark { display: none }
@media (prefers-color-scheme: dark) {
    body { background: black } .only-light { display: none } .only-dark { display: block }
}
</style></head><body><article id="a">
<span class="math"><mjx-container>x</mjx-container></span>
<div class="book-figure">
<img class="only-light" alt="a" src="PICTURE"><img class="only-dark" alt="a" src="PICTURE">
</div>
<a href="#a">link</a>
</article></body></html>
""".replace(
    "PICTURE", "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/%3E"
)

CONTROLS = {
    "wider than the screen": ("</article>", '<div style="width: 500px">a</div></article>'),
    "wider than the screen: 600 px": (
        "</article>",
        '<div class="content" style="overflow: auto"><p style="width: 600px">a</p></div></article>',
    ),
    "formula not rendered": ("<mjx-container>x</mjx-container>", r"\(x\)"),
    "formula with an error": ("<mjx-container>x", "<mjx-container><mjx-merror>x</mjx-merror>"),
    "figure not shown in the theme": ('class="only-dark"', 'class="only-light"'),
    "image without a picture": ("data:image/svg+xml,", "data:image/svg+xml,no"),
    "image without a text": ('alt="a"', ""),
    "image not shown": ('class="only-light"', 'style="display: none"'),
    "link to nowhere": ('href="#a"', 'href="#b"'),
    "not in the dark theme": ("background: black", "background: white"),
    "console: ": ("</article>", "<script>nothing_of_this_name()</script></article>"),
    "request to another host: http://example.org/": (
        "</article>",
        '<script>fetch("http://example.org/").catch(() => 0)</script></article>',
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


def test_a_good_page_has_no_problem(window: Any, folder: Path, address: str) -> None:
    (folder / "good.html").write_text(GOOD, encoding="utf-8")
    assert problems_of(window, f"{address}/good.html") == []


@pytest.mark.parametrize("problem", CONTROLS)
def test_a_bad_page_is_noticed(problem: str, window: Any, folder: Path, address: str) -> None:
    old, new = CONTROLS[problem]
    assert old in GOOD
    page = f"bad-{list(CONTROLS).index(problem)}.html"  # a name of its own: browsers remember pages
    (folder / page).write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    found = problems_of(window, f"{address}/{page}")
    assert any(problem in line for line in found), found
