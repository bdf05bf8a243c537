"""The command line: what it prints, what it writes, and one clear line for whatever it cannot use."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

import minitransformer as mt
from minitransformer.cli import main

TINY = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=16 steps=12 batch_tokens=60 warmup_steps=4 learning_rate=0.01 log_every=3
evaluate_every=6 solved_at=none epoch_size=30 test_size=5 n_symbols=6 min_length=2 max_length=5
""".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def _signal_handlers():
    """`train` installs its own; put back what was there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run. Not to be written to: see `run`."""
    path = tmp_path_factory.mktemp("trained") / "run"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert main(["train", "copy", "--json", "--out", str(path), "--seed", "5", "--set", *TINY]) == 0
    for number, handler in handlers.items():
        signal.signal(number, handler)
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run, to damage at will."""
    return shutil.copytree(trained, tmp_path / "run")


def contents(path):
    """Every file below `path` with its bytes, and every folder."""
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else "folder" for p in path.rglob("*")}


def call(*arguments):
    """Exit status; what argparse does by SystemExit counts too."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def assert_refused(capsys, tmp_path, arguments, *parts):
    """Status 2, one line that holds `parts`, nothing on standard output, nothing changed on disk."""
    before = contents(tmp_path)
    capsys.readouterr()
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert contents(tmp_path) == before


# --- what the commands do -------------------------------------------------------------------------------


def the_object(capsys):
    """Standard output, which must be exactly one JSON object on one line."""
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert isinstance(answer, dict)
    return answer


def test_train_json_is_the_result(capsys, tmp_path):
    assert call("train", "sort", "--json", "--out", tmp_path / "run", "--seed", 4, "--set", *TINY) == 0
    answer = the_object(capsys)
    assert answer.pop("run") == str(tmp_path / "run")
    assert answer == json.loads((tmp_path / "run" / "result.json").read_text())
    assert (answer["task"], answer["seed"], answer["steps"]) == ("sort", 4, 12)
    assert answer["sets"]["test"]["n"] == 5
    settings = mt.RunFolder(tmp_path / "run").settings()
    assert (settings.model.d_ff, settings.training.solved_at, settings.task.n_symbols) == (12, None, 6)
    files = {
        "config.json",
        "metrics.jsonl",
        "result.json",
        "checkpoint-00000006.npz",
        "checkpoint-00000012.npz",
        "best.npz",
    }
    assert set(contents(tmp_path / "run")) == files


def test_train_json_writes_nothing_else(capsys, tmp_path):
    assert call("train", "copy", "--json", "--out", tmp_path / "run", "--set", *TINY) == 0
    assert capsys.readouterr().err == ""


def test_train_says_what_it_does_and_where(capsys, tmp_path):
    assert call("train", "copy", "--out", tmp_path / "run", "--set", *TINY) == 0
    out, err = capsys.readouterr()
    assert "exact match" in out and str(tmp_path / "run") in out and "12 steps" in out
    assert "step 12/12" in err and "loss" in err
    n_parameters = json.loads((tmp_path / "run" / "result.json").read_text())["n_parameters"]
    assert f"{n_parameters:,} parameters" in err


@pytest.mark.parametrize(
    ("called", "suggested"),
    [("bin/minitransformer", ["bin/minitransformer"]),
     ("site-packages/minitransformer/__main__.py", ["python", "-m", "minitransformer"])],
)  # fmt: skip
def test_the_command_that_train_suggests_works(capsys, monkeypatch, tmp_path, called, suggested):
    monkeypatch.setattr(sys, "argv", [called])
    assert call("train", "copy", "--out", tmp_path / "run", "--set", *TINY) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("try:"))
    words = shlex.split(line.removeprefix("try:"))
    assert words[: len(suggested)] == suggested  # the command as it was called
    assert call(*words[len(suggested) :]) == 0


def test_evaluate_measures_the_checkpoint_again(capsys, run):
    before = contents(run)
    assert call("evaluate", run, "--json") == 0
    answer = the_object(capsys)
    valid = mt.RunFolder(run).metrics()[-1]["valid"]
    sets = {"valid": valid, **json.loads((run / "result.json").read_text())["sets"]}
    assert answer == {"run": str(run), "sets": sets}
    assert call("evaluate", run) == 0
    out, err = capsys.readouterr()
    assert f"{answer['sets']['test']['exact_match']:.2%}" in out and err == ""
    assert contents(run) == before


