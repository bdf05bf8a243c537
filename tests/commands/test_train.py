"""`minitransformer train`: what it prints and writes, its settings, its folders, and what it refuses."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import PROGRAM, TINY, TINY_CHARS, assert_refused, call, contents, the_object

import minitransformer as mt
from minitransformer.commands import common, train
from minitransformer.commands.common import quoted

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


@pytest.mark.parametrize(
    "name", ["a;b(1)&c", "it's", "two  words", "a*b?", "x>y", "#1", "a'$b", 'say "a"', "~me", "é"]
)
def test_a_folder_can_be_pasted_into_a_shell(name):
    printed = subprocess.run(["sh", "-c", f"printf %s {quoted(name)}"], capture_output=True, text=True)
    assert (printed.returncode, printed.stdout) == (0, name)


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


def test_runs_that_are_begun_at_once_have_folders_of_their_own(tmp_path):
    command = [*PROGRAM, "train", "copy", "--json", "--set", *TINY]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) for _ in range(3)]
    folders = {json.loads(process.communicate(timeout=60)[0])["run"] for process in started}
    assert folders == {os.path.join("runs", name) for name in ("copy", "copy-2", "copy-3")}


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


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("learning_rate", ".01", 0.01),
        ("learning_rate", "1_0e-3", 0.01),
        ("learning_rate", "+1E-2", 0.01),
        ("steps", "1.2e1", 12),
        ("steps", "1_2", 12),
        ("steps", "012", 12),
        ("keep_checkpoints", "2.", 2),
        ("patience", "1e1", 10),
    ],
)
def test_a_number_is_what_python_takes_for_one(capsys, tmp_path, name, text, value):
    assert call("train", "copy", "--json", "--out", tmp_path / "run", "--set", *TINY, f"{name}={text}") == 0
    found = getattr(mt.RunFolder(tmp_path / "run").settings().training, name)
    assert (found, type(found)) == (value, type(value))


def test_a_whole_number_may_have_an_exponent_in_a_file_too(capsys, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text('{"epoch_size": 4e1}')
    assert call("train", "copy", "--json", "--out", tmp_path / "run", "--set", *TINY, "--config", file) == 0
    assert mt.RunFolder(tmp_path / "run").settings().task.epoch_size == 30  # --set comes last
    assert (
        call("train", "copy", "--json", "--out", tmp_path / "b", "--config", file, "--set", *TINY[:-5]) == 0
    )
    assert mt.RunFolder(tmp_path / "b").settings().task.epoch_size == 40


# --- --out and --resume ---------------------------------------------------------------------------------


def test_the_folder_of_another_run_is_refused_and_the_run_intact(capsys, run, tmp_path):
    arguments = ["train", "copy", "--out", run, "--set", *TINY]
    assert_refused(capsys, tmp_path, arguments, "already holds a run", "--resume", "--out")


@pytest.mark.parametrize("schedule", ["noam", "cosine"])
def test_a_run_is_trained_longer(capsys, tmp_path, schedule):
    """With the paper's schedule as if it had been meant to be so long; a cosine has a new end."""
    settings = [*TINY, f"schedule={schedule}"]
    for name, steps in (("short", 12), ("long", 20)):
        more = ["--seed", 5, "--set", *settings, f"steps={steps}"]
        assert call("train", "copy", "--json", "--out", tmp_path / name, *more) == 0
    capsys.readouterr()
    longer = ["train", "copy", "--out", tmp_path / "short", "--resume", "--set"]
    assert call(*longer, "steps=2e1", "log_every=2") == 0
    said = capsys.readouterr().err.splitlines()[0]
    short, long = (mt.RunFolder(tmp_path / name) for name in ("short", "long"))
    assert short.settings().training.log_every == 2
    assert [folder.load()[1]["step"] for folder in (short, long)] == [20, 20]
    weights, expected = (folder.load()[0] for folder in (short, long))
    same = all((weights[name] == x).all() for name, x in expected.items())
    assert same == (schedule == "noam")
    assert short.metrics()[-1]["lr"] == long.metrics()[-1]["lr"]  # both follow the curve of 20 steps
    assert said.startswith("20 steps instead of 12")
    assert ("cosine that ends at 0.0e+00" in said) == (schedule == "cosine")
    # it is resumed as it is now
    assert call("train", "copy", "--out", tmp_path / "short", "--resume") == 0
    assert "ended, at step 20; --resume --set steps=N" in capsys.readouterr().err


