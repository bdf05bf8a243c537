"""The errors that this package raises for input that it cannot use.

All are ValueErrors, and the message says what was expected, what came, and what to do.
The command line prints that message on one line and exits with status 2.
"""

from typing import Any


class MinitransformerError(ValueError):
    """Base class of all errors of this package. The message is one line, whatever names of files it quotes."""

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class InputError(MinitransformerError):
    """An array, a sequence or a text that a layer, model or task cannot use."""


class ConfigError(MinitransformerError):
    """An unknown, missing or impossible setting."""


class CheckpointError(MinitransformerError):
    """A run folder or checkpoint that is missing, damaged, or belongs to something else."""


def describe(x: Any) -> str:
    """`x` on one short line, for an error message: dtype and shape of an array, the value of anything else."""
    shape = getattr(x, "shape", ())
    if isinstance(shape, tuple) and shape and hasattr(x, "dtype"):
        return f"{x.dtype} of shape {shape}"
    text = " ".join(repr(x).split())
    return text if len(text) <= 100 else text[:99] + "…"
