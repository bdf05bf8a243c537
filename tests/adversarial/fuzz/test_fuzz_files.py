"""Strangers in a run folder, streams that are closed or broken, and what launchers of jobs leave in the environment.

Whatever reads a run folder works, or refuses in a line. What is not the package's, in the folder and behind the links
in it, is as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from hostile import REFUSED, TALLY, attempt
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import changed_json, command, damaged, quiet, run_files

import minitransformer as mt
from minitransformer.parallel.job import LAUNCHERS, place_in_job
from minitransformer.runs.run_folder import CHECKPOINT
from minitransformer.runs.weights import average_checkpoints

few = settings(max_examples=max(4, settings.default.max_examples // 2))  # of what is slow
fewer = settings(max_examples=max(3, settings.default.max_examples // 4))
OURS = {"config.json", "subwords.model", "metrics.jsonl", "best.npz", "average.npz", "result.json", "lock",
        "training.png", "attention.png", "explain.html"}  # fmt: skip
NEAR = ["checkpoint-old.npz", "checkpoint-00000002-mine.npz", "checkpoint-2.npz", "CHECKPOINT-00000002.npz", "Best.npz",
        "checkpoint-0000000٢.npz", "checkpoint-00000002.npz.bak", "checkpoint-00000002.npz\n", "best.npz.bak", "best",
        "config.json~", "config.json.1.tmp.old", "my.tmp", "notes.99999999999.tmp", "x.tmp", ".tmp", "metrics.jsonl.1",
        "result.json.orig", "notes.2017.tmp", "checkpoint-.npz", "checkpoint-00000002.npy", "lock.1", "-"]  # fmt: skip
ALSO_OURS = ["checkpoint-00000001.npz", "checkpoint-00000009.npz", "checkpoint-000000003.npz",
             "checkpoint-99999999.npz"]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(NEAR),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..")
    ),
)
KINDS = ["file", "file", "file of ours", "folder", "full folder", "link", "link to a folder", "dangling link",
         "loop", "pipe"]  # fmt: skip


def is_ours(name: str) -> bool:
    return name in OURS or bool(CHECKPOINT.fullmatch(name))


def put(draw: Any, path: Path, outside: Path) -> None:
    """Something in place of `path`, whatever is there."""
    kind = draw(st.sampled_from(KINDS))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    if kind == "file":
        path.write_bytes(draw(st.binary(max_size=60)))
    elif kind == "file of ours":
        path.write_bytes(run_files()[draw(st.sampled_from([*run_files()]))])
    elif "folder" in kind and "link" not in kind:
        path.mkdir()
        if kind == "full folder":
            (path / "inside").write_bytes(b"inside")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {"link": "file", "link to a folder": "folder", "dangling link": "nothing", "loop": path}
        path.symlink_to(outside / targets[kind])


def seen(path: Path) -> Any:
    """What a name stands for, without following it."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return mode, os.readlink(path)
    if stat.S_ISDIR(mode):
        return mode, {inner.name: seen(inner) for inner in path.iterdir()}
    return mode, path.read_bytes() if stat.S_ISREG(mode) else None


USES = {
    "RunFolder.settings": lambda run: run.settings(),
    "load_model": lambda run: [mt.load_model(run, weights=weights) for weights in ("last",)],
    "load_model, best": lambda run: mt.load_model(run, weights="best"),
    "load_model, average": lambda run: mt.load_model(run, weights="average"),
    "RunFolder.metrics": lambda run: run.metrics(),
    "RunFolder.exists": lambda run: run.exists(),
    "average_checkpoints": lambda run: average_checkpoints(run, 1),
    "Trainer.resume": lambda run: resumed(run),
    "evaluate": ["evaluate", "run"],
    "evaluate best": ["evaluate", "run", "--weights", "best", "--json"],
    "decode": ["decode", "run", "3 4"],
    "decode average": ["decode", "run", "--weights", "average", "3 4"],
    "average": ["average", "run", "--last", "1"],
    "plot": ["plot", "run"],
    "explain": ["explain", "run", "--input", "3 4"],
    "train --resume": ["train", "sort", "--out", "run", "--resume"],
    "train": ["train", "sort", "--out", "run", "--set", "steps=1"],
}


