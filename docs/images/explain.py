"""Takes the README's picture of the explain page, once the site is built: python docs/images/explain.py [SITE]"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
sys.path.append(str(DOCS.parent / "tests" / "textbook"))

import browser  # noqa: E402


def main() -> None:
    """Take it at the scores of a translator's cross-attention, on a desk, in the light theme."""
    site = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else DOCS / "_build" / "html"
    address = (site / "explain" / "translate.html").as_uri()
    found = browser.installed()
    if found is None:
        sys.exit("needs Chromium or Chrome, and chromedriver")
    with browser.opened(*found) as window:
        browser.look(window, "light", browser.WIDTHS["desk"])
        window.get(f"{address}#decoder.layers.0.cross_attention/scores")
        window.save_screenshot(str(Path(__file__).with_suffix(".png")))


if __name__ == "__main__":
    main()
