"""Figures of the textbook: drawn once for the light and once for the dark theme."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from words import tr as tr

import minitransformer as mt

# Eight colours that stand out, at least 3 : 1, from a white and from a black page.
COLORS = ["#2f7fd0", "#cc6f12", "#2b9558", "#d34a55", "#8a63d2", "#14919b", "#c4519a", "#7d858f"]

# Text, lines and the grid of each theme.
THEMES = {"light": ("#1f2328", "#d5d9de"), "dark": ("#d4d8dd", "#3d434a")}


def show(draw: Callable[[Figure], object], alt: str, width: float = 7, height: float = 3.5) -> None:
    """Show what `draw(fig)` draws, `width` by `height` inches, as SVG; `alt` says it in words.

    `draw` is called twice, on a new Figure each time, so it must draw the same both times: compute, and take
    random numbers, before. Text and axes have the theme's colours already; for others take COLORS. Words that
    a translator should see stand in `tr("...")`; `alt` is translated as it is.
    """
    alt = tr(alt)
    images = "".join(
        f'<img class="only-{theme}" role="img" alt="{html.escape(alt)}" aria-label="{html.escape(alt)}"'
        f' width="{96 * width:.0f}" height="{96 * height:.0f}" src="{_svg(draw, theme, width, height)}">'
        for theme in THEMES
    )
    display(HTML(f'<div class="book-figure" tabindex="0" style="--width: {96 * width:.0f}px">{images}</div>'))


def solution(chapter: str, name: str) -> Any:
    """The function or class `name` of the solutions to a chapter: solution("04_attention", "solution_1")."""
    path = Path(__file__).parent / "textbook" / "solutions" / f"{chapter}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{chapter}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def translator(seed: int = 0) -> mt.Transformer:
    """A small trained model of the translate task, of which there are three: seed 0, 1, 2 (see weights/README.md)."""
    task = mt.tasks.Translate()
    sizes = {"n_layers": 2, "n_heads": 2, "d_model": 32, "d_ff": 32}
    model = mt.Transformer(mt.RunSettings.of(task, sizes).model)
    path = Path(__file__).parent / "textbook" / "weights" / f"translator-{seed}.npz"
    with np.load(path) as weights:
        model.load_state_dict({name: x.astype("float32") for name, x in weights.items()})
    return model


def box(ax: Axes, x: float, y: float, text: str, color: str = "gray", size: float = 10) -> None:
    """A rounded box around `text`, its middle at (x, y)."""
    outline = {"boxstyle": "round,pad=0.4", "facecolor": "none", "edgecolor": color, "linewidth": 1.5}
    ax.text(x, y, text, ha="center", va="center", size=size, bbox=outline)


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = "gray", bend: float = 0.0
) -> None:
    """An arrow from `start` to `end`, bent to its side by `bend` times its length."""
    line = {"arrowstyle": "->", "color": color, "linewidth": 1.5, "connectionstyle": f"arc3,rad={bend}"}
    ax.annotate("", end, start, arrowprops=line)


def _svg(draw: Callable[[Figure], object], theme: str, width: float, height: float) -> str:
    """The figure in the colours of a theme, as the address of an image that needs no file."""
    text, grid = THEMES[theme]
    colours = dict.fromkeys(
        ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], text
    )
    style = {
        **colours,
        "grid.color": grid,
        "axes.prop_cycle": cycler(color=COLORS),
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "font.size": 11,
        "svg.hashsalt": "minitransformer",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
