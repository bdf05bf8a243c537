"""Ctrl-C and SIGTERM during training: the run stops after the current step, and saves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop before its end; its checkpoint is saved."""


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A context in which a first Ctrl-C or SIGTERM asks for a stop after the current step; a second one stops at once.

    Yields a function that says whether a stop was asked for.
    """
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
