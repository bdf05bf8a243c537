"""Processes that do what this one asks, at the same time.

Each is a fork: it begins with all that this process has, and shares the arrays that `shared_zeros` made. Threads would
need none of this, but Python runs only one of them at a time, and hands over between them at every NumPy operation:
with arrays of some 10,000 numbers they mostly wait for each other.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from minitransformer.errors import MinitransformerError

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # sent to all processes of a terminal, but the first one decides


class Processes:
    """n - 1 forks of this process. What is asked of `target` is done by all n, each for its own share."""

    def __init__(self, target: Any, n: int) -> None:
        self.target = target
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        context: Any = multiprocessing.get_context("fork")
        for i in range(1, n):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            process = context.Process(target=self._serve, args=(i, theirs), daemon=True)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a fork begins with them blocked
            try:
                with warnings.catch_warnings():  # of threads: the matrix product's, which know about forks
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
            self._processes.append(process)
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """The process ids of the forks."""
        return [process.pid for process in self._processes]

    def each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """[target.method(i, *arguments[i]) for each i], the first in this process, the others in their forks.

        An exception in one of them is raised here, when all have ended.
        """
        try:
            for pipe, mine in zip(self._pipes, arguments[1:], strict=True):
                pipe.send((method, mine))
            answers = [_attempt(self.target, method, 0, arguments[0])]
            answers += [pipe.recv() for pipe in self._pipes]
        except (EOFError, OSError):
            raise MinitransformerError("a process that helped has ended: too little memory?") from None
        for done, answer in answers:
            if not done:
                raise answer
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the forks."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=1)
            process.kill()  # one that is still at work, for an answer that nobody waits for any more
            process.join()
        atexit.unregister(self.close)

    def _serve(self, i: int, pipe: Connection) -> None:
        """The life of fork i: until the other end of the pipe is closed."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # what came before is ignored, too
        for (
            ours
        ) in self._pipes:  # copies of the first process's ends, which would keep them open when it is gone
            ours.close()
        while True:
            try:
                method, arguments = pipe.recv()
                pipe.send(_attempt(self.target, method, i, arguments))
            except (EOFError, OSError):
                os._exit(0)  # nothing of this copy is to be cleaned up


def _attempt(target: Any, method: str, i: int, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether the method came to its end, and its answer, or the exception."""
    try:
        return True, getattr(target, method)(i, *arguments)
    except Exception as error:
        return False, error
