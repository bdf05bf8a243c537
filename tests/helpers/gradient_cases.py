"""The package's gradient cases (minitransformer/checks) by class, as tests that check every Module want them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minitransformer import checks
from minitransformer.module import Module

Case = Callable[[np.random.Generator], tuple[Module, tuple[Any, ...]]]
CASES: dict[type[Module], list[Case]] = {}
for cases in checks.CASES.values():
    for case in cases:
        layer, _ = case(checks.Sizes(), np.random.default_rng(0))
        CASES.setdefault(type(layer), []).append(partial(case, checks.Sizes()))
