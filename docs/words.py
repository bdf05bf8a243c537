"""Words that a cell of the book shows in a picture, in the language in which the site is built."""

from __future__ import annotations

import gettext
import os
from functools import cache
from pathlib import Path

LOCALE = Path(__file__).parent / "locale"


def tr(text: str) -> str:
    """`text` in the language of the site, or as it is where no catalogue in docs/locale translates it."""
    return _catalogues(os.environ.get("BOOK_LANGUAGE", "en")).gettext(text) if text else text


@cache
def _catalogues(language: str) -> gettext.NullTranslations:
    """All catalogues of a language, one asked after the other. (Sphinx has made the .mo files from the .po files.)"""
    found = gettext.NullTranslations()
    for path in sorted((LOCALE / language / "LC_MESSAGES").rglob("*.mo")):
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
        catalogue.add_fallback(found)
        found = catalogue
    return found
