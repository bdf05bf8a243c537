"""Pictures of what a model does. Needs matplotlib (the `app` extra)."""

from minitransformer.figures.attention import KINDS, attention_figure
from minitransformer.figures.canvas import save
from minitransformer.figures.training import training_figure

__all__ = ["KINDS", "attention_figure", "save", "training_figure"]
