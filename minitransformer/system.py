"""The machine: its cores, the threads of its matrix products, whether it can fork, and its memory."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.util import find_spec
from typing import Any

from minitransformer.backend import Array, on_gpu


def cores() -> set[int]:
    """The processor cores that this process may use, as the system numbers them."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def n_cores() -> int:
    """How many processor cores this process may use."""
    return len(cores())


# what is said where `can_fork` is false and several processes were asked for
ONE_PROCESS = "in one process only; for more, on Linux: pip install threadpoolctl"


def can_fork(x: Array = None) -> bool:
    """Whether this process can fork workers that compute with arrays like `x` at the same time.

    That takes arrays on the CPU, Linux (macOS's own matrix product does not survive a fork) and the package
    threadpoolctl, without which the matrix product of each process would use all cores. A worker of a
    multiprocessing.Pool must not fork.
    """
    here = sys.platform == "linux" and not multiprocessing.current_process().daemon
    return here and not on_gpu(x) and can_limit_blas()


def can_limit_blas() -> bool:
    """Whether `blas_threads` has an effect: whether the package threadpoolctl is installed."""
    return find_spec("threadpoolctl") is not None


def blas_threads(n: int) -> AbstractContextManager[Any]:
    """A context in which a matrix product runs on `n` threads, if the package threadpoolctl is installed."""
    return _blas().limit(limits=n, user_api="blas") if can_limit_blas() else nullcontext()


@functools.cache
def _blas() -> Any:
    """The libraries whose threads can be limited; looking for them takes some milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def single_blas_thread() -> AbstractContextManager[None]:
    """A context in which a matrix product runs on one thread, if the package threadpoolctl is installed."""
    return blas_threads(1)


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next temporary array of that size.

    By default glibc returns every large array to the system and faults it in again, page by page, at the next
    operation; a training step allocates the same sizes over and over. Does nothing without glibc.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 16 << 20)  # larger ones are returned, or else they leave large holes
        libc.mallopt(m_arena_max, 1)  # what one thread frees, another may use
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 << 20)
    except (OSError, AttributeError):
        pass


def end_with_parent() -> None:
    """On Linux, have this process killed as soon as the thread that started it has ended, even by SIGKILL."""
    pr_set_pdeathsig = 1
    with suppress(OSError, AttributeError, TypeError):  # not on macOS, not on Windows
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def peak_memory_mb(forks: Sequence[int] = ()) -> float | None:
    """Peak memory of this process, in MB (10^6 bytes), plus the memory that its forks do not share with it.

    `forks` are process ids. None where the system does not report it.
    """
    own = _own_peak_mb()
    if own is None:
        return None
    try:
        return own + sum(map(_private_memory_mb, forks))
    except OSError:  # kernels before 4.14, and some sandboxes, do not report it
        return None


def _own_peak_mb() -> float | None:
    """The peak memory of this process alone."""
    with suppress(OSError, StopIteration), open("/proc/self/status") as lines:  # Linux
        # not ru_maxrss, which begins there with the memory of the process that started this one
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def memory_mb() -> float | None:
    """Memory that this process may use, in MB (10^6 bytes): the machine's, or its control group's if that is less.

    None where the system does not say.
    """
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError), open(limit) as file:  # ValueError: "max"
            sizes.append(int(file.read()))
    return min(sizes) / 1e6


def _private_memory_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as lines:  # forks are made on Linux only
        kilobytes = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return sum(kilobytes) * 1024 / 1e6
