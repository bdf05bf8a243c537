"""What a checkpoint of a run holds, and which weights are the best so far."""

import json
import re

import numpy as np
import pytest
from learning_runs import TASK, trained
from training_runs import TEXT, new_run, one_stack_run, resumed_run

import minitransformer as mt
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.runs.interrupt import Interrupted
from minitransformer.runs.state import RunState
from minitransformer.tasks import Sort


def test_a_run_whose_data_have_changed_is_not_continued(tmp_path, monkeypatch):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 3)
    resumed_run(tmp_path / "run")
    pairs = Sort.training_pairs
    monkeypatch.setattr(Sort, "training_pairs", lambda *given: pairs(*given)[::-1])
    with pytest.raises(mt.CheckpointError, match="the sentence pairs that this run began with, got others"):
        resumed_run(tmp_path / "run")


def test_of_two_that_resume_a_run_the_one_that_began_from_an_older_state_is_refused(tmp_path):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 3)
    late, early = resumed_run(tmp_path / "run"), resumed_run(tmp_path / "run")
    early.run()
    with pytest.raises(mt.ConfigError, match="another process has gone on with this run meanwhile"):
        late.run()
    assert early.folder.metrics()[-1]["step"] == 13


def test_a_figure_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    """It could neither be compared nor resumed from."""
    monkeypatch.setattr(Sort, "figures", lambda *given: {"exact_match": float("nan")})
    with pytest.raises(mt.MinitransformerError, match="step 5: exact_match nan"):
        new_run(tmp_path / "run").run()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("adam.m", "Adam: the state lacks m"),
        ("adam.t", "Adam: the state lacks t"),
        ("model.encoder.layers.0.self_attention.W_Q", "state lacks 1 parameter"),
    ],
)
def test_a_checkpoint_that_lacks_an_array_is_refused(tmp_path, missing, message):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    del arrays[missing]
    trainer.folder.save(13, arrays, meta)
    with pytest.raises(mt.CheckpointError, match=message):
        resumed_run(tmp_path / "run")


def test_a_checkpoint_that_lacks_a_number_is_refused(tmp_path):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    for name in meta.keys() - {"settings", "held_out"}:  # which older versions did not write
        trainer.folder.save(13, arrays, {key: value for key, value in meta.items() if key != name})
        with pytest.raises(mt.CheckpointError, match=name):
            resumed_run(tmp_path / "run")


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    new_run(tmp_path / "a").run()
    other = new_run(tmp_path / "b", d_ff=12)
    other.run()
    arrays, meta = load_checkpoint(mt.RunFolder(tmp_path / "a").checkpoints()[-1])
    for written, message in ((meta, "d_ff: expected 10"), (without(meta, "settings"), "shape")):
        other.folder.save(13, arrays, written)
        with pytest.raises(mt.CheckpointError, match=message):
            resumed_run(tmp_path / "b")
        with pytest.raises(mt.CheckpointError, match=message):
            mt.load_model(other.folder)


def without(meta, name):
    return {key: value for key, value in meta.items() if key != name}


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("model", "n_heads", 1), ("training", "learning_rate", 0.5), ("task_settings", "n_symbols", 6)],
)
def test_settings_that_were_changed_since_are_refused(tmp_path, part, name, value):
    """Heads, because weights of the same shapes mean something else then."""
    trainer = new_run(tmp_path / "run")
    trainer.run()
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    assert config[part][name] != value
    config[part][name] = value
    file.write_text(json.dumps(config))
    message = rf"config\.json: {name}: expected .*with which checkpoint-\d+\.npz was written, got {value}"
    with pytest.raises(mt.CheckpointError, match=message):
        resumed_run(tmp_path / "run")
    if part == "model":
        with pytest.raises(mt.CheckpointError, match=message):
            mt.load_model(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("log_every", 3),
        ("keep_checkpoints", 1),
        ("evaluate_every", 4),
        ("steps", 15),
        ("recompute", True),
        ("patience", 3),
        ("solved_at", 1.0),
    ],
)
def test_settings_that_move_no_weight_may_be_changed_while_a_run_is_stopped(tmp_path, name, value):
    """(steps, where the schedule does not depend on it: this one is the paper's.)"""
    new_run(tmp_path / "run").run()
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["training"][name] = value
    file.write_text(json.dumps(config))
    assert resumed_run(tmp_path / "run").run()["steps"] == (15 if name == "steps" else 13)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "count_source_from", None),
        ("task_settings", "n_symbols", 6),
        ("", "seed", 4),
        ("", "task", "reverse"),
    ],
)
def test_weights_of_another_task_model_or_seed_are_refused_by_all_who_load_them(tmp_path, part, name, value):
    """A setting that is missing counts as its default."""
    new_run(tmp_path / "run").run()
    mt.average_checkpoints(mt.RunFolder(tmp_path / "run"), 2)
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    where = config[part] if part else config
    where.pop(name) if value is None else where.update({name: value})
    file.write_text(json.dumps(config))
    for weights in ("last", "best", "average"):
        with pytest.raises(mt.CheckpointError, match=rf"config\.json: {name}: expected "):
            mt.load_model(tmp_path / "run", weights=weights)
    with pytest.raises(mt.CheckpointError, match=rf"config\.json: {name}: expected "):
        mt.average_checkpoints(mt.RunFolder(tmp_path / "run"), 2)


