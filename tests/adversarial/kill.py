"""A training that is killed again and again ends as one that nobody disturbed, bit for bit.

    python tests/adversarial/kill.py copy --kills 100            # or reverse, or text; one process
    python tests/adversarial/kill.py copy --kills 25 --ranks 2   # two MPI ranks: mpiexec or a rank is killed

SIGKILL comes at random moments (imports, steps, saves, the last evaluation); after each the run is resumed. Compared
are the names of the files, all checkpoints (weights and Adam's moments), `best.npz`, and, without times and memory,
`metrics.jsonl` and `result.json`. No process may be left after a kill, no temporary file at the end. Exit status 1,
and what differs first, if something does. (For Linux.)
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "helpers"), str(TESTS / "fixtures")]
from mpi_jobs import LAUNCHERS, MPIEXEC  # noqa: E402
from write_runs import FILES, write_text_files  # noqa: E402

from minitransformer.runs.checkpoint import load_checkpoint  # noqa: E402

MARK = "MINITRANSFORMER_KILL"  # an environment variable by which the processes of a run are found
TIMES = {"seconds", "tokens_per_s", "peak_memory_mb"}
SMALL = "n_layers=1 d_model=16 n_heads=2 d_ff=24 dropout=0.1 batch_tokens=120 learning_rate=0.01"
OFTEN = "log_every=7 evaluate_every=25 warmup_steps=40 solved_at=none keep_checkpoints=3 processes=1"
PAIRS = "n_symbols=6 min_length=1 max_length=8 longest=0 max_len=10 epoch_size=300 test_size=15 steps=4000"
TEXT = " ".join(f"{name}={file}" for name, file in FILES.items()) + " max_len=40 vocab_size=40 steps=1500"


def start(task: str, folder: Path, n_ranks: int) -> subprocess.Popen:
    """Begin the training in `folder`, or go on with it. What it says goes to a file beside the folder."""
    settings = f"{SMALL} {OFTEN} {TEXT if task == 'text' else PAIRS}".split()
    how = ["--resume"] if (folder / "config.json").exists() else ["--set", *settings]
    job = [str(MPIEXEC), "-n", str(n_ranks)] if n_ranks > 1 else []
    command = [*job, sys.executable, "-m", "minitransformer", "train", task, "--out", str(folder), *how]
    environment = {name: x for name, x in os.environ.items() if name not in sum(LAUNCHERS, ())}
    environment |= {"OPENBLAS_NUM_THREADS": "1", MARK: str(folder), "PYTHONPATH": str(TESTS.parent)}
    with open(f"{folder}.log", "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def alive(folder: Path) -> list[int]:
    """The numbers of the run's processes that have not ended."""
    found = subprocess.run(["ps", "axeww", "-o", "pid,args"], capture_output=True, check=True).stdout
    return [
        int(line.split()[0]) for line in found.splitlines() if f"{MARK}={folder} ".encode() in line + b" "
    ]


def wait(process: subprocess.Popen, folder: Path, seconds: float, save: float | None) -> str:
    """Wait for the seconds, then, if `save` is a number, for a file that is being written, and so long; at what."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.001)
    while save is not None and process.poll() is None:
        for path in folder.glob("*.tmp"):
            time.sleep(save)
            return f"writing {path.name.split('.')[0].split('-')[0]}"
    return "training" if os.path.getsize(f"{folder}.log") else "starting"


def state(folder: Path) -> dict[str, Any]:
    """All that must not depend on the kills."""
    found: dict[str, Any] = {"names": sorted(os.listdir(folder))}
    lines = [(folder / "result.json").read_text(), *(folder / "metrics.jsonl").read_text().splitlines()]
    for path in sorted(folder.glob("*.npz")):
        arrays, meta = load_checkpoint(path)
        found |= {f"{path.name}, {name}": (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()}
        lines.append(json.dumps(meta))
    timeless = json.JSONDecoder(object_hook=lambda x: {k: v for k, v in x.items() if k not in TIMES})
    return found | {f"record {i}": timeless.decode(line.strip()) for i, line in enumerate(lines)}


def compare(task: str, n_kills: int, n_ranks: int, calm: Path, run: Path) -> str:
    """Train twice, once with kills; what came of it. Ends the program with status 1 if they differ."""

    def require(fine: bool, text: str, folder: Path = run) -> None:
        if not fine:
            sys.exit(
                f"FAILED: {text}\nsee {folder}; its last words: {Path(f'{folder}.log').read_text()[-999:]}"
            )

    began, hits, process = time.monotonic(), Counter[str](), start(task, calm, n_ranks)
    while process.poll() is None and not (calm / "lock").exists():
        time.sleep(0.001)
    start_up = time.monotonic() - began
    require(process.wait() == 0, "undisturbed, the training has failed", calm)
    whole, last = time.monotonic() - began, max(calm.glob("checkpoint-*")).name
    print(f"undisturbed: {whole:.1f} s, {start_up:.1f} s of them to start", flush=True)
    while (n := hits.total()) < n_kills:
        process = start(task, run, n_ranks)
        done = max((path.name for path in run.glob("checkpoint-*.npz")), default="checkpoint-0")
        ahead = int(done[11:19]) / int(last[11:19]) > 1.2 * n / n_kills  # the last sixth is for the end
        seconds = random.uniform(0, 1.5 * start_up if ahead else start_up + 5 * whole / n_kills)
        at = wait(process, run, seconds, random.choice([None, 0, random.uniform(0, 0.003)]))
        if process.poll() is None and (targets := [process.pid] if n_ranks == 1 else alive(run)):
            os.kill(random.choice(targets), SIGKILL)
            hits[at + ", at the end" * (run / last).exists()] += 1
            process.wait()
        require(hits.total() > n or process.wait() == 0, f"after {n} kills, a training has failed")
        deadline = time.monotonic() + 20
        while left := alive(run):
            require(time.monotonic() < deadline, f"20 s after a kill there are still processes: {left}")
        if n < hits.total() and n % 10 == 9:
            print(f"{n + 1} kills, {time.monotonic() - began:.0f} s", flush=True)
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
    given, root = parser.parse_args(), Path(tempfile.mkdtemp())
    os.chdir(root)
    write_text_files()
    print(compare(given.task, given.kills, given.ranks, root / "calm", root / "run"))
    shutil.rmtree(root)