def test_decode_translates(capsys, run):
    model = mt.load_model(mt.RunFolder(run))
    vocabulary = mt.RunFolder(run).settings().task.vocabulary
    expected = vocabulary.decode(mt.translate(model, [vocabulary.encode("3 1 4")])[0])
    assert call("decode", run, "3 1 4", "--json") == 0
    assert the_object(capsys) == {"input": "3 1 4", "output": expected}
    assert call("decode", run, "3 1 4") == 0
    assert capsys.readouterr().out == expected + "\n"


def test_plot_draws_into_the_run(capsys, run):
    pytest.importorskip("matplotlib")
    assert call("plot", run, "--json") == 0
    answer = the_object(capsys)
    assert answer
    for path in answer.values():
        with open(path, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert {os.path.dirname(path) for path in answer.values()} == {str(run)}
    assert call("plot", run, "--input", "1 2 3") == 0
    assert capsys.readouterr().out.splitlines() == list(answer.values())


def test_help_and_version(capsys):
    assert call("--help") == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("train", "evaluate", "decode", "plot"))
    for command in ("train", "evaluate", "decode", "plot"):
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


# --- settings -------------------------------------------------------------------------------------------


def test_settings_come_from_the_task_then_the_file_then_the_command_line(capsys, tmp_path):
    pairs = dict(pair.split("=") for pair in TINY)
    file = tmp_path / "settings.json"
    numbers = {name: None if value == "none" else json.loads(value) for name, value in pairs.items()}
    file.write_text(json.dumps({**numbers, "d_ff": 14, "clip_norm": None}))
    out = tmp_path / "run"
    more = ["--set", "d_ff=16", "n_heads=4", "--set", "tie_embeddings=False", 'dropout_on=["relu"]']
    assert call("train", "copy", "--json", "--config", file, "--out", out, *more) == 0
    settings = mt.RunFolder(out).settings()
    assert (settings.model.d_ff, settings.model.n_heads, settings.model.d_model) == (16, 4, 8)
    assert settings.model.tie_embeddings is False
    assert settings.model.dropout_on == ("relu",)
    assert settings.training.clip_norm is None
    assert settings.training.schedule == mt.tasks.Copy.training["schedule"] != mt.TrainingConfig().schedule
    assert settings.task.first_symbol == 1  # of the task
    assert settings.task.n_symbols == 6
    assert settings.seed == 0


@pytest.mark.parametrize("value", ["relu", "relu,attention", '["relu", "attention"]'])
def test_a_list_may_be_written_with_commas(capsys, tmp_path, value):
    out = tmp_path / "run"
    assert call("train", "copy", "--json", "--out", out, "--set", *TINY, f"dropout_on={value}") == 0
    assert mt.RunFolder(out).settings().model.dropout_on[0] == "relu"


def test_the_default_folder_is_a_free_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("copy", "copy-2", "copy-3"):
        assert call("train", "copy", "--json", "--set", *TINY) == 0
        assert the_object(capsys)["run"] == os.path.join("runs", name)
    before = (tmp_path / "runs" / "copy" / "config.json").stat().st_mtime_ns
    assert call("train", "copy", "--json", "--resume") == 0
    assert the_object(capsys)["run"] == os.path.join("runs", "copy-3")
    assert (tmp_path / "runs" / "copy" / "config.json").stat().st_mtime_ns == before


def test_the_run_that_was_begun_last_is_resumed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert call("train", "copy", "--json", "--set", *TINY) == 0
    for name in ("copy", "copy-3"):
        shutil.rmtree(tmp_path / "runs" / name)
    capsys.readouterr()
    assert call("train", "copy", "--json", "--resume") == 0
    assert the_object(capsys)["run"] == os.path.join("runs", "copy-2")
    assert call("train", "copy", "--json", "--set", *TINY) == 0
    assert call("train", "copy", "--json", "--resume") == 0
    assert [json.loads(line)["run"] for line in capsys.readouterr().out.splitlines()] == [
        os.path.join("runs", "copy")
    ] * 2


# --- --out and --resume ---------------------------------------------------------------------------------


