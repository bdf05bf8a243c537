"""The weights of a run besides the last: the best, and the mean of several checkpoints."""

import json

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import cli
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.tasks import Sort

TASK = Sort(n_symbols=7, max_length=5, epoch_size=40, test_size=9)
TINY = {
    "n_layers": 1,
    "d_model": 10,
    "n_heads": 2,
    "d_ff": 14,
    "max_len": 11,
    "steps": 15,
    "batch_tokens": 60,
    "warmup_steps": 4,
    "learning_rate": 0.02,
    "evaluate_every": 3,
    "keep_checkpoints": 4,
    "solved_at": None,
    "processes": 1,
}


def trained(path, **changes):
    trainer = mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **changes}, 3), mt.RunFolder(path))
    trainer.run()
    return trainer


def test_as_many_checkpoints_are_kept_as_were_asked_for(tmp_path):
    names = [path.name for path in trained(tmp_path / "run").folder.checkpoints()]
    assert names == [f"checkpoint-{step:08d}.npz" for step in (6, 9, 12, 15)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_average_is_the_mean_of_the_weights_after_these_steps(tmp_path, dtype):
    trainer = trained(tmp_path / "run", dtype=dtype)
    assert mt.average_checkpoints(trainer.folder, 3) == [9, 12, 15]
    model = mt.load_model(tmp_path / "run", weights="average")
    assert model.flatten().data.dtype == dtype
    for name, p in model.parameters().items():
        each = [load_checkpoint(path)[0][f"model.{name}"] for path in trainer.folder.checkpoints()[1:]]
        mean = np.mean(np.asarray(each, "float64"), 0)
        np.testing.assert_allclose(p.data, mean, rtol=1e-6 if dtype == "float32" else 1e-13, atol=1e-16)
        if name.endswith("W_Q"):
            assert np.ptp(each, axis=0).max() > 1e-3  # there was something to average
    np.testing.assert_array_equal(
        mt.load_model(tmp_path / "run").flatten().data, trainer.model.flatten().data
    )


def test_the_average_of_one_is_the_last(tmp_path):
    trainer = trained(tmp_path / "run")
    assert mt.average_checkpoints(trainer.folder, 1) == [15]
    average = mt.load_model(tmp_path / "run", weights="average")
    np.testing.assert_array_equal(average.flatten().data, trainer.model.flatten().data)


def test_an_average_of_more_than_there_are_is_refused(tmp_path):
    trainer = trained(tmp_path / "run")
    with pytest.raises(
        mt.CheckpointError, match=r"expected 5 checkpoints to average, found 4.*keep_checkpoints"
    ):
        mt.average_checkpoints(trainer.folder)
    with pytest.raises(mt.CheckpointError, match="expected averaged weights"):
        mt.load_model(trainer.folder, weights="average")
    for n in (0, -1, 1.5):
        with pytest.raises(mt.InputError, match="n: expected how many"):
            mt.average_checkpoints(trainer.folder, n)
    with pytest.raises(mt.ConfigError, match=r"'lats'.*'last'"):
        mt.load_model(trainer.folder, weights="lats")


def test_an_average_does_not_outlive_the_next_checkpoint(tmp_path):
    """Else somebody would measure old weights in the belief that they are the last ones."""
    trainer = trained(tmp_path / "run")
    mt.average_checkpoints(trainer.folder, 2)
    assert (tmp_path / "run" / "average.npz").exists()
    trainer.save()
    assert not (tmp_path / "run" / "average.npz").exists()


def test_checkpoints_of_different_models_have_no_average(tmp_path):
    folder = trained(tmp_path / "run").folder
    arrays, meta = folder.load()
    for spoiled in (
        {**arrays, "model.more": np.zeros(3)},
        {name: x for name, x in arrays.items() if not name.endswith("W_Q")},
        {name: x[:1] if name.endswith("W_Q") else x for name, x in arrays.items()},
    ):
        folder.save(15, spoiled, meta)
        with pytest.raises(mt.CheckpointError, match=r"15\.npz: not a checkpoint of the same model"):
            mt.average_checkpoints(folder, 2)
    folder.save(15, arrays, {})
    with pytest.raises(mt.CheckpointError, match="not a checkpoint"):
        mt.average_checkpoints(folder, 1)
    with pytest.raises(mt.CheckpointError, match="expected a run folder"):
        mt.average_checkpoints(mt.RunFolder(tmp_path / "nowhere"), 1)


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


def test_averaging_a_damaged_checkpoint_is_refused(tmp_path):
    trainer = trained(tmp_path / "run")
    trainer.folder.checkpoints()[1].write_bytes(b"half")
    with pytest.raises(mt.CheckpointError, match="damaged"):
        mt.average_checkpoints(trainer.folder, 4)
    assert not (tmp_path / "run" / "average.npz").exists()


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


# --- the command ----------------------------------------------------------------------------------------


def test_the_command_averages_and_evaluates(tmp_path, capsys):
    path = tmp_path / "run"
    settings = {**TINY, "n_symbols": 7, "max_length": 5, "epoch_size": 40, "test_size": 9}
    command = ["train", "sort", "--json", "--out", str(path), "--set"]
    assert cli.main([*command, *(f"{name}={value}" for name, value in settings.items())]) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(path), "--weights", "average"]) == 2
    assert "expected averaged weights" in capsys.readouterr().err
    assert cli.main(["average", str(path), "--last", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run": str(path), "steps": [12, 15]}
    found = {}
    for weights in ("last", "best", "average"):
        assert cli.main(["evaluate", str(path), "--weights", weights, "--beam", "3", "--json"]) == 0
        found[weights] = json.loads(capsys.readouterr().out)["sets"]["test"]
    assert len({figures["loss"] for figures in found.values()}) >= 2
    model, task = mt.load_model(path, weights="average"), mt.RunFolder(path).settings().task
    pairs = task.evaluation_sets(mt.backend.generator(0))["test"]
    right = [mt.translate(model, [source], beam=3)[0] == list(target) for source, target in pairs]
    assert found["average"]["exact_match"] == sum(right) / 9