def test_a_run_that_ended_early_needs_another_reason_to_end(capsys, tmp_path):
    path = tmp_path / "run"
    assert call("train", "copy", "--json", "--out", path, "--set", *TINY, "solved_at=0") == 0
    assert the_object(capsys)["steps"] == 6
    go_on = ["train", "copy", "--json", "--out", path, "--resume", "--set"]
    assert_refused(capsys, tmp_path, [*go_on, "steps=20"], "ended early", "step 6", "solved_at=0")
    assert call(*go_on, "solved_at=none") == 0
    assert the_object(capsys)["steps"] == 12


def test_steps_that_have_been_done_are_not_undone(capsys, run, tmp_path):
    arguments = ["train", "copy", "--out", run, "--resume", "--set", "steps=9"]
    assert_refused(capsys, tmp_path, arguments, "12 or more", "done already", "9")


def test_a_step_that_is_divided_anew_is_said(capsys, tmp_path):
    """Each part of a step draws its own dropout, so the weights are others from there on."""
    out = tmp_path / "run"
    assert call("train", "copy", "--json", "--out", out, "--set", *TINY, "processes=2") == 0
    capsys.readouterr()
    longer = ["train", "copy", "--out", out, "--resume", "--set", "steps=14"]
    assert call(*longer, "processes=2") == 0
    assert "processes" not in capsys.readouterr().err
    assert call(*longer[:-1], "steps=16", "processes=1") == 0
    assert "processes=1 instead of 2: from here on" in capsys.readouterr().err


def test_a_run_that_was_stopped_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def stopped(*given):
        raise mt.runs.Interrupted

    out = tmp_path / "my run"
    with monkeypatch.context() as patch:
        patch.setattr(mt.Trainer, "_train", stopped)
        assert call("train", "copy", "--out", out, "--set", *TINY) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("Stopped and saved.")
    words = shlex.split(line.partition("Continue with:")[2])
    assert call(*words[words.index("train") :]) == 0
    assert mt.RunFolder(out).metrics()[-1]["step"] == 12


@pytest.mark.parametrize("task", ["", "/copy", "coppy"])
def test_resume_of_no_task_is_refused(capsys, tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, ["train", task, "--resume"], "task", "copy")


def test_a_folder_that_cannot_be_made_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")  # a disk that is not there
    for more in ([], ["--out", "runs/x"]):
        assert_refused(
            capsys, tmp_path, ["train", "copy", *more, "--set", *TINY], "cannot make the run folder"
        )


def test_a_file_with_the_name_of_the_tasks_vocabulary_is_not_overwritten(capsys, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "characters.txt").write_text("my notes")
    arguments = ["train", "chars", "--out", tmp_path / "run", "--set", *TINY_CHARS]
    assert_refused(capsys, tmp_path, arguments, "characters.txt is there already")


def test_an_empty_name_is_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, tmp_path, ["train", "copy", "--out", "", "--set", *TINY], "--out")


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


@pytest.mark.parametrize(
    "more",
    [
        ["--set", "learning_rate=1"],
        ["--set", "d_ff=20"],
        ["--set", "n_symbols=9"],
        ["--seed", "1"],
        ["--config", "x.json"],
        ["--init", "run"],
    ],
)
def test_resume_with_other_settings_is_refused(capsys, run, tmp_path, more):
    assert_refused(capsys, tmp_path, ["train", "copy", "--out", run, "--resume", *more], "--resume", more[0])


# --- --init ---------------------------------------------------------------------------------------------

TRAINING = [pair for pair in TINY if pair.split("=")[0] not in ("n_layers", "d_model", "d_ff", "n_symbols")]


