"""Ctrl-C and SIGTERM during a training: it stops after the step it is at, and saves."""

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
    """A block in which Ctrl-C and SIGTERM ask for a stop after the step, and its evaluation; a second stops at once.

    Yields the function that says whether a stop was asked for.
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
