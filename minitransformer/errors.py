"""What this package raises when it is given something it cannot use.

All are ValueErrors; the message says what was expected, what came, and what to do.
The command line prints that message on one line and exits with status 2.
"""

from typing import Any


class MinitransformerError(ValueError):
    """Base of every error below, for code that wants to catch them all."""


class InputError(MinitransformerError):
    """An array, a sequence or a text that a layer, model or task cannot take."""


class ConfigError(MinitransformerError):
    """An unknown, missing or impossible setting."""


class CheckpointError(MinitransformerError):
    """A run folder or checkpoint that is missing, damaged, or belongs to something else."""


def describe(x: Any) -> str:
    """What came, on one short line: the dtype and shape of an array, the value of anything else."""
    if getattr(x, "shape", ()) and hasattr(x, "dtype"):
        return f"{x.dtype} of shape {tuple(x.shape)}"
    text = " ".join(repr(x).split())
    return text if len(text) <= 100 else text[:99] + "…"
