"""Ctrl-C, SIGTERM and a terminal that closes, during training: the run stops after the current step, and saves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from minitransformer.parallel.processes import SIGNALS
from minitransformer.streams import say


class Interrupted(Exception):
    """The run was asked to stop before its end; its checkpoint is saved."""


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """A context in which a first signal asks for a stop after the current step; a second one ends the process at once.

    Signals that are ignored stay so, as SIGHUP under nohup. Yields a function that says whether a stop was asked for.
    """
    stop = threading.Event()
    before: dict[int, Any] = {}

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            os._exit(128 + number)  # and the workers end with it
        stop.set()
        with suppress(RuntimeError):  # another line is being written just now
            say("stopping after this step, to save; a second signal ends at once, without saving")

    if threading.current_thread() is threading.main_thread():
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