def test_the_folder_of_another_run_is_refused_and_the_run_intact(capsys, run, tmp_path):
    arguments = ["train", "copy", "--out", run, "--set", *TINY]
    assert_refused(capsys, tmp_path, arguments, "already holds a run", "--resume", "--out")


def test_a_finished_run_may_be_resumed(capsys, run):
    before = contents(run)
    assert call("train", "copy", "--out", run, "--resume", "--json") == 0
    answer = the_object(capsys)
    assert answer["steps"] == 12
    assert answer["sets"] == json.loads(before["result.json"])["sets"]
    after = contents(run)
    assert {**after, "result.json": None} == {**before, "result.json": None}


def test_resume_without_a_run_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, ["train", "copy", "--resume"], "copy", "config.json")
    assert_refused(capsys, tmp_path, ["train", "copy", "--resume", "--out", tmp_path / "x"], "config.json")


def test_resume_of_another_task_is_refused(capsys, run, tmp_path):
    assert_refused(capsys, tmp_path, ["train", "sort", "--out", run, "--resume"], "'copy'", "'sort'")


@pytest.mark.parametrize("more", [["--set", "steps=20"], ["--seed", "1"], ["--config", "x.json"]])
def test_resume_with_other_settings_is_refused(capsys, run, tmp_path, more):
    assert_refused(capsys, tmp_path, ["train", "copy", "--out", run, "--resume", *more], "--resume", more[0])


# --- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["revers"], ["'revers'", "'reverse'"]),
        (["copy", "--set", "d_modle=8"], ["'d_modle'", "'d_model'"]),
        (["copy", "--set", "n_symbol=8"], ["'n_symbol'", "'n_symbols'"]),
        (["copy", "--set", "warmup=8"], ["'warmup'", "'warmup_steps'"]),
        (["copy", "--set", "name=x"], ["'name'"]),
        (["copy", "--set", "preset=big"], ["'preset'"]),
        (["copy", "--set", "steps"], ["KEY=VALUE", "'steps'"]),
        (["copy", "--set", "=3"], ["''"]),
        (["copy", "--set", "steps=many"], ["steps", "'many'"]),
        (["copy", "--set", "steps=1.5"], ["steps", "1.5"]),
        (["copy", "--set", "steps=0"], ["steps", "0"]),
        (["copy", "--set", "steps=true"], ["steps", "True"]),
        (["copy", "--set", "d_model=33", "n_heads=3"], ["d_model", "even", "33"]),
        (["copy", "--set", "d_model=32", "n_heads=3"], ["n_heads", "32", "3"]),
        (["copy", "--set", "dropout=1"], ["dropout", "1"]),
        (["copy", "--set", "dropout=NaN"], ["dropout", "nan"]),
        (["copy", "--set", "dropout_on=relo,residual"], ["'relo'", "'relu'"]),
        (["copy", "--set", "dropout_on=none"], ["dropout_on", "None"]),
        (["copy", "--set", "dropout_on=3"], ["dropout_on", "3"]),
        (["copy", "--set", "positions=sinusoid"], ["'sinusoid'", "'sinusoidal'"]),
        (["copy", "--set", "tie_embeddings=maybe"], ["tie_embeddings", "'maybe'"]),
        (["copy", "--set", "dtype=float16"], ["dtype", "'float16'"]),
        (["copy", "--set", "learning_rate=-1"], ["learning_rate", "-1"]),
        (["copy", "--set", "learning_rate=none"], ["learning_rate"]),
        (["copy", "--set", "warmup_steps=99999"], ["warmup_steps", "99999"]),
        (["copy", "--set", "n_symbols=1"], ["n_symbols", "1"]),
        (["copy", "--set", "min_length=11"], ["min_length", "11"]),
        (["copy", "--set", "test_size=0"], ["test_size", "0"]),
        (["copy", "--set", "src_vocab_size=50"], ["src_vocab_size", "13", "50"]),
        (["copy", "--set", "src_vocab_size=5", "tgt_vocab_size=5"], ["5"]),
        (["copy", "--set", "pad_id=4"], ["pad_id", "4"]),
        (["copy", "--set", "max_len=10"], ["max_len", "10"]),  # ten symbols and the end
        (
            ["reverse", "--set", "max_len=27", "steps=1", "warmup_steps=1"],
            ["max_len", "27"],
        ),  # the test of 26 to 30
        (["copy", "--seed", "-1"], ["seed", "-1"]),
        (["copy", "--device", "gpu"], ["'gpu'", "'cpu'", "'cuda'"]),
        (["copy", "--config", "missing.json"], ["missing.json"]),
        (["copy", "--config", "text.json"], ["text.json"]),
        (["copy", "--config", "list.json"], ["list.json", "object"]),
        (["copy", "--config", "binary.json"], ["binary.json"]),
        (["copy", "--config", "unknown.json"], ["'d_modle'", "'d_model'"]),
        (["copy", "--config", "a-folder"], ["a-folder"]),
        (["copy", "--out", "text.json"], ["text.json"]),
        (["copy", "--out", "text.json/below"], ["text.json"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_train_cannot_use_is_refused(capsys, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("d_model = 8\n")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "unknown.json").write_text('{"d_modle": 8}')
    (tmp_path / "a-folder").mkdir()
    out = [] if "--out" in arguments else ["--out", tmp_path / "run"]
    quick = [] if "warmup_steps=1" in arguments else ["--set", "epoch_size=40", "steps=200"]
    order = arguments[:1] + quick + arguments[1:]  # later settings win
    assert_refused(capsys, tmp_path, ["train", *order, *out], *parts)


def test_an_unknown_setting_is_not_answered_with_names_that_cannot_be_set(capsys):
    assert call("train", "copy", "--set", "modle=3") == 2
    known = capsys.readouterr().err.rsplit("Known:", 1)[-1]
    assert not {"name", "model", "training"} & {word.strip(" ,\n") for word in known.split(",")}


def test_a_gpu_that_is_not_there_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as where it is not installed
    arguments = ["train", "copy", "--device", "cuda", "--out", tmp_path / "run"]
    assert_refused(capsys, tmp_path, arguments, "cuda", "cpu")


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


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("   ", ["empty"]),
        ("3 99 4", ["'99'"]),
        ("3,4", ["'3,4'"]),
        ("<pad> 3", ["'<pad>'"]),
        ("-1", ["-1"]),
        (" ".join(["3"] * 40), ["max_len", "16", "41"]),
    ],
)
def test_what_decode_cannot_use_is_refused(capsys, run, tmp_path, text, parts):
    assert_refused(capsys, tmp_path, ["decode", run, "--", text], *parts)


