"""What a checkpoint of a run holds, and which weights are the best so far."""

import json

import numpy as np
import pytest
from learning_runs import TASK, trained
from training_runs import new_run, resumed_run

import minitransformer as mt
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.runs.interrupt import Interrupted
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


@pytest.mark.parametrize("missing", ["adam.m", "adam.t", "model.encoder.layers.0.self_attention.W_Q"])
def test_a_checkpoint_that_lacks_an_array_is_refused(tmp_path, missing):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    del arrays[missing]
    trainer.folder.save(14, arrays, meta)
    with pytest.raises(mt.CheckpointError):
        resumed_run(tmp_path / "run")


def test_a_checkpoint_that_lacks_a_number_is_refused(tmp_path):
    trainer = new_run(tmp_path / "run")
    trainer.run()
    arrays, meta = trainer.folder.load()
    for name in meta:
        trainer.folder.save(14, arrays, {key: value for key, value in meta.items() if key != name})
        with pytest.raises(mt.CheckpointError, match=name):
            resumed_run(tmp_path / "run")


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    new_run(tmp_path / "a").run()
    other = new_run(tmp_path / "b", d_ff=12)
    other.run()
    arrays, meta = load_checkpoint(mt.RunFolder(tmp_path / "a").checkpoints()[-1])
    other.folder.save(14, arrays, meta)
    with pytest.raises(mt.CheckpointError, match="shape"):
        resumed_run(tmp_path / "b")
    with pytest.raises(mt.CheckpointError, match="shape"):
        mt.load_model(other.folder)


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
