"""A page of HTML that needs nothing beside it, and the arrays in it."""

from __future__ import annotations

import base64
import html
import importlib.resources
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.backend import to_host
from minitransformer.errors import InputError
from minitransformer.files import as_json, write_text

MOST_NUMBERS = 2_000_000  # of a page: 8 MB


class Page:
    """The page explain.html with its data. In a notebook it is shown in the cell's output."""

    def __init__(self, data: dict[str, Any]) -> None:
        template = importlib.resources.files(__package__).joinpath("explain.html").read_text("utf-8")
        self.text = template.replace("@DATA@", as_json(data).replace("<", "\\u003c"))

    def save(self, path: Path) -> Path:
        """Write the page to `path`, whose old content it replaces, and return `path`."""
        write_text(path, self.text)
        return path

    def _repr_html_(self) -> str:
        style = "width: 100%; height: 52rem; border: 0"
        return f'<iframe title="explain" style="{style}" srcdoc="{html.escape(self.text)}"></iframe>'


class Arrays:
    """The arrays of a page as texts; equal ones are kept once. Raises InputError for too many numbers."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._index: dict[bytes, int] = {}
        self._n_numbers = 0

    def add(self, x: Any) -> int:
        """The index of the text of `x`."""
        numbers = packed(to_host(x))
        if numbers not in self._index:
            self._n_numbers += len(numbers) // 3
            if self._n_numbers > MOST_NUMBERS:
                raise InputError(
                    f"layers: expected a page of at most {MOST_NUMBERS:,} numbers, got more; choose fewer layers, "
                    f"as --layers 1 does, or a shorter sentence"
                )
            self._index[numbers] = len(self.texts)
            self.texts.append(base64.b64encode(numbers).decode())
        return self._index[numbers]


def packed(x: np.ndarray) -> bytes:
    """The numbers of `x`, each as the three upper bytes of a float32, lowest first: right to five digits, 1.5e-5."""
    bits = np.ascontiguousarray(x, "<f4").view("<u4")
    rounded = np.where(np.isfinite(x), bits + 0x80, bits).astype("<u4")
    return rounded.reshape(-1, 1).view("u1")[:, 1:].tobytes()
