"""The dropout masks in a model's cache."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitransformer.layers.dropout import DropoutCache


def masks_drawn(cache: Any, path: str = "") -> dict[str, np.ndarray]:
    """Path -> dropout mask, of all the masks in a cache."""
    if isinstance(cache, DropoutCache):
        return {} if cache.kept is None else {path: cache.kept}
    if isinstance(cache, list):
        children = {str(i): child for i, child in enumerate(cache)}
    else:
        children = cache._asdict() if hasattr(cache, "_asdict") else {}
    found: dict[str, np.ndarray] = {}
    for name, child in children.items():
        found |= masks_drawn(child, f"{path}.{name}" if path else name)
    return found
