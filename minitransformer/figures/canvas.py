"""An empty matplotlib figure without a window, which the other modules draw on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from minitransformer.files import write_file
from minitransformer.streams import say


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """An empty figure, its size in inches. Raises ImportError, saying what to install, without matplotlib.

    With `layout` None, axes stay where they are put.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'minitransformer[app]'") from None
    return Figure(figsize=(width, height), layout=layout)


def save(figure: Any, path: Path) -> Path:
    """Write the figure as a PNG to `path`, and return `path`.

    What the usual font lacks is written in another font of this machine; if none has it, a line says so.
    """
    if missing := _take_fonts(figure):
        say(f"{path}: no font here has {' '.join(missing)}; boxes stand for them")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # one line for each of them
        write_file(path, lambda file: figure.savefig(file, format="png", dpi=150))
    return path


def _take_fonts(figure: Any) -> list[str]:
    """Give the texts of a figure the fonts that they need; the characters, in order, that no font has."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager
    from matplotlib.ft2font import FT2Font
    from matplotlib.text import Text

    usual, *others = [findfont(FontProperties()), *sorted({font.fname for font in fontManager.ttflist})]
    texts = figure.findobj(Text)
    missing = {c for text in texts for c in text.get_text() if c > " " and not c.isspace()}
    missing -= set(map(chr, FT2Font(usual).get_charmap()))
    families: list[str] = []
    for path in others:
        if not missing:
            break
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # removed since the list was made, or not readable
            continue
        if font.family_name.startswith("Last Resort"):  # it has a box for every character
            continue
        if found := missing & set(map(chr, font.get_charmap())):
            families.append(font.family_name)
            missing -= found
    for text in texts if families else ():
        text.set_fontfamily([*text.get_fontfamily(), *families])
    return sorted(missing)
