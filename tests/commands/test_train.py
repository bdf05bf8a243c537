"""`minitransformer train`: what it prints and writes, its settings, its folders, and what it refuses."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from command_line import TINY, assert_refused, call, contents, the_object

import minitransformer as mt

pytestmark = pytest.mark.usefixtures("signal_handlers")

# --- what the commands do -------------------------------------------------------------------------------


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
        "lock",
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


# --- settings -------------------------------------------------------------------------------------------


def test_settings_come_from_the_task_then_the_file_then_the_command_line(capsys, tmp_path):
    pairs = dict(pair.split("=") for pair in TINY)
    file = tmp_path / "settings.json"
    numbers = {name: None if value == "none" else json.loads(value) for name, value in pairs.items()}
    file.write_text(json.dumps({**numbers, "d_ff": 14, "clip_norm": None}))
    out = tmp_path / "run"
    more = ["--set", "d_ff=16", "n_heads=4", "d_k=4", "--set", "tie_embeddings=False", 'dropout_on=["relu"]']
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
        (["copy", "--set", "d_model=33", "n_heads=3"], ["d_k", "multiple of 4", "11"]),
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
        (
            ["copy", "--config", "a-pipe"],
            ["a-pipe", "a pipe"],
        ),  # nobody writes to it: reading would never end
        (["copy", "--config", "/dev/zero"], ["/dev/zero", "a device"]),
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
    os.mkfifo(tmp_path / "a-pipe")
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