def test_a_run_begins_with_the_weights_and_settings_of_another(capsys, run, tmp_path):
    out = tmp_path / "new"
    arguments = ["train", "copy", "--json", "--out", out, "--init", run]
    assert call(*arguments, "--set", *TRAINING, "steps=5", "dropout=.2", "keep_checkpoints=9") == 0
    settings = mt.RunFolder(out).settings()
    assert (settings.model.d_ff, settings.task.n_symbols, settings.model.dropout) == (12, 6, 0.2)
    assert settings.init == str(run)
    (begun, _), (other, _) = (
        mt.RunFolder(out).read(out / "checkpoint-00000000.npz"),
        mt.RunFolder(run).load(),
    )
    weights = [name for name in begun if name.startswith("model.")]
    assert weights and all((begun[name] == other[name]).all() for name in weights)
    assert not begun["adam.m"].any()
    # what was killed before its first evaluation goes on from there, even if the other run has gone
    whole = mt.RunFolder(out).load()[0]
    (out / "checkpoint-00000005.npz").unlink()
    shutil.rmtree(run)
    assert call("train", "copy", "--json", "--out", out, "--resume") == 0
    assert all((x == whole[name]).all() for name, x in mt.RunFolder(out).load()[0].items())
    # and what was killed before these weights were saved does not begin with random ones
    for path in out.glob("checkpoint-*.npz"):
        path.unlink()
    assert_refused(capsys, tmp_path, ["train", "copy", "--out", out, "--resume"], str(run), "begin anew")


def test_a_run_that_was_killed_before_it_had_the_weights_of_another_takes_them_when_resumed(run, tmp_path):
    for name in ("whole", "killed"):
        arguments = ["train", "copy", "--json", "--out", tmp_path / name, "--init", run]
        assert call(*arguments, "--set", *TRAINING, "steps=5") == 0
    whole, killed = (mt.RunFolder(tmp_path / name) for name in ("whole", "killed"))
    for path in [*killed.checkpoints(), killed.path / "best.npz", killed.path / "metrics.jsonl"]:
        path.unlink()
    assert call("train", "copy", "--json", "--out", killed.path, "--resume") == 0
    assert all((x == whole.load()[0][name]).all() for name, x in killed.load()[0].items())


def test_positions_that_are_not_learned_may_differ(run, tmp_path):
    more = [pair for pair in TRAINING if not pair.startswith(("max_len", "steps", "warmup"))]
    changes = ["steps=1", "warmup_steps=1", "max_len=20", "random_start=2", "random_gaps=3"]
    out = tmp_path / "new"
    assert call("train", "copy", "--json", "--out", out, "--init", run, "--set", *more, *changes) == 0
    model = mt.RunFolder(out).settings().model
    assert (model.max_len, model.random_start, model.random_gaps) == (20, 2, 3)


def test_learned_positions_are_taken_over_with_as_many_rows(capsys, tmp_path):
    settings = [pair for pair in TINY if not pair.startswith("max_len")]
    learned = ["--set", *settings, "positions=learned", "max_len=16"]
    assert call("train", "copy", "--json", "--out", tmp_path / "run", *learned) == 0
    arguments = [
        "train",
        "copy",
        "--out",
        tmp_path / "new",
        "--init",
        tmp_path / "run",
        "--set",
        "max_len=20",
    ]
    assert_refused(capsys, tmp_path, arguments, "max_len", "16", "20")


@pytest.mark.parametrize(
    ("task", "change", "parts"),
    [
        ("copy", "d_ff=16", ["d_ff", "12", "16"]),
        ("copy", "n_heads=1", ["n_heads", "2", "1"]),
        ("copy", "norm=pre", ["norm", "post", "pre"]),
        ("copy", "n_symbols=7", ["vocabulary", "9 symbols", "10"]),
        ("copy", "first_symbol=2", ["vocabulary", "'1'", "'2'"]),
        ("sort", "n_symbols=6", ["vocabulary", "'1'", "'0'"]),
    ],
)
def test_weights_that_would_mean_something_else_are_refused(capsys, run, tmp_path, task, change, parts):
    arguments = ["train", task, "--out", tmp_path / "new", "--init", run, "--set", *TRAINING, change]
    assert_refused(capsys, tmp_path, arguments, str(run), *parts)


