"""The command line as a whole: help, and one clear line for whatever no command can use."""

import io
import json
import subprocess
import sys

import pytest
from command_line import TINY, assert_refused, call, contents

import minitransformer as mt

pytestmark = pytest.mark.usefixtures("signal_handlers")


def test_help_and_version(capsys):
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("train", "evaluate", "decode", "plot", "explain"))
    for command in ("train", "evaluate", "decode", "plot", "explain"):
        assert call(command, "--help") == 0
        assert "--json" in capsys.readouterr().out
    assert call("train", "--help") == 0
    out = capsys.readouterr().out
    assert all(
        name in out for name in (*mt.TransformerConfig.__annotations__, *mt.TrainingConfig.__annotations__)
    )
    assert call("--version") == 0
    assert mt.__version__ in capsys.readouterr().out


def test_the_module_is_the_command(trained):
    command = [sys.executable, "-m", "minitransformer", "decode", str(trained), "3 1 2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input"] == "3 1 2"
    done = subprocess.run([*command[:-2], "77"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


# --- bad input ------------------------------------------------------------------------------------------


class CUBLASError(RuntimeError):
    """CuPy's, and its other errors of CUDA, are RuntimeErrors, too."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 TiB"),
        CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"),
        CUBLASError("CUBLAS_STATUS_NOT_INITIALIZED"),
        RuntimeError("cudaErrorMemoryAllocation: out of memory"),
        RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ],
)
def test_no_memory_left_is_one_line(capsys, tmp_path, monkeypatch, error):
    monkeypatch.setattr(mt.Trainer, "run", raising(error))
    arguments = ["train", "copy", "--out", tmp_path / "run", "--set", *TINY]
    assert_refused(capsys, tmp_path, arguments, "not enough memory", "smaller")


def test_a_fault_of_the_program_is_no_lack_of_memory(tmp_path, monkeypatch):
    error = RuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
    monkeypatch.setattr(mt.Trainer, "run", raising(error))
    with pytest.raises(RuntimeError, match="IllegalAddress"):
        call("train", "copy", "--out", tmp_path / "run", "--set", *TINY)


def raising(error):
    def run(*arguments):
        raise error

    return run


COMMANDS = {
    "train": lambda run: ["train", "copy", "--resume", "--out", run],
    "evaluate": lambda run: ["evaluate", run],
    "decode": lambda run: ["decode", run, "3 1"],
    "plot": lambda run: ["plot", run],
    "explain": lambda run: ["explain", run],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("path", ["nowhere", "a-file", "empty"])
def test_a_run_that_is_not_there_is_refused(capsys, tmp_path, command, path):
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "empty").mkdir()
    assert_refused(capsys, tmp_path, COMMANDS[command](tmp_path / path), path)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "truncated checkpoint": lambda run: truncate(run / "checkpoint-00000012.npz"),
    "flipped checkpoint": lambda run: flip(run / "checkpoint-00000012.npz"),
    "empty checkpoint": lambda run: (run / "checkpoint-00000012.npz").write_bytes(b""),
    "text checkpoint": lambda run: (run / "checkpoint-00000012.npz").write_text("weights"),
    "half config": lambda run: truncate(run / "config.json"),
    "other config": lambda run: (run / "config.json").write_text('{"task": "copy"}'),
    "list config": lambda run: (run / "config.json").write_text("[]"),
    "long name": lambda run: (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"d_ff"', f'"{"d" * 300_000}"')
    ),
    "long task": lambda run: (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"copy"', f'"{"copy" * 80_000}"')
    ),
    "other model": lambda run: (run / "config.json").write_text(
        (run / "config.json").read_text().replace('"d_ff": 12', '"d_ff": 13')
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_run_is_refused(capsys, run, tmp_path, command, damage):
    before = contents(run)
    DAMAGE[damage](run)
    assert contents(run) != before
    assert_refused(capsys, tmp_path, COMMANDS[command](run))


@pytest.mark.parametrize("command", ["evaluate", "decode", "plot", "explain"])
def test_a_run_without_a_checkpoint_is_refused(capsys, run, tmp_path, command):
    for path in run.glob("checkpoint-*.npz"):
        path.unlink()
    assert_refused(capsys, tmp_path, COMMANDS[command](run), "checkpoint")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["tran"],
        ["train"],
        ["train", "copy", "--seed", "one"],
        ["train", "copy", "--sed", "1"],
        ["decode", "run"],
        ["evaluate", "run", "extra"],
        ["train", "copy", "--seed", "7" * 300_000 + "x"],
        ["train", "copy", "--set", "x" * 300_000],
        ["train", "x" * 300_000],
    ],
    ids=lambda arguments: " ".join(arguments)[:40] or "nothing",
)
def test_arguments_that_do_not_parse_are_refused_in_one_line(capsys, tmp_path, arguments):
    assert_refused(capsys, tmp_path, arguments)


@pytest.mark.parametrize("weights", ["best", "average"])
@pytest.mark.parametrize("command", ["evaluate", "decode", "translate", "plot", "explain"])
def test_every_command_uses_the_weights_that_it_is_told_to(run, monkeypatch, command, weights):
    if command == "plot":
        pytest.importorskip("matplotlib")
    assert call("average", run) == 0
    loaded, load = [], mt.RunFolder.load
    monkeypatch.setattr(mt.RunFolder, "load", lambda self, *which: loaded.append(which) or load(self, *which))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"3 1\n")))
    assert call(command, run, *["3 1"] * (command == "decode"), "--weights", weights) == 0
    assert loaded == [(weights,)]