def test_a_checkpoint_beyond_the_last_step_is_refused(tmp_path):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    trainer.folder.save(9999, arrays, {**meta, "step": 9999})
    with pytest.raises(
        mt.CheckpointError, match=r"steps: expected 9,999 or more, which this run has done already, got \d+$"
    ):
        resumed_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["model.", "adam.m", "adam.v"])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_and_moments_that_are_not_finite_are_refused(tmp_path, name, number):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    key = next(key for key in arrays if key.startswith(name))
    arrays[key].ravel()[0] = number
    trainer.folder.save(meta["step"], arrays, meta)
    with pytest.raises(mt.CheckpointError, match=f"{re.escape(key)}: expected finite numbers, got {number}"):
        resumed_run(tmp_path / "run")
    with pytest.raises(mt.CheckpointError, match="finite"):
        mt.load_model(tmp_path / "run")


def test_while_nothing_is_right_yet_the_loss_decides(tmp_path):
    """Patience does not end with a figure that is 0 for the first evaluations."""
    trainer = trained(tmp_path / "run", steps=12, learning_rate=0.002, patience=1)
    valid = [r["valid"] for r in trainer.folder.metrics() if "valid" in r]
    assert [figures["exact_match"] for figures in valid] == [0] * 4
    assert [figures["loss"] for figures in valid] == sorted((f["loss"] for f in valid), reverse=True)
    assert trainer.step == trainer.state.best["step"] == 12


def test_a_task_whose_best_figure_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Sort, "selection_metric", "exact_mtach")
    with pytest.raises(mt.ConfigError, match=r"'exact_mtach'.*'exact_match'"):
        trained(tmp_path / "run")


def test_the_best_weights_are_those_of_the_best_evaluation(tmp_path):
    """Of equal ones, that with less loss."""
    trainer = trained(tmp_path / "run", steps=60, learning_rate=0.05, keep_checkpoints=20)
    valid = {r["step"]: r["valid"] for r in trainer.folder.metrics() if "valid" in r}
    scores = {step: (figures["exact_match"], -figures["loss"]) for step, figures in valid.items()}
    step = max(scores, key=lambda step: (*scores[step], -step))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    best = {"step": step, "value": scores[step][0], "loss": -scores[step][1]}
    assert result["best"] == trainer.state.best == best
    assert scores[step] > min(scores.values()), "a run in which nothing is best shows nothing"
    arrays, _ = load_checkpoint(tmp_path / "run" / f"checkpoint-{step:08d}.npz")
    for name, p in mt.load_model(tmp_path / "run", weights="best").parameters().items():
        np.testing.assert_array_equal(p.data, arrays[f"model.{name}"])


def test_training_ends_when_patience_does(tmp_path, monkeypatch):
    """Evaluations of 0.1, 0.4, 0.2, 0.4, 0.3, 0.9: the third in a row without a better one is the last."""
    scores = iter([0.1, 0.4, 0.2, 0.4, 0.3, 0.9])
    real = mt.runs.trainer.measure

    def told(replicas, task, name, pairs):
        given = {"exact_match": next(scores), "loss": 1.0} if name == "valid" else {}
        return {**real(replicas, task, name, pairs), **given}

    monkeypatch.setattr("minitransformer.runs.trainer.measure", told)
    trainer = trained(tmp_path / "run", steps=60, patience=3)
    assert trainer.step == 15 and trainer.state.best == {"step": 6, "value": 0.4, "loss": 1.0}
    assert [r["step"] for r in trainer.folder.metrics() if "valid" in r] == [3, 6, 9, 12, 15]
    arrays, _ = load_checkpoint(tmp_path / "run" / "checkpoint-00000006.npz")
    for name, p in mt.load_model(tmp_path / "run", weights="best").parameters().items():
        np.testing.assert_array_equal(p.data, arrays[f"model.{name}"])


