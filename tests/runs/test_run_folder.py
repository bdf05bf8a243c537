"""The folder of a run: begun once, readable for ever, and never half written."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning_runs import trained
from messages import message_of
from training_runs import new_run

import minitransformer as mt
from minitransformer.tasks import Copy, Sort

TASK = Sort(n_symbols=7, max_length=4, epoch_size=11, test_size=3)


def settings_of(**changes):
    return mt.RunSettings.of(
        TASK, {"d_model": 6, "n_heads": 2, "d_k": 4, "max_len": 9, "steps": 1500, **changes}, seed=7
    )


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        settings_of(),
        settings_of(dropout_on=("relu",), d_k=5, d_v=7, positions="learned", tie_embeddings="source_target"),
        settings_of(clip_norm=0.1 + 0.2, solved_at=None, learning_rate=1, dtype="float64", accumulate=3),
        mt.RunSettings.of(Copy(first_symbol=-3, n_symbols=4), {}, 2**40),
    ],
    ids=["plain", "model", "training", "task"],
)
def test_config_json_rebuilds_the_settings(tmp_path, settings):
    folder = mt.RunFolder(tmp_path / "a" / "b")
    assert not folder.exists()
    folder.create(settings)
    assert folder.exists()
    assert mt.RunFolder(str(tmp_path / "a" / "b")).settings() == settings
    json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert list(contents(tmp_path)) == ["a/b/config.json"]


# --- a folder is begun once -----------------------------------------------------------------------------


def test_a_second_run_in_the_folder_is_refused_and_the_first_is_intact(tmp_path):
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings_of())
    folder.log({"step": 1})
    folder.save(1, {"x": np.arange(3)}, {})
    before = contents(tmp_path)
    with pytest.raises(mt.ConfigError, match=r"already holds a run.*--resume.*--out"):
        mt.RunFolder(tmp_path / "run").create(settings_of(d_ff=12))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoint-00000500.npz", "metrics.jsonl", "result.json"])
def test_a_folder_with_the_rest_of_a_run_is_refused_too(tmp_path, name):
    """Its config.json is gone, but what is there would be mixed with the new run, or deleted by it."""
    (tmp_path / name).write_bytes(b"the only copy")
    with pytest.raises(mt.ConfigError, match=r"already holds a run; put its config.json back.*--out"):
        mt.RunFolder(tmp_path).create(settings_of())
    assert contents(tmp_path) == {name: b"the only copy"}


def test_a_folder_that_is_no_run_may_become_one(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    mt.RunFolder(tmp_path).create(settings_of())
    assert contents(tmp_path).keys() == {"notes.txt", "config.json"}
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_in_the_way_is_refused(tmp_path, path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(mt.ConfigError, match="file"):
        mt.RunFolder(tmp_path / path).create(settings_of())
    assert contents(tmp_path) == {"file": b"mine"}


# --- reading what is damaged ----------------------------------------------------------------------------


def test_a_folder_without_a_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing here"):
        with pytest.raises(mt.CheckpointError, match=r"config\.json"):
            mt.RunFolder(path).settings()
        with pytest.raises(mt.CheckpointError):
            mt.load_model(mt.RunFolder(path))
    mt.RunFolder(tmp_path).create(settings_of())
    with pytest.raises(mt.CheckpointError, match="found none"):
        mt.load_model(mt.RunFolder(tmp_path))


def damaged(**changes):
    config = {**settings_of().as_dict(), **changes}
    return json.dumps({name: value for name, value in config.items() if value is not ...})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1, 2]",
        "null",
        "7",
        '"text"',
        damaged(task=...),
        damaged(model=...),
        damaged(seed=...),
        damaged(task="sorte"),
        damaged(task=["sort"]),
        damaged(task_settings=[1]),
        damaged(model={"d_model": 6}),
        damaged(model=None),
        damaged(model={**settings_of().as_dict()["model"], "d_modle": 6}),
        damaged(training={"steps": "many"}),
        damaged(seed="seven"),
        damaged(seed=None),
        damaged(seed=-1),
    ],
)
def test_a_damaged_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(mt.MinitransformerError) as raised:
        mt.RunFolder(tmp_path).settings()
    assert "\n" not in str(raised.value)
    assert (tmp_path / "config.json").read_text() == text


def test_a_config_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(mt.CheckpointError, match=r"config\.json"):
        mt.RunFolder(tmp_path).settings()


# --- checkpoints ----------------------------------------------------------------------------------------


def test_the_last_two_checkpoints_are_kept(tmp_path):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    for step in (9, 10, 99, 100, 12345678):
        folder.save(step, {"x": np.full(3, step)}, {"step": step})
        arrays, meta = folder.load()
        assert meta == {"step": step}
        np.testing.assert_array_equal(arrays["x"], np.full(3, step))
    assert [path.name for path in folder.checkpoints()] == [
        "checkpoint-00000100.npz",
        "checkpoint-12345678.npz",
    ]


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    for step in (99_999_999, 100_000_000):  # a digit more
        folder.save(step, {"x": np.full(3, step)}, {"step": step})
    assert folder.load()[1] == {"step": 100_000_000}


def test_a_checkpoint_half_written_is_not_one(tmp_path):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    folder.save(5, {"x": np.arange(3)}, {"step": 5})
    (tmp_path / "checkpoint-00000010.npz.tmp").write_bytes(b"PK\x03\x04 half")
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-00000005.npz"]
    assert folder.load()[1] == {"step": 5}


@pytest.mark.parametrize("keep", [1, 2])
def test_nothing_is_deleted_if_the_next_checkpoint_cannot_be_written(tmp_path, keep):
    folder = mt.RunFolder(tmp_path)
    for step in (1, 2):
        folder.save(step, {"x": np.arange(3)}, {"step": step})
    folder.save_weights("average", {"x": np.arange(3)}, {})
    before = contents(tmp_path)
    with pytest.raises(mt.CheckpointError, match="numbers only"):
        folder.save(3, {"x": np.array([None])}, {}, keep)
    assert contents(tmp_path) == before
    folder.save(3, {"x": np.arange(3)}, {}, keep)
    kept = ["checkpoint-00000002.npz", "checkpoint-00000003.npz"][-keep:]
    assert sorted(contents(tmp_path)) == kept  # the average was that of earlier ones


# --- metrics --------------------------------------------------------------------------------------------


RECORDS = st.lists(
    st.fixed_dictionaries(
        {"step": st.integers(1, 99), "loss": st.floats(allow_nan=False, allow_infinity=False)}
    ),
    max_size=8,
)


@given(RECORDS, st.integers(0, 100), st.text('{}":,.0123abc', max_size=12))
def test_metrics_are_what_was_logged_up_to_a_step(tmp_path_factory, records, step, unfinished):
    folder = mt.RunFolder(tmp_path_factory.mktemp("run"))
    assert folder.metrics() == []
    for record in records:
        folder.log(record)
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write(unfinished)  # by a process that was killed
    assert folder.metrics() == records
    folder.forget_after(step)
    kept = [record for record in records if record["step"] <= step]
    assert folder.metrics() == kept
    folder.log({"step": 100})
    assert folder.metrics() == [*kept, {"step": 100}]


@pytest.mark.parametrize("line", ["not json", "[1]", "{}", '{"loss": 1.0}'])
def test_damaged_metrics_are_refused(tmp_path, line):
    folder = mt.RunFolder(tmp_path)
    folder.log({"step": 1, "loss": 2.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(line + "\n")
    folder.log({"step": 2, "loss": 1.5})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(mt.CheckpointError, match=r"metrics\.jsonl"):
        folder.forget_after(1)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_the_result_is_written_whole(tmp_path):
    folder = mt.RunFolder(tmp_path)
    result = {"exact_match": 0.1 + 0.2, "sets": {"test": {"n": 3}}}
    folder.write_result({"steps": 1})
    folder.write_result(result)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert list(contents(tmp_path)) == ["result.json"]


def test_two_processes_do_not_train_one_run(tmp_path):
    pytest.importorskip("fcntl")
    folder = mt.RunFolder(tmp_path / "run")
    settings = mt.RunSettings.of(
        TASK, {"steps": 1, "warmup_steps": 1, "d_model": 4, "n_heads": 2, "d_k": 4, "d_ff": 4, "processes": 1}
    )
    folder.create(settings)
    code = f"import minitransformer as mt; folder = mt.RunFolder({str(folder.path)!r}); folder.claim(); print('mine')"
    other = subprocess.Popen(
        [sys.executable, "-u", "-i", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "mine\n"
        trainer = mt.Trainer(settings, folder)
        trainer.resume()
        with pytest.raises(mt.ConfigError, match="another process is training this run"):
            trainer.run()
        assert not folder.metrics() and not folder.checkpoints()
    finally:
        other.kill()
        other.communicate()
    assert trainer.run()["steps"] == 1  # with the other's end, its claim has ended


def test_the_lock_does_not_fall_when_the_folder_is_read_meanwhile(tmp_path):
    """A POSIX lock ends when its process closes any descriptor of the file."""
    pytest.importorskip("fcntl")
    trainer = new_run(tmp_path / "run", steps=2, evaluate_every=1)
    found = []

    def look(*arguments):
        mt.load_model(tmp_path / "run")
        mt.RunFolder(tmp_path / "run").settings(trainer.settings.task)
        for path in (tmp_path / "run").iterdir():
            if path.name != "lock":
                path.read_bytes()
        code = f"import minitransformer as mt; mt.RunFolder({str(tmp_path / 'run')!r}).claim()"
        found.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True))
        return False

    trainer.run(stop_requested=look)
    assert len(found) == 3  # after each step, and after the final evaluation
    assert all("another process is training this run" in done.stderr for done in found)


@pytest.mark.parametrize(
    "name",
    ["checkpoint-old.npz", "checkpoint-00000020-mine.npz", "checkpoint-20.npz", "checkpoint-.npz",
     "checkpoint-00000020.npz.bak", "my-checkpoint-00000099.npz", "notes.tmp", "x.npz"],
)  # fmt: skip
def test_files_of_other_names_are_nobodys_business(tmp_path, name):
    trainer = new_run(tmp_path / "run", keep_checkpoints=1)
    (tmp_path / "run").mkdir()
    stranger = tmp_path / "run" / name
    stranger.write_bytes(b"mine")
    trainer.run()
    assert stranger.read_bytes() == b"mine"
    assert [path.name for path in trainer.folder.checkpoints()] == ["checkpoint-00000013.npz"]
    assert mt.average_checkpoints(trainer.folder, 1) == [13]


def test_a_folder_with_the_name_of_a_checkpoint_is_none_and_stays(tmp_path):
    trainer = new_run(tmp_path / "run", keep_checkpoints=1)
    (tmp_path / "run" / "checkpoint-00000001.npz").mkdir(parents=True)
    trainer.run()
    assert (tmp_path / "run" / "checkpoint-00000001.npz").is_dir()
    assert [path.name for path in trainer.folder.checkpoints()] == ["checkpoint-00000013.npz"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "best.npz"])
def test_a_link_that_leads_nowhere_counts_as_a_file_of_a_run(tmp_path, name):
    """Else a training would find out at its first report, since links are not followed."""
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(mt.ConfigError, match="already holds a run"):
        mt.RunFolder(tmp_path).create(settings_of())


@pytest.mark.parametrize("meta", [{"step": 2}, {"step": "3"}, {"step": None}])
def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path, meta):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    folder.save(3, {"x": np.arange(3)}, meta)
    assert message_of(mt.CheckpointError, folder.load) == (
        f"{tmp_path / 'checkpoint-00000003.npz'}: expected the state that its name says, got that after step "
        f"{meta['step']!r}; give it its own name again, or move it away"
    )


def test_an_average_stays_until_the_next_checkpoint_is_on_disk(tmp_path, monkeypatch):
    folder = trained(tmp_path / "run").folder
    mt.average_checkpoints(folder, 2)
    before = contents(tmp_path / "run")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "fsync", full)
        folder.save(99, *folder.load(), keep=1)
    assert contents(tmp_path / "run") == before
    folder.save(99, *folder.load(), keep=1)
    assert not (tmp_path / "run" / "average.npz").exists()


@pytest.mark.parametrize("target", ["nowhere", "file"])
def test_a_run_is_not_begun_through_a_link_that_leads_to_no_folder(tmp_path, target):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "run").symlink_to(tmp_path / target)
    with pytest.raises(
        mt.ConfigError, match=r"run is a (link that leads nowhere|file); choose a(nother)? folder"
    ):
        mt.RunFolder(tmp_path / "run").create(settings_of())
    assert not (tmp_path / "nowhere").exists() and (tmp_path / "file").read_text() == "mine"


def test_links_in_a_run_folder_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = trained(tmp_path / "run").folder
    for name in ("average.npz", "result.json", "checkpoint-00000099.npz"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to(outside)
    (tmp_path / "run" / "checkpoint-00000099.npz").unlink()
    mt.average_checkpoints(folder, 2)
    folder.write_result({"x": 1})
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").symlink_to(outside)
    with pytest.raises(OSError):
        folder.log({"step": 1})
    assert outside.read_text() == "mine"


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_training(tmp_path):
    trainer = new_run(tmp_path / "run")
    (tmp_path / "run").mkdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "run" / f"checkpoint-00000005.npz.{dead.pid}.tmp").write_bytes(b"half")
    trainer.run()
    assert not list((tmp_path / "run").glob("*.tmp"))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 3, "valid": null}',
        '{"step": 3, "loss": "low"}',
        '{"step": "3"}',
        '{"step": 3, "valid": {"loss": true}}',
    ],
)
def test_a_line_of_metrics_that_is_no_report_is_refused_by_number(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "loss": 2.0, "lr": 0.1}}\n{line}\n')
    with pytest.raises(
        mt.CheckpointError, match=r"metrics\.jsonl: damaged \(line 2 is not a report of a step\)"
    ):
        mt.RunFolder(tmp_path).metrics()


def test_a_config_that_cannot_be_read_now_is_not_called_missing(tmp_path):
    folder = mt.RunFolder(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(mt.CheckpointError, match=r"config\.json: cannot be read"):
        folder.settings()


def test_as_many_checkpoints_are_kept_as_were_asked_for(tmp_path):
    names = [path.name for path in trained(tmp_path / "run").folder.checkpoints()]
    assert names == [f"checkpoint-{step:08d}.npz" for step in (6, 9, 12, 15)]


# --- the files of a task --------------------------------------------------------------------------------


class OfFiles(Sort):
    """A task that puts two files into its run folders, and has the content of the first one anyway."""

    def files(self):
        return {"symbols.txt": b"1 2 3", "empty.txt": b""} if not self.loaded else {"symbols.txt": b"1 2 3"}

    def load(self, folder):
        self.loaded.append(folder)


@pytest.fixture
def of_files(tmp_path):
    """A run of such a task, just begun: its folder and the task."""
    task = OfFiles(n_symbols=7, max_length=4, epoch_size=11, test_size=3)
    object.__setattr__(task, "loaded", [])
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(mt.RunSettings.of(task, {"d_model": 6, "n_heads": 2, "d_k": 4}))
    return folder, task


def test_the_files_of_the_task_are_written_and_read_from_the_folder(of_files):
    folder, task = of_files
    assert contents(folder.path).keys() == {"config.json", "symbols.txt", "empty.txt"}
    assert (folder.path / "symbols.txt").read_bytes() == b"1 2 3"
    assert folder.settings(task).task is task and task.loaded == [folder.path]


def test_another_file_than_the_run_began_with_is_refused(of_files):
    folder, task = of_files
    path = folder.path / "symbols.txt"
    path.write_bytes(b"1 2 4")
    assert message_of(mt.CheckpointError, folder.settings, task) == (
        f"{path}: expected the file that this run began with, got another one, or a damaged one; restore "
        f"it, or move it away, if the files that it is made from have not changed"
    )


def test_a_file_that_was_moved_away_is_made_anew_by_the_task(of_files):
    folder, task = of_files
    for path in folder.path.glob("*.txt"):
        path.unlink()
    assert folder.settings(task).task is task  # one that it does not make is empty


def test_a_file_that_is_gone_and_that_the_task_does_not_make_is_refused(of_files):
    folder, _ = of_files
    (folder.path / "symbols.txt").unlink()
    with pytest.raises(mt.CheckpointError, match=r"symbols\.txt: expected the file that this run began with"):
        folder.settings(TASK)


def test_a_run_that_knows_of_no_files_can_be_read(of_files):
    """As the runs of earlier versions."""
    folder, task = of_files
    config = json.loads((folder.path / "config.json").read_text())
    del config["files"]
    (folder.path / "config.json").write_text(json.dumps(config))
    (folder.path / "symbols.txt").write_bytes(b"anything")
    assert folder.settings(task).task is task


# --- checkpoints of other settings ----------------------------------------------------------------------


def written_with(path, meta):
    """A run folder, and a checkpoint in it with `meta` in place of its own settings."""
    folder = mt.RunFolder(path)
    folder.create(settings_of())
    folder.save(3, {"x": np.arange(3)}, meta)
    return folder


def test_a_checkpoint_of_the_same_model_is_loaded_whatever_else_differs(tmp_path):
    settings = json.loads(json.dumps(settings_of(steps=2000).as_dict()))
    settings["model"]["of_a_later_version"] = 3
    folder = written_with(tmp_path, {"settings": settings})
    assert folder.load()[1] == {"settings": settings}


def test_a_checkpoint_of_another_model_is_refused_and_the_difference_named(tmp_path):
    folder = written_with(tmp_path, {"settings": settings_of(d_ff=12).as_dict()})
    assert message_of(mt.CheckpointError, folder.load) == (
        f"{tmp_path / 'config.json'}: d_ff: expected 12, with which checkpoint-00000003.npz was written, got 64; "
        f"restore it, or begin a new run"
    )


@pytest.mark.parametrize("model", [4, None])
def test_a_checkpoint_whose_settings_are_none_is_called_damaged(tmp_path, model):
    folder = written_with(tmp_path, {"settings": {"model": model}})
    path = tmp_path / "checkpoint-00000003.npz"
    expected = f"{path}: damaged: expected settings in it, got {{'model': {model}}}"
    assert message_of(mt.CheckpointError, folder.load) == expected


@pytest.mark.parametrize("name", ["", ".", "../x", "/etc/hostname", "a/b"])
def test_a_config_that_names_files_elsewhere_is_refused_and_they_are_not_read(tmp_path, name):
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings_of())
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "files": {name: "0"}}))
    with pytest.raises(
        mt.CheckpointError, match=r"config\.json: damaged: expected the name of a file, got '"
    ):
        folder.settings()


def test_a_config_whose_names_of_files_are_no_text_is_damaged(tmp_path):
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings_of())
    file = tmp_path / "run" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "files": [[None, None]]}))
    with pytest.raises(mt.CheckpointError, match=r"damaged: expected the name of a file, got None"):
        folder.settings()


def test_settings_are_compared_in_all_their_parts(tmp_path):
    folder, path = mt.RunFolder(tmp_path), tmp_path / "checkpoint-00000003.npz"
    written = {"seed": 1, "model": {"d_ff": 4, "heads": {"n": 2}}, "gone": 1}
    folder.compare(path, written, {"seed": 1, "model": {"d_ff": 4, "heads": {"n": 2}, "new": 1}})
    other = {"seed": 1, "model": {"d_ff": 4, "heads": {"n": 3}}}
    message = message_of(mt.CheckpointError, folder.compare, path, written, other)
    assert message.startswith(
        f"{tmp_path / 'config.json'}: n: expected 2, with which {path.name} was written, got 3;"
    )
    for settings in ({"seed": 1, "model": {"d_ff": 4, "heads": 2}}, {"seed": 1}):
        message = message_of(mt.CheckpointError, folder.compare, path, written, settings)
        assert message.startswith(f"{path}: damaged: expected settings in it, got {{")


# --- messages, whole ------------------------------------------------------------------------------------


def test_weights_that_are_not_there_are_named_with_what_to_do(tmp_path):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    for weights, error, expected in (
        ("lst", mt.ConfigError, "weights: unknown 'lst'; did you mean 'last'? Known: average, best, last"),
        (
            "last",
            mt.CheckpointError,
            f"{tmp_path}: expected a checkpoint, found none; train it first (--resume)",
        ),
        ("best", mt.CheckpointError, f"{tmp_path / 'best.npz'}: expected a checkpoint, found no such file"),
        (
            "average",
            mt.CheckpointError,
            f"{tmp_path / 'average.npz'}: expected averaged weights; "
            f"make them with: minitransformer average {tmp_path}",
        ),
    ):
        assert message_of(error, folder.load, weights) == expected


@pytest.mark.parametrize("weights", ["best", "average"])
def test_weights_are_loaded_as_they_were_saved(tmp_path, weights):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    folder.save_weights(weights, {"x": np.arange(3)}, {"step": 5})
    arrays, meta = folder.load(weights)
    assert arrays["x"].tolist() == [0, 1, 2] and meta == {"step": 5}


def test_a_config_that_cannot_be_used_is_named_with_what_is_wrong(tmp_path):
    path = tmp_path / "config.json"
    for text, expected in (
        (damaged(seed=-1), f"{path}: seed: expected a whole number, 0 or more, got -1"),
        (damaged(seed=...), f"{path}: damaged (KeyError('seed'))"),
    ):
        path.write_text(text)
        assert message_of(mt.MinitransformerError, mt.RunFolder(tmp_path).settings) == expected


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1.0}',
        '{"step": true}',
        '{"step": 1, "loss": "1"}',
        '{"step": 1, "loss": true}',
        '{"step": 1, "lr": [1]}',
        '{"step": 1, "valid": 3}',
        '{"step": 1, "valid": {"loss": "1"}}',
        '{"step": 1, "valid": {"exact_match": false}}',
        '{"step": 1, "valid": {"bleu": {}}}',
    ],
)
def test_a_line_that_is_no_report_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "loss": 1, "lr": null, "valid": {"loss": 0.5, "exact_match": null}, "more": "text"}\n'
    path.write_text(good)
    folder = mt.RunFolder(tmp_path)
    assert len(folder.metrics()) == 1
    path.write_text(f"{good}{line}\n{good}{line}\n")
    assert message_of(mt.CheckpointError, folder.metrics) == (
        f"{path}: damaged (line 2 is not a report of a step); move it away to continue without it"
    )


# --- what is written, byte by byte ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "reads"), [(None, True), (1, True), (2, False), (0, False), ("1", False)]
)
def test_a_folder_of_a_newer_format_is_refused_and_one_without_a_format_is_old(tmp_path, written, reads):
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings_of())
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("format") == 1
    file.write_text(json.dumps(config if written is None else {"format": written, **config}))
    if reads:
        assert folder.settings() == settings_of()
    else:
        newer = r"config\.json: format: expected at most 1, .*, got .*; install a newer minitransformer"
        for read in (folder.settings, folder.model_settings):
            with pytest.raises(mt.CheckpointError, match=newer):
                read()


def test_config_and_result_are_written_for_people_too(tmp_path):
    folder, settings = mt.RunFolder(tmp_path), settings_of()
    folder.create(settings)
    folder.write_result({"steps": 1, "sets": {"test": {"n": 3}}})
    config = {"format": 1, **settings.as_dict(), "files": {}}
    assert (tmp_path / "config.json").read_text() == json.dumps(config, indent=2) + "\n"
    expected = '{\n  "steps": 1,\n  "sets": {\n    "test": {\n      "n": 3\n    }\n  }\n}\n'
    assert (tmp_path / "result.json").read_text() == expected


def test_the_metrics_up_to_a_step_are_kept_with_it(tmp_path):
    folder = mt.RunFolder(tmp_path)
    for step in (1, 2, 3):
        folder.log({"step": step})
    folder.forget_after(2)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_the_lock_is_the_only_file_that_a_claim_leaves(tmp_path):
    pytest.importorskip("fcntl")
    folder = mt.RunFolder(tmp_path)
    folder.claim()
    folder.release()
    assert contents(tmp_path) == {"lock": b""}


# --- where a run cannot begin ---------------------------------------------------------------------------


def test_a_link_to_a_folder_may_become_a_run_and_a_link_to_nowhere_may_not(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    mt.RunFolder(tmp_path / "link").create(settings_of())
    assert (tmp_path / "folder" / "config.json").exists()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert message_of(mt.ConfigError, mt.RunFolder(tmp_path / "dangling").create, settings_of()) == (
        f"{tmp_path / 'dangling'} is a link that leads nowhere; choose another folder with --out"
    )
    assert not (tmp_path / "nowhere").exists()


def test_of_runs_begun_in_the_same_moment_the_next_takes_the_next_name(tmp_path):
    names = [tmp_path / name for name in "abc"]
    folders = [mt.RunFolder(names[0], iter(names[1:])) for _ in range(4)]
    for folder in folders[:3]:
        folder.create(settings_of())
    assert [folder.path for folder in folders[:3]] == names
    with pytest.raises(mt.ConfigError, match="already holds a run"):
        folders[3].create(settings_of())


def test_a_run_that_was_begun_in_the_same_moment_is_refused_and_intact(tmp_path, monkeypatch):
    folder = mt.RunFolder(tmp_path)
    folder.create(settings_of())
    before = contents(tmp_path)
    monkeypatch.setattr(folder, "exists", lambda: False)  # as it was a moment ago
    assert message_of(mt.ConfigError, folder.create, settings_of(d_ff=12)) == (
        f"{tmp_path} already holds a run; continue it with --resume, or choose another folder with --out"
    )
    assert contents(tmp_path) == before
