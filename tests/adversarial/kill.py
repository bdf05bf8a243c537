"""A training that is killed again and again ends as one that nobody disturbed, bit for bit.

    python tests/adversarial/kill.py copy --kills 100            # or reverse, or text; one process
    python tests/adversarial/kill.py copy --kills 25 --ranks 2   # two MPI ranks: mpiexec or a rank is killed

SIGKILL comes at random moments (imports, steps, saves, the last evaluation); after each the run is resumed. Compared
are the names of the files, all checkpoints (weights and Adam's moments), `best.npz`, and, without times and memory,
`metrics.jsonl` and `result.json`. No process may be left after a kill, no temporary file at the end. Exit status 1,
and what differs first, if something does. (For Linux.)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "fixtures")]

from mpi_jobs import LAUNCHERS, MPIEXEC  # noqa: E402
from write_runs import FILES, write_text_files  # noqa: E402

from minitransformer.runs.checkpoint import load_checkpoint  # noqa: E402

MARK = "MINITRANSFORMER_KILL"  # an environment variable by which the processes of a run are found
TIMES = {"seconds", "tokens_per_s", "peak_memory_mb"}
SETTINGS = (
    "n_layers=1 d_model=16 n_heads=2 d_ff=24 dropout=0.1 batch_tokens=120 learning_rate=0.01 warmup_steps=40 \
log_every=7 evaluate_every=25 solved_at=none keep_checkpoints=3 processes=1 "
)
SEQUENCES = (
    "n_symbols=6 min_length=1 max_length=8 longest=0 max_len=10 epoch_size=300 test_size=15 steps=4000"
)
TEXT = " ".join(f"{name}={file}" for name, file in FILES.items()) + " max_len=40 vocab_size=40 steps=1500"


def start(task: str, folder: Path, n_ranks: int) -> subprocess.Popen:
    """Begin the training in `folder`, or go on with it. What it says goes to a file beside the folder."""
    settings = (SETTINGS + (TEXT if task == "text" else SEQUENCES)).split()
    how = ["--resume"] if (folder / "config.json").exists() else ["--set", *settings]
    job = [str(MPIEXEC), "-n", str(n_ranks)] if n_ranks > 1 else []
    command = [*job, sys.executable, "-m", "minitransformer", "train", task, "--out", str(folder), *how]
    environment = {name: x for name, x in os.environ.items() if name not in sum(LAUNCHERS, ())}
    environment |= {"OPENBLAS_NUM_THREADS": "1", MARK: str(folder), "PYTHONPATH": str(TESTS.parent)}
    with open(f"{folder}.log", "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def alive(folder: Path) -> list[int]:
    """The numbers of the run's processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found += [int(path.name)] * (f"{MARK}={folder}\0".encode() in (path / "environ").read_bytes())
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait(process: subprocess.Popen, folder: Path, seconds: float, save: float | None) -> str:
    """Wait for the seconds, then, if `save` is a number, for a file that is being written, and so long; at what."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    while save is not None and process.poll() is None:
        for path in folder.glob("*.tmp"):
            time.sleep(save)
            return f"writing {path.name.split('.')[0].split('-')[0]}"
    return "in training" if os.path.getsize(f"{folder}.log") else "starting"


def state(folder: Path) -> dict[str, Any]:
    """All that must not depend on the kills."""
    found: dict[str, Any] = {"names": sorted(os.listdir(folder))}
    for path in sorted(folder.glob("*.npz")):
        arrays, meta = load_checkpoint(path)
        found |= {f"{path.name}, {name}": (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}
        found[f"{path.name}, meta"] = timeless(meta)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found |= {f"metrics.jsonl, line {i}": timeless(json.loads(line)) for i, line in enumerate(lines, 1)}
    return found | {"result.json": timeless(json.loads((folder / "result.json").read_text()))}


def timeless(x: Any) -> Any:
    return {k: timeless(v) for k, v in x.items() if k not in TIMES} if isinstance(x, dict) else x


def compare(task: str, n_kills: int, n_ranks: int, root: Path) -> str:
    """Train twice, once with kills; what came of it. Ends the program with status 1 if they differ."""
    calm, run, began, hits = root / "calm", root / "run", time.monotonic(), Counter[str]()

    def require(fine: bool, text: str, folder: Path = run) -> None:
        if not fine:
            sys.exit(
                f"FAILED: {text}\nsee {folder}; its last words: {Path(f'{folder}.log').read_text()[-999:]}"
            )

    require(start(task, calm, n_ranks).wait() == 0, "undisturbed, the training has failed", calm)
    whole, last = time.monotonic() - began, max(calm.glob("checkpoint-*")).name
    print(f"undisturbed: {whole:.1f} s", flush=True)
    while (n := hits.total()) < n_kills:
        process = start(task, run, n_ranks)
        longest = random.choice([0.5, 0.5 + 5 * whole / n_kills])  # so that some kills are left for the end
        save = random.choice([None, 0, random.uniform(0, 0.003)])
        at = wait(process, run, random.uniform(0, longest), save) + ", at the end" * (run / last).exists()
        if process.poll() is None and (targets := alive(run)):
            os.kill(random.choice(targets), signal.SIGKILL)
            hits[at] += 1
            process.wait()
        require(hits.total() > n or process.wait() == 0, f"after {n} kills, a training has failed")
        deadline = time.monotonic() + 20
        while left := alive(run):
            require(time.monotonic() < deadline, f"20 s after a kill there are still the processes {left}")
        if hits.total() > n and hits.total() % 10 == 0:
            print(f"{hits.total()} kills, {time.monotonic() - began:.0f} s", flush=True)
    require(start(task, run, n_ranks).wait() == 0, "the last training has failed")
    expected, found = state(calm), state(run)
    for name in [*expected, *found]:
        a, b = expected.get(name), found.get(name)
        require(a == b, f"{name}: undisturbed {a!r:.300}, after {n_kills} kills {b!r:.300}")
    where = ", ".join(f"{n} {at}" for at, n in sorted(hits.items()))
    return f"{task}, {n_ranks} rank(s): {len(expected)} things are equal after {n_kills} kills ({where})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["copy", "reverse", "text"])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--ranks", type=int, default=1)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    os.chdir(root)
    write_text_files()
    print(compare(arguments.task, arguments.kills, arguments.ranks, root))
    shutil.rmtree(root)