def test_the_best_and_the_patience_outlive_a_stop(tmp_path):
    whole = trained(tmp_path / "whole", steps=60, learning_rate=0.05, patience=4)
    folder = mt.RunFolder(tmp_path / "cut")
    interrupted = mt.Trainer(whole.settings, folder)
    steps = iter(range(100))
    with pytest.raises(mt.runs.Interrupted):
        interrupted.run(stop_requested=lambda: next(steps) == 10)
    again = mt.Trainer(folder.settings(TASK), folder)
    again.resume()
    again.run()
    assert (again.step, again.state.best) == (whole.step, whole.state.best)
    assert (tmp_path / "cut" / "best.npz").read_bytes() == (tmp_path / "whole" / "best.npz").read_bytes()


@pytest.mark.parametrize("larger", [True, False])
def test_the_best_value_is_the_largest_or_the_smallest_and_between_equals_the_loss_decides(larger):
    state = RunState()
    for value in (0.0, -3.0, 5.0):
        assert state.is_better(value, 9.0, larger)  # the first of all is the best so far
    state.best = {"step": 3, "value": 0.5, "loss": 2.0}
    assert state.is_better(0.6, 9.0, larger) == larger and state.is_better(0.4, 9.0, larger) != larger
    assert state.is_better(0.5, 1.9, larger) and not state.is_better(0.5, 2.0, larger)
    assert not state.is_better(0.5, 2.1, larger)
    assert state.is_better(0.6, 9.0) and not state.is_better(0.4, 9.0)


def test_a_task_without_answers_keeps_the_weights_of_least_loss(tmp_path, monkeypatch):
    """Losses of 3, 2.5, 2.7, 2.6, 2: patience ends with the third that is no better, or here with the second."""
    losses = iter([3.0, 2.5, 2.7, 2.6, 2.0])
    real = mt.runs.trainer.measure
    told = []

    def measure(replicas, task, name, pairs):
        figures = real(replicas, task, name, pairs)
        assert figures.keys() == {"loss", "n"}
        told.append(figures)
        return {**figures, "loss": next(losses)}

    monkeypatch.setattr("minitransformer.runs.trainer.measure", measure)
    trainer = one_stack_run(
        tmp_path / "run", "chars", steps=50, evaluate_every=3, patience=2, keep_checkpoints=9
    )
    result = trainer.run()
    assert trainer.step == 12 and trainer.state.best == {"step": 6, "value": 2.5, "loss": 2.5}
    assert (
        result["loss"] == 2.0 and result["sets"]["valid"]["n"] == told[0]["n"]
    )  # the fifth: of the final weights
    arrays, _ = load_checkpoint(tmp_path / "run" / "checkpoint-00000006.npz")
    for name, p in mt.load_model(tmp_path / "run", weights="best").parameters().items():
        np.testing.assert_array_equal(p.data, arrays[f"model.{name}"])


def test_a_text_that_has_changed_since_is_not_learned_on(tmp_path):
    trainer = one_stack_run(tmp_path / "run", "chars")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 3)
    (tmp_path / "text.txt").write_bytes(TEXT[::-1].encode())
    with pytest.raises(mt.CheckpointError, match="the sentence pairs that this run began with, got others"):
        resumed_run(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("family", "encoder-only", mt.CheckpointError, "family: expected 'decoder-only', with which"),
        ("scale_embedding", False, mt.CheckpointError, "scale_embedding: expected True, with which"),
        ("family", None, mt.ConfigError, "config.json: "),
    ],
)
def test_weights_of_another_family_or_with_another_embedding_are_refused(
    tmp_path, name, value, error, message
):
    """None: a config.json without the setting, which is then the paper's model."""
    one_stack_run(tmp_path / "run", "decoder-only").run()
    file = tmp_path / "run" / "config.json"
    config = json.loads(file.read_text())
    config["model"].update({name: value}) if value is not None else config["model"].pop(name)
    file.write_text(json.dumps(config))
    for load in (mt.load_model, resumed_run):
        with pytest.raises(error) as raised:
            load(tmp_path / "run")
        assert message in str(raised.value) and "\n" not in str(raised.value)
