"""A browser for the tests that look at pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import installed, not_here, opened


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    try:
        import selenium  # noqa: F401
    except ImportError:
        not_here("selenium is not installed: pip install '.[docs]'")
    found = installed()
    if found is None:
        not_here("needs Chromium or Chrome, and chromedriver")
    else:
        with opened(*found) as window:
            yield window