def resumed(run: mt.RunFolder) -> Any:
    trainer = mt.Trainer(run.settings(), run)
    trainer.resume()
    return trainer.run(quiet())


@contextlib.contextmanager
def strange_folder(draw: Any, changes: dict[str, bytes]) -> Any:
    """The current folder has a finished run in `run`, some of its files changed, with strangers among them."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as name:
        run, outside = Path(name, "run"), Path(name, "outside")
        run.mkdir(), outside.mkdir(), (outside / "folder").mkdir()
        (outside / "file").write_bytes(b"not yours")
        for file, content in {**run_files(), **changes}.items():
            (run / file).write_bytes(content)
        for stranger in draw(st.lists(NAMES, max_size=3, unique=True)):
            if not is_ours(stranger) and not (run / stranger).exists():
                put(draw, run / stranger, outside)
        for ours in draw(st.lists(st.sampled_from([*sorted(OURS), *ALSO_OURS]), max_size=1)):
            put(draw, run / ours, outside)
        os.chdir(name)
        try:
            yield Path("run"), Path("outside")
        finally:
            os.chdir(before)


def use_all(draw: Any, run: Path, outside: Path) -> None:
    """Some uses of the run, one after the other: what is not the package's stays as it is."""
    strangers = {path.name: seen(path) for path in run.iterdir() if not is_ours(path.name)}
    others = seen(outside)
    for use in draw(st.lists(st.sampled_from([*USES]), min_size=1, max_size=3)):
        how = USES[use]
        if isinstance(how, list):
            command(f"{use}, strange folder", *how)
        else:
            attempt(f"{use}, strange folder", lambda how=how: how(mt.RunFolder(run)), (OSError,))
        now = {path.name: seen(path) for path in run.iterdir() if not is_ours(path.name)}
        assert now == strangers, use
        assert seen(outside) == others, use


@few
@given(st.data())
def test_strangers_in_a_run_folder(data):
    with strange_folder(data.draw, {}) as (run, outside):
        use_all(data.draw, run, outside)


@few
@given(st.data(), st.sampled_from(["config.json", "metrics.jsonl", "best.npz", "checkpoint-00000002.npz"]))
def test_damage_and_strangers_in_a_run_folder(data, name):
    content = run_files()[name]
    if name.startswith(("config", "metrics")) and data.draw(st.booleans()):
        lines = [changed_json(data.draw, json.loads(text)) for text in json_texts(name, content)]
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    else:
        content = damaged(data.draw, content)
    with strange_folder(data.draw, {name: content}) as (run, outside):
        use_all(data.draw, run, outside)


def json_texts(name: str, content: bytes) -> list[bytes]:
    return [content] if name == "config.json" else content.splitlines()


# --- streams --------------------------------------------------------------------------------------------

INPUTS = ["", "<&-", "</dev/null", "<<< $'3 4\\xff\\n'", "<<< '3 4'"]
OUTPUTS = ["", ">&-", ">/dev/full", "| head -c 1", "| true", ">/dev/null", "| cat >/dev/null"]
ERRORS = ["", "2>&-", "2>/dev/full", "2>&1"]
ENCODINGS = ["utf-8", "ascii", "latin-1", "utf-16", "cp1252:replace", "ascii:surrogateescape", "no-such-one"]
COMMANDS = [["decode", "run", "3 4"], ["decode", "run", "ü"], ["evaluate", "run"], ["evaluate", "run", "--json"],
            ["translate", "run"], ["average", "run", "--last", "1"], ["plot", "run", "--json"], ["explain", "run"],
            ["--help"],
            ["decode", "nowhere", "3"], ["exercises", "list"], ["gradcheck", "ReLU"], ["--version"]]  # fmt: skip


