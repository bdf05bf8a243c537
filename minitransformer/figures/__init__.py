"""Pictures of what a model does. Needs matplotlib (the `app` extra)."""

from minitransformer.figures.attention import attention_figure
from minitransformer.figures.training import training_figure

__all__ = ["attention_figure", "training_figure"]