@pytest.mark.parametrize("text", ["3 99 4", " ".join(["3"] * 40)], ids=["unknown", "too long"])
def test_what_plot_cannot_use_is_refused_before_anything_is_drawn(capsys, run, tmp_path, text):
    pytest.importorskip("matplotlib")
    assert_refused(capsys, tmp_path, ["plot", run, "--input", text])


def test_an_unknown_kind_of_attention_is_refused(capsys, run, tmp_path):
    pytest.importorskip("matplotlib")
    assert_refused(capsys, tmp_path, ["plot", run, "--attention", "crosses"], "crosses", "cross")


def test_plot_without_matplotlib_says_what_to_install(capsys, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_refused(capsys, tmp_path, ["plot", run], "matplotlib", "pip install", "[app]")


def test_plot_of_a_run_without_reports_is_refused(capsys, run, tmp_path):
    pytest.importorskip("matplotlib")
    (run / "metrics.jsonl").unlink()
    assert_refused(capsys, tmp_path, ["plot", run], "metrics.jsonl")


COMMANDS = {
    "train": lambda run: ["train", "copy", "--resume", "--out", run],
    "evaluate": lambda run: ["evaluate", run],
    "decode": lambda run: ["decode", run, "3 1"],
    "plot": lambda run: ["plot", run],
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


@pytest.mark.parametrize("command", ["evaluate", "decode", "plot"])
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
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_arguments_that_do_not_parse_are_refused_in_one_line(capsys, tmp_path, arguments):
    assert_refused(capsys, tmp_path, arguments)


def test_a_run_that_diverges_ends_with_one_line(tmp_path):
    """In a process of its own, so that warnings are printed as a user would see them."""
    command = [
        sys.executable,
        "-m",
        "minitransformer",
        "train",
        "copy",
        "--json",
        "--out",
        str(tmp_path / "run"),
    ]
    more = ["--set", *TINY, "learning_rate=1e30", "clip_norm=none"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "learning_rate" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
