"""The weights of a run besides the last: the mean of several checkpoints."""

import numpy as np
import pytest
from learning_runs import trained

import minitransformer as mt
from minitransformer.runs import weights
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.runs.weights import mean_of_checkpoints


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_average_is_the_mean_of_the_weights_after_these_steps(tmp_path, dtype):
    trainer = trained(tmp_path / "run", dtype=dtype)
    assert mt.average_checkpoints(str(tmp_path / "run"), 3) == [9, 12, 15]
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


def test_an_average_of_checkpoints_that_are_no_longer_the_last_is_not_written(tmp_path, monkeypatch):
    trainer = trained(tmp_path / "run")

    def meanwhile(*given):
        trainer.state.step += 1
        trainer.save()
        return mean_of_checkpoints(*given)

    monkeypatch.setattr(weights, "mean_of_checkpoints", meanwhile)
    with pytest.raises(mt.CheckpointError, match="average again"):
        mt.average_checkpoints(trainer.folder, 2)
    assert not (tmp_path / "run" / "average.npz").exists()


def test_the_figures_of_a_run_do_not_outlive_its_next_checkpoint(tmp_path):
    trainer = trained(tmp_path / "run")
    trainer.state.step += 1
    trainer.save()
    assert not (tmp_path / "run" / "result.json").exists()


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


def test_averaging_a_damaged_checkpoint_is_refused(tmp_path):
    trainer = trained(tmp_path / "run")
    trainer.folder.checkpoints()[1].write_bytes(b"half")
    with pytest.raises(mt.CheckpointError, match="damaged"):
        mt.average_checkpoints(trainer.folder, 4)
    assert not (tmp_path / "run" / "average.npz").exists()


def test_checkpoints_of_two_runs_have_no_average(tmp_path):
    """Their weights have the same names and shapes, and mean nothing together."""
    folder, other = trained(tmp_path / "run").folder, trained(tmp_path / "other", seed=4).folder
    mine, theirs = folder.checkpoints()[-2], other.checkpoints()[-2]
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(
        mt.CheckpointError, match=r"seed: expected 4, with which checkpoint-\d+\.npz was written, got 3"
    ):
        mt.average_checkpoints(folder, 3)
    assert not (tmp_path / "run" / "average.npz").exists()