def test_the_weights_of_no_run_are_refused(capsys, tmp_path):
    arguments = ["train", "copy", "--out", tmp_path / "new", "--init", tmp_path / "nowhere"]
    assert_refused(capsys, tmp_path, arguments, "nowhere", "config.json")


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
        (["copy", "--set", "processes=1025"], ["processes", "1,024", "1025"]),
        (["copy", "--set", "accumulate=1e9"], ["accumulate", "65,536", "1000000000"]),
        (["copy", "--set", "n_layers=1001"], ["n_layers", "1,000", "1001"]),
        (["copy", "--set", "n_symbols=1048575"], ["n_symbols", "1,048,572", "1048575"]),
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
        (["copy", "--config", "utf-16"], ["utf-16: expected UTF-8, got UTF-16; save it as UTF-8"]),
        (["chars", "--set", "text=utf-16"], ["utf-16: expected UTF-8, got UTF-16; save it as UTF-8"]),
        (["chars", "--set", "text=nul"], ["nul: a NUL in it, as UTF-16 has; save it as UTF-8"]),
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
    (tmp_path / "utf-16").write_text("{}", "utf-16")
    (tmp_path / "nul").write_text("a text " * 100, "utf-16-le")
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
    command = [*PROGRAM, "train", "copy", "--json", "--out", str(tmp_path / "run")]
    more = ["--set", *TINY, "learning_rate=1e30", "clip_norm=none"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "learning_rate" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_resume_goes_on_with_a_run_of_its_own_that_was_saved_last(tmp_path, monkeypatch):
    """Not with a copy that somebody made, whatever the time of its files, nor with another task's run."""
    monkeypatch.chdir(tmp_path)
    for name in ("copy", "copy-2", "copy-backup", "copy-like-sort"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    for name, second in (("copy/config.json", 5), ("copy-2/config.json", 6)):
        os.utime(tmp_path / "runs" / name, (second, second))
    assert train._default_folder("copy", resume=True) == Path("runs/copy-2")
    saved = tmp_path / "runs" / "copy" / "checkpoint-00000010.npz"
    saved.write_bytes(b"")
    assert train._default_folder("copy", resume=True) == Path("runs/copy")


def test_a_folder_is_never_an_option_of_the_command_that_is_printed():
    assert [common.folder_word(Path(name)) for name in ("-r", "r", "a b")] == ["./-r", "r", '"a b"']


@pytest.mark.parametrize("value", ["relu,attention", '["relu", "attention"]'])
def test_a_setting_may_be_a_list(tmp_path, value):
    out = tmp_path / "run"
    assert call("train", "copy", "--json", "--out", out, "--set", *TINY, f"dropout_on={value}") == 0
    assert mt.RunFolder(out).settings().model.dropout_on == ("relu", "attention")


def test_a_run_that_lost_patience_goes_on_without(capsys, tmp_path):
    arguments = ["train", "copy", "--json", "--out", tmp_path / "run"]
    changes = [*TINY, "evaluate_every=3", "patience=1", "learning_rate=1e-20"]
    assert call(*arguments, "--set", *changes) == 0
    assert the_object(capsys)["steps"] == 6
    assert call(*arguments, "--resume", "--set", "patience=none") == 0
    assert the_object(capsys)["steps"] == 12


def test_five_checkpoints_are_averaged_if_there_are_so_many(capsys, tmp_path):
    changes = [*TINY, "evaluate_every=2", "keep_checkpoints=9"]
    assert call("train", "copy", "--json", "--out", tmp_path / "run", "--set", *changes) == 0
    capsys.readouterr()
    assert call("average", tmp_path / "run", "--json") == 0
    assert the_object(capsys)["steps"] == [4, 6, 8, 10, 12]
