"""What the scripts here share: a process for each side, figures of its times, a table on the screen and in a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TORCH = find_spec("torch") is not None


class Worker:
    """A process that does one thing, again and again, when asked to.

    `what` names a class, "module.Class": an object of it is made there from the arguments, and called. `launcher`:
    the beginning of a command that starts several such processes, of which the first is asked.
    """

    def __init__(self, what: str, launcher: tuple[str, ...] = (), **arguments: Any) -> None:
        self.process = subprocess.Popen(
            [*launcher, sys.executable, str(HERE / "worker.py"), what, json.dumps(arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.what = what
        self.seconds: list[float] = []

    def take(self, times: int, record: bool = True) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(times, file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:  # it has said why on standard error, or the system ended it for its memory
            raise SystemExit(f"{self.what}: the process ended, status {self.process.wait()}")
        answer = json.loads(line)
        self.seconds += answer["seconds"] if record else []
        self.result, self.memory_mb = answer["result"], answer["memory_mb"]

    def close(self) -> dict[str, Any]:
        """End the process; its figures."""
        self.process.communicate()
        return {**middle(self.seconds), "memory_mb": self.memory_mb, "result": self.result}


def middle(seconds: list[float]) -> dict[str, float]:
    """The median and the middle half, in ms."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"ms": 1e3 * median, "ms_low": 1e3 * low, "ms_high": 1e3 * high}


def spread(figures: dict[str, Any]) -> str:
    """The middle half, for a table."""
    return f"({figures['ms_low']:.1f} … {figures['ms_high']:.1f})"


def take_turns(workers: dict[Any, Worker], rounds: int, times: int = 3, warm_up: int = 2) -> dict[Any, Any]:
    """The figures of each worker: they take turns, so that what else the machine does hits all of them."""
    for worker in workers.values():
        worker.take(warm_up, record=False)
    for round in range(rounds):
        for worker in list(workers.values())[:: 1 if round % 2 == 0 else -1]:
            worker.take(times)
    return {name: worker.close() for name, worker in workers.items()}


def parser(description: str | None) -> argparse.ArgumentParser:
    """With what all scripts understand."""
    own = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return own


def processor() -> str:
    """The processor's name and the widest of its instruction sets for vectors."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    about = {name.strip(): value.strip() for name, value in found.items()}
    flags = about.get("flags", "").split()
    sets = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
    widest = next((name for flag, name in sets.items() if flag in flags), "")
    return f"{about.get('model name', platform.machine())} {widest}".strip()


def blas_kernels() -> str | None:
    """For which processors the loaded BLAS has its kernels; None without threadpoolctl, which knows."""
    if find_spec("threadpoolctl") is None:
        return None
    import numpy  # noqa: F401  loads the BLAS
    from threadpoolctl import threadpool_info

    found = {pool["architecture"] for pool in threadpool_info() if pool.get("architecture")}
    return ", ".join(sorted(found)) or None


class Table:
    """Rows on the screen as they come, and in the JSON file, if there is one."""

    def __init__(self, columns: str, titles: list[str], path: Path | None) -> None:
        self.columns, self.path = columns, path
        self.machine = {
            "processor": processor(),
            "cores": os.cpu_count(),
            "BLAS kernels": blas_kernels(),
            "python": sys.version.split()[0],
            "numpy": version("numpy"),
            "torch": version("torch") if TORCH else None,
        }
        self.rows: list[dict[str, Any]] = []
        print(", ".join(f"{name} {what}" for name, what in self.machine.items() if what))
        print(columns.format(*titles).rstrip(), flush=True)

    def row(self, figures: dict[str, Any], cells: list[Any]) -> None:
        print(self.columns.format(*cells).rstrip(), flush=True)
        self.rows.append(figures)
        if self.path:
            self.path.write_text(json.dumps({"machine": self.machine, "rows": self.rows}, indent=1))
