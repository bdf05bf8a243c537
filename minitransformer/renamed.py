"""Names from earlier versions, which still work, with a warning, as docs/stability.md promises."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def warn_renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller's caller that `old` is now called `new`."""
    warnings.warn(
        f"{old} is now {new}; the old name will be removed in the next minor version",
        DeprecationWarning,
        stacklevel,
    )


def old_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `module` that finds its former `names` in their new places: name -> "module.name"."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new_module, _, new_name = names[name].rpartition(".")
        warn_renamed(f"{module}.{name}", names[name])
        return getattr(import_module(new_module), new_name)

    return find
