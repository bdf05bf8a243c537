"""Worker processes, which run the methods of an object at the same time as this process does.

Each is a fork: it starts with all that this process has, and shares the arrays that `shared_zeros` made. Threads would
need none of this, but Python runs only one of them at a time, and switches between them at every NumPy operation:
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
from minitransformer.system import end_with_parent

# These may be sent to all processes, as by a terminal, but only the first one obeys. (Windows has no SIGHUP.)
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Processes:
    """This process and n - 1 workers, forked from it, which run the methods of `target`, each on its own share."""

    def __init__(self, target: Any, n: int) -> None:
        self.target = target
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        context: Any = multiprocessing.get_context("fork")
        for i in range(1, n):
            our_end, their_end = context.Pipe()
            self._pipes.append(our_end)
            process = context.Process(target=self._serve, args=(i, their_end), daemon=True)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a worker starts with them blocked
            try:
                with warnings.catch_warnings():  # about threads; the matrix product's threads survive a fork
                    warnings.simplefilter("ignore", DeprecationWarning)
                    process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            their_end.close()
            self._processes.append(process)
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [process.pid for process in self._processes]

    def each(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """[target.method(i, *arguments[i]) for each i], the first in this process, the others in the workers.

        An exception in one of them is raised here, after all have finished.
        """
        try:
            for pipe, mine in zip(self._pipes, arguments[1:], strict=True):
                pipe.send((method, mine))
            answers = [_attempt(self.target, method, 0, arguments[0])]
            answers += [pipe.recv() for pipe in self._pipes]
        except (EOFError, OSError):
            raise MinitransformerError("a worker process has died: too little memory?") from None
        for done, answer in answers:
            if not done:
                raise answer
        return [answer for _, answer in answers]

    def close(self) -> None:
        """End the workers."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=1)
            process.kill()  # in case it still computes an answer that is no longer needed
            process.join()
        atexit.unregister(self.close)

    def _serve(self, i: int, pipe: Connection) -> None:
        """Run in worker i: answer requests until the other end of the pipe is closed."""
        end_with_parent()  # or else a worker whose first process was killed would finish its share
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # signals that came before this are ignored too
        # copies of the first process's ends of the pipes, which would keep them open when it is gone
        for our_end in self._pipes:
            our_end.close()
        while True:
            try:
                method, arguments = pipe.recv()
                pipe.send(_attempt(self.target, method, i, arguments))
            except (EOFError, OSError):
                os._exit(0)  # without cleanup, which is the first process's business


def _attempt(target: Any, method: str, i: int, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """(True, the method's answer), or (False, the exception that it raised)."""
    try:
        return True, getattr(target, method)(i, *arguments)
    except Exception as error:
        return False, error
