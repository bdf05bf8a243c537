"""Pictures of what a model does, with matplotlib (the `app` extra), and a page of HTML, without it."""

from minitransformer.figures.attention import KINDS, attention_figure
from minitransformer.figures.canvas import save
from minitransformer.figures.explain import explain
from minitransformer.figures.page import Page
from minitransformer.figures.training import training_figure

__all__ = ["KINDS", "Page", "attention_figure", "explain", "save", "training_figure"]
