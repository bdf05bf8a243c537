"""An empty matplotlib figure without a window, which the other modules draw on."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def new_figure(width: float, height: float) -> Any:
    """An empty figure, its size in inches. Raises ImportError, saying what to install, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'minitransformer[app]'") from None
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: Path) -> Path:
    """Write the figure as a PNG to `path`, and return `path`."""
    figure.savefig(path, dpi=150)
    return path