@fewer
@given(*map(st.sampled_from, (COMMANDS, INPUTS, OUTPUTS, ERRORS, ENCODINGS)), st.booleans())
def test_commands_whose_streams_are_closed_or_broken(arguments, stdin, stdout, stderr, encoding, utf8):
    variables = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": str(int(utf8)), "LC_ALL": "C"}
    if encoding == "no-such-one":  # Python itself does not start with it
        del variables["PYTHONIOENCODING"]
    with tempfile.TemporaryDirectory() as path:
        Path(path, "run").mkdir()
        for name, content in run_files().items():
            Path(path, "run", name).write_bytes(content)
        script = f'"$@" {stdin} {stderr} {stdout}; exit ${{PIPESTATUS[0]}}'
        words = ["bash", "-c", script, "bash", sys.executable, "-m", "minitransformer", *arguments]
        done = subprocess.run(
            words, cwd=path, env={**os.environ, **variables}, capture_output=True, timeout=120
        )
    # in UTF-16 each letter has a NUL beside it
    said = (done.stdout + done.stderr).replace(b"\0", b"")
    TALLY["commands with odd streams"][f"status {done.returncode}"] += 1
    assert b"Traceback" not in said and b"Exception ignored" not in said, said
    assert done.returncode in (0, 2), said
    if done.returncode == 2 and stderr == "":
        line = done.stderr.replace(b"\0", b"").removeprefix(b"\xff\xfe")
        assert line.count(b"\n") == 1 and line.startswith(b"minitransformer: error: "), said


# --- places in a job ------------------------------------------------------------------------------------

VARIABLES = [*sum(LAUNCHERS, ()), "PMI_LOCAL_RANK", "MPI_LOCALNRANKS", "SLURM_PROCID", "SLURM_NTASKS", "PALS_RANKID",
             "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "FLUX_TASK_RANK", "JSM_NAMESPACE_RANK", "RANK", "WORLD_SIZE",
             "LOCAL_RANK", "PMIX_SIZE", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_RANK"]  # fmt: skip
NUMBER = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "3", "4", "00", "+1", "-1", " 1", "1 ", "1.0", "1e3", "0x2", "", "²", "٣", "one"]
    ),
    st.sampled_from(["9" * 5000, "9" * 30, str(2**31), str(2**64), "1_0", "nan", "None", "true"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6),
)
ENVIRONMENT = st.one_of(
    st.dictionaries(st.sampled_from(VARIABLES), NUMBER, max_size=6),
    st.sampled_from(LAUNCHERS).flatmap(lambda pair: st.fixed_dictionaries(dict.fromkeys(pair, NUMBER))),
    st.sampled_from(LAUNCHERS).flatmap(
        lambda pair: st.fixed_dictionaries(dict.fromkeys(pair, st.integers(0, 4).map(str)))
    ),
)


@given(ENVIRONMENT)
def test_the_place_in_a_job_of_any_launcher(variables):
    others = {name: x for name, x in os.environ.items() if name not in VARIABLES}
    with mock.patch.dict(os.environ, {**others, **variables}, clear=True):
        place = attempt("place_in_job", place_in_job)
    if place is not REFUSED:
        rank, n = place
        assert 0 <= rank < n
        claimed = [(variables[a], variables[b]) for a, b in LAUNCHERS if a in variables and b in variables]
        assert n == 1 or any((int(a), int(b)) == place for a, b in claimed if a.isdigit() and b.isdigit())


@fewer
@given(ENVIRONMENT)
def test_a_command_in_the_environment_of_any_launcher(variables):
    """What MPI does not know of is no job, and silences nobody. (MPI itself may end a process, and says why.)"""
    others = {name: x for name, x in os.environ.items() if name not in VARIABLES}
    words = [sys.executable, "-m", "minitransformer", "decode", "nowhere", "3"]
    variables = {name: x.replace("9" * 5000, "9" * 4400) for name, x in variables.items()}
    done = subprocess.run(words, env={**others, **variables}, capture_output=True, text=True, timeout=120)
    TALLY["a command under any launcher"][f"status {done.returncode}"] += 1
    assert "Traceback" not in done.stderr, done.stderr
    ended_by_mpi = "MPI" in done.stderr and "minitransformer: error" not in done.stderr
    assert ended_by_mpi or (done.returncode == 2 and done.stderr.count("\n") == 1), done.stderr
