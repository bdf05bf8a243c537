"""The training loop: what one step does, and that a run may stop anywhere and continue as if it had not."""

import copy
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.runs.checkpoint import load_checkpoint
from minitransformer.runs.interrupt import Interrupted
from minitransformer.tasks import Copy, Reverse, Sort
from minitransformer.training.batching import make_batch

TASK = Sort(n_symbols=7, min_length=2, max_length=5, epoch_size=23, test_size=4)
TINY = {
    "n_layers": 1,
    "d_model": 6,
    "n_heads": 2,
    "d_ff": 10,
    "max_len": 11,
    "steps": 13,
    "batch_tokens": 30,
    "schedule": "noam",
    "warmup_steps": 4,
    "learning_rate": 0.01,
    "log_every": 2,
    "evaluate_every": 5,
    "solved_at": None,
}


def new_run(path, seed=3, **changes):
    """A trainer with its folder, at step 0."""
    settings = mt.RunSettings.of(TASK, {**TINY, **changes}, seed)
    return mt.Trainer(settings, mt.RunFolder(path))


def resumed_run(path):
    """What --resume does."""
    folder = mt.RunFolder(path)
    trainer = mt.Trainer(folder.settings(), folder)
    trainer.resume()
    return trainer


def without_times(record):
    times = ("seconds", "tokens_per_s", "peak_memory_mb", "run")
    return {name: value for name, value in record.items() if name not in times}


def outcome(path):
    """All that a run leaves behind, but for the clock: weights, moments, counts, metrics, result."""
    folder = mt.RunFolder(path)
    arrays, meta = folder.load()
    meta = {name: value for name, value in meta.items() if name != "seconds"}
    meta["since_report"] = without_times(meta["since_report"])
    result = json.loads((pathlib.Path(path) / "result.json").read_text())
    arrays = {name: (x.dtype.str, x.shape, x.tobytes()) for name, x in arrays.items()}
    return arrays, meta, [without_times(record) for record in folder.metrics()], without_times(result)


def assert_same_outcome(path, reference):
    for got, expected in zip(outcome(path), outcome(reference), strict=True):
        assert got == expected  # bit for bit


# --- one step -------------------------------------------------------------------------------------------


def random_pairs(rng, n, longest=9):
    return [
        (
            rng.integers(3, 13, rng.integers(1, longest)).tolist(),
            rng.integers(3, 13, rng.integers(0, longest)).tolist(),
        )
        for _ in range(n)
    ]


def small_model(seed, **changes):
    settings = {
        "n_layers": 2,
        "d_model": 10,
        "n_heads": 2,
        "d_ff": 14,
        "max_len": 11,
        "dropout": 0.0,
        **changes,
    }
    return mt.Transformer(mt.TransformerConfig(13, 13, **settings), seed, "float64")


@pytest.mark.parametrize("norm", ["post", "pre"])
@given(seed=st.integers(0, 2**32 - 1), n_parts=st.integers(2, 4))
def test_accumulated_gradients_are_those_of_the_big_batch(norm, seed, n_parts):
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, 7)
    cuts = [0, *sorted(rng.choice(np.arange(1, 7), n_parts - 1, replace=False).tolist()), 7]
    parts = [make_batch(pairs[a:b]) for a, b in itertools.pairwise(cuts)]
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, 0)
    results = []
    for batches in ([make_batch(pairs)], parts):
        model = small_model(seed, norm=norm)
        optimizer = mt.Adam(model)
        loss, norm_of_all = mt.train_step(mt.Replicas(model), loss_fn, optimizer, batches, lr=0.01)
        results.append((loss, norm_of_all, model.flatten().grad, optimizer.m, optimizer.t))
    (loss, norm_1, grad, m, t), (loss_parts, norm_2, grad_parts, m_parts, t_parts) = results
    assert loss_parts == pytest.approx(loss, rel=1e-12)
    assert norm_2 == pytest.approx(norm_1, rel=1e-12)
    assert np.abs(grad_parts - grad).max() <= 1e-12 * np.abs(grad).max()
    assert np.abs(m_parts - m).max() <= 1e-12 * np.abs(m).max()
    assert t == t_parts == 1


def test_the_loss_of_a_step_is_the_mean_over_all_its_tokens():
    pairs = random_pairs(np.random.default_rng(1), 9)
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, 0)
    model = small_model(1)
    total = n_tokens = 0.0
    for pair in pairs:  # each sentence by itself, without padding
        batch = make_batch([pair])
        logits, _ = model.forward(batch.src_ids, batch.tgt_in)
        total += float(loss_fn.forward(logits, batch.tgt_out)[0]) * (len(pair[1]) + 1)
        n_tokens += len(pair[1]) + 1
    batches = [make_batch(pairs[:2]), make_batch(pairs[2:])]
    loss, _ = mt.train_step(mt.Replicas(model), loss_fn, mt.Adam(model), batches, lr=0.01)
    assert loss == pytest.approx(total / n_tokens, rel=1e-12)


def test_a_step_forgets_the_gradients_of_the_one_before():
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, 0)
    batch = make_batch(random_pairs(np.random.default_rng(2), 4))
    clean, dirty = small_model(2), small_model(2)
    dirty.flatten().grad[...] = 1e6
    for model in (clean, dirty):
        mt.train_step(mt.Replicas(model), loss_fn, mt.Adam(model), [batch], lr=0.01)
    np.testing.assert_array_equal(dirty.flatten().grad, clean.flatten().grad)
    np.testing.assert_array_equal(dirty.flatten().data, clean.flatten().data)


def test_clipping_comes_before_the_update_and_the_norm_is_that_before_it():
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, 0)
    batch = make_batch(random_pairs(np.random.default_rng(3), 4))
    free, clipped = small_model(3), small_model(3)
    _, norm = mt.train_step(mt.Replicas(free), loss_fn, mt.Adam(free), [batch], lr=0.01)
    adam = mt.Adam(clipped)
    _, norm_clipped = mt.train_step(mt.Replicas(clipped), loss_fn, adam, [batch], lr=0.01, clip_norm=norm / 8)
    assert norm_clipped == pytest.approx(norm, rel=1e-12)
    np.testing.assert_allclose(clipped.flatten().grad, free.flatten().grad / 8, rtol=1e-12, atol=0)
    np.testing.assert_allclose(adam.m, 0.1 * clipped.flatten().grad, rtol=1e-12, atol=0)


def test_each_batch_draws_its_own_dropout():
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, 0)
    batch = make_batch(random_pairs(np.random.default_rng(4), 5))

    def loss(*seeds):
        model = small_model(4, dropout=0.4)
        rngs = [np.random.default_rng(seed) for seed in seeds] or None
        batches = [batch] * max(len(seeds), 1)
        return mt.train_step(mt.Replicas(model), loss_fn, mt.Adam(model), batches, 0.01, None, rngs)[0]

    assert loss(1) == loss(1) != loss(2)
    assert loss() not in (loss(1), loss(2))
    assert loss(1, 2) == pytest.approx((loss(1) + loss(2)) / 2, rel=1e-12)  # each is divided by both


# --- a run ----------------------------------------------------------------------------------------------


def test_a_run_reports_what_it_did(tmp_path):
    trainer = new_run(tmp_path / "run")
    result = trainer.run()
    folder = mt.RunFolder(tmp_path / "run")
    metrics = folder.metrics()
    assert [record["step"] for record in metrics] == [2, 4, 5, 6, 8, 10, 12, 13]
    assert [record["step"] for record in metrics if "valid" in record] == [5, 10, 13]
    for record in metrics:
        assert record["lr"] == pytest.approx(
            0.01 * min(record["step"] / 4, (4 / record["step"]) ** 0.5), rel=1e-9
        )
        assert 0 < record["loss"] < 10 and record["gradient_norm"] > 0 and record["tokens_per_s"] > 0
    assert [path.name for path in folder.checkpoints()] == [
        "checkpoint-00000010.npz",
        "checkpoint-00000013.npz",
    ]
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert result["steps"] == 13
    assert result["n_parameters"] == trainer.model.n_parameters() == trainer.model.flatten().data.size
    assert set(result["sets"]) == {"test"}
    assert result["exact_match"] == result["sets"]["test"]["exact_match"]
    np.testing.assert_array_equal(mt.load_model(folder).flatten().data, trainer.model.flatten().data)


def test_the_reported_loss_is_the_mean_over_the_tokens_since_the_last_report(tmp_path, monkeypatch):
    seen = []

    def noted(model, loss_fn, optimizer, batches, *rest):
        loss, norm = mt.train_step(model, loss_fn, optimizer, batches, *rest)
        seen.append((loss, sum(int((batch.tgt_out != 0).sum()) for batch in batches)))
        return loss, norm

    monkeypatch.setattr("minitransformer.runs.trainer.train_step", noted)
    trainer = new_run(tmp_path / "run", accumulate=2)
    trainer.run()
    start = 0
    for record in trainer.folder.metrics():
        since, start = seen[start : record["step"]], record["step"]
        expected = sum(loss * n for loss, n in since) / sum(n for _, n in since)
        assert record["loss"] == pytest.approx(expected, rel=1e-12)
    assert start == len(seen) == 13


def test_a_run_is_a_function_of_its_seed(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        new_run(tmp_path / name, seed, dropout=0.2).run()
    assert_same_outcome(tmp_path / "b", tmp_path / "a")
    assert outcome(tmp_path / "c")[0] != outcome(tmp_path / "a")[0]
    assert outcome(tmp_path / "c")[2] != outcome(tmp_path / "a")[2]


def test_every_batch_of_a_run_draws_its_own_dropout(monkeypatch):
    drawn = []

    def noted(model, loss_fn, optimizer, batches, lr, clip_norm, rngs):
        drawn.extend(copy.deepcopy(rng).random() for rng in rngs)
        return mt.train_step(model, loss_fn, optimizer, batches, lr, clip_norm, rngs)

    monkeypatch.setattr("minitransformer.runs.trainer.train_step", noted)
    for seed in (3, 4):
        mt.Trainer(mt.RunSettings.of(TASK, {**TINY, "accumulate": 3, "dropout": 0.2}, seed)).run()
    assert len(drawn) == len(set(drawn)) == 2 * 13 * 3


def test_a_folder_changes_nothing_in_a_run(tmp_path):
    trainer = new_run(tmp_path / "run", dropout=0.2)
    trainer.run()
    alone = mt.Trainer(trainer.settings)
    alone.run()
    np.testing.assert_array_equal(alone.model.flatten().data, trainer.model.flatten().data)


def test_training_learns():
    """A small copy task, from guessing to all held-out sequences right."""
    task = Copy(n_symbols=6, min_length=3, max_length=3, epoch_size=500, test_size=50)
    settings = mt.RunSettings.of(
        task,
        {"n_layers": 1, "d_model": 32, "d_ff": 64, "max_len": 8, "steps": 400, "batch_tokens": 128}
        | {"warmup_steps": 40, "learning_rate": 1e-2, "evaluate_every": 50, "solved_at": 1.0},
    )
    trainer = mt.Trainer(settings)
    before = mt.evaluate(trainer.model, trainer.sets["test"])
    result = trainer.run()
    assert before["exact_match"] < 0.1
    assert result["exact_match"] >= 0.96
    assert trainer.state.ended and result["steps"] < 400


def test_training_ends_when_the_task_is_solved(tmp_path):
    trainer = new_run(tmp_path / "run", solved_at=0.0)  # which any model reaches, at the first look
    result = trainer.run()
    assert result["steps"] == trainer.step == trainer.optimizer.t == 5
    assert [record["step"] for record in trainer.folder.metrics()] == [2, 4, 5]
    again = resumed_run(tmp_path / "run")
    assert without_times(again.run()) == without_times(result)
    assert again.step == 5


def test_training_goes_on_while_the_task_is_not_solved(tmp_path):
    assert new_run(tmp_path / "run", solved_at=1.0).run()["steps"] == 13


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoints(tmp_path, bad):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 6)
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    trainer.model.parameters()["encoder.layers.0.feed_forward.W_2"].data[1, 2] = bad
    with pytest.raises(mt.MinitransformerError, match=r"step 7.*learning_rate"):
        trainer.run()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == files


# --- stop and continue ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Changes of the settings -> the folder of a run with them that nobody disturbed."""
    paths = {}

    def run(**changes):
        key = str(sorted(changes.items()))
        if key not in paths:
            paths[key] = tmp_path_factory.mktemp("uninterrupted") / "run"
            new_run(paths[key], **changes).run()
        return paths[key]

    return run


VARIANTS = [
    {},
    {"dropout": 0.3, "dropout_on": ("embedding", "residual", "attention", "relu")},
    {"accumulate": 2, "dropout": 0.1},
    {"dtype": "float64", "norm": "pre", "positions": "learned", "clip_norm": 0.5},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=["plain", "dropout", "accumulate", "float64"])
@pytest.mark.parametrize("stops", [[1], [3, 4], [5], [7, 10, 12], [13]], ids=str)
def test_a_run_that_was_stopped_continues_bit_for_bit(tmp_path, uninterrupted, changes, stops):
    """`stops`: before the first report, between reports, at an evaluation, several times, after the last step."""
    path = tmp_path / "run"
    trainer = new_run(path, **changes)
    for stop in stops:
        with pytest.raises(Interrupted):
            trainer.run(stop_requested=lambda trainer=trainer, stop=stop: trainer.step == stop)
        assert not (path / "result.json").exists()
        trainer = resumed_run(path)
        assert trainer.step == stop
    trainer.run()
    assert_same_outcome(path, uninterrupted(**changes))


def test_a_run_whose_data_have_changed_is_not_continued(tmp_path, monkeypatch):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 3)
    resumed_run(tmp_path / "run")
    pairs = Sort.training_pairs
    monkeypatch.setattr(Sort, "training_pairs", lambda *given: pairs(*given)[::-1])
    with pytest.raises(mt.CheckpointError, match="the sentence pairs that this run began with, got others"):
        resumed_run(tmp_path / "run")


def test_a_finished_run_resumes_to_the_same_result(tmp_path):
    first = new_run(tmp_path / "run").run()
    before = outcome(tmp_path / "run")
    again = resumed_run(tmp_path / "run").run()
    assert without_times(again) == without_times(first)
    assert outcome(tmp_path / "run") == before


class Killed(BaseException):
    """The end of a process, as far as a test can play it."""


def kill_at(monkeypatch, n):
    """Die at the n-th thing that touches the disk: before it, or half-way through where that can be."""
    left = [n]

    def mortal(operation, half=None):
        def wrapped(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0:
                if half is not None:
                    half(*arguments)
                raise Killed
            return operation(*arguments, **keywords)

        return wrapped

    def half_a_line(folder, record):
        with open(folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record)[: 5 + 7 * record["step"]])

    monkeypatch.setattr(os, "fsync", mortal(os.fsync))
    monkeypatch.setattr(os, "replace", mortal(os.replace))
    monkeypatch.setattr(pathlib.Path, "unlink", mortal(pathlib.Path.unlink))
    monkeypatch.setattr(mt.RunFolder, "log", mortal(mt.RunFolder.log, half_a_line))
    return left


def test_a_run_killed_at_any_write_continues_bit_for_bit(tmp_path, uninterrupted):
    changes = {"steps": 11, "evaluate_every": 4, "log_every": 3}
    reference = uninterrupted(**changes)
    expected = ["3", "4", "6", "8", "9", "11"]
    wrong = []
    n, finished = 0, False
    while not finished:
        n += 1
        path = tmp_path / f"killed at {n}"
        trainer = new_run(path, **changes)
        with pytest.MonkeyPatch.context() as monkeypatch:
            left = kill_at(monkeypatch, n)
            try:
                trainer.run()
                finished = True
            except Killed:
                pass
        assert finished == (left[0] > 0)
        begun = mt.RunFolder(path).exists()  # else there is nothing yet to lose, and nothing in the way
        (resumed_run(path) if begun else new_run(path, **changes)).run()
        steps = re.findall(r'"step": (\d+)', (path / "metrics.jsonl").read_text())
        if steps != expected or outcome(path) != outcome(reference):
            wrong.append(f"killed at write {n}: metrics {steps}")
    assert n > 15
    assert wrong == []


def test_a_run_killed_while_it_resumes_continues_bit_for_bit(tmp_path, uninterrupted):
    changes = {"dropout": 0.1}
    for n in range(1, 30):
        path = tmp_path / str(n)
        trainer = new_run(path, **changes)
        with pytest.raises(Interrupted):
            trainer.run(stop_requested=lambda trainer=trainer: trainer.step == 7)
        with pytest.MonkeyPatch.context() as monkeypatch:
            kill_at(monkeypatch, n)
            try:
                resumed_run(path).run(stop_requested=lambda: True)
            except Killed:
                pass
            except Interrupted:
                break
        resumed_run(path).run()
        assert_same_outcome(path, uninterrupted(**changes))
    assert n > 1


def test_a_damaged_newest_checkpoint_is_refused_and_the_one_before_still_works(tmp_path, uninterrupted):
    path = tmp_path / "run"
    new_run(path).run()
    newest = mt.RunFolder(path).checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    metrics = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(mt.CheckpointError, match=r"00000013\.npz.*move it away"):
        resumed_run(path)
    assert (path / "metrics.jsonl").read_bytes() == metrics
    newest.unlink()  # what the message says
    trainer = resumed_run(path)
    assert trainer.step == 10
    trainer.run()
    assert_same_outcome(path, uninterrupted())


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


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (Sort(min_length=10, max_length=12, epoch_size=20, test_size=3), {}),  # TINY's max_len is 11
        (
            Reverse(max_length=5, longest=15, epoch_size=20, test_size=3),
            {},
        ),  # only the test of longer ones is too long
        (TASK, {"tgt_vocab_size": 7, "tie_embeddings": False}),
        (TASK, {"src_vocab_size": 7, "tie_embeddings": False}),
        (TASK, {"pad_id": 4}),  # a symbol of the task
    ],
    ids=["too long", "longer test set", "target vocabulary", "source vocabulary", "pad"],
)
def test_a_model_that_the_task_does_not_fit_is_refused_before_the_first_step(task, changes):
    with pytest.raises(mt.MinitransformerError):
        mt.Trainer(mt.RunSettings.of(task, {**TINY, **changes}))


# --- a process ------------------------------------------------------------------------------------------

SETTINGS = """
n_layers=1 d_model=8 n_heads=2 d_ff=12 max_len=12 dropout=0.1 steps=240 batch_tokens=66 warmup_steps=20 log_every=3
evaluate_every=20 solved_at=none epoch_size=50 test_size=5 n_symbols=6 min_length=4
""".split()  # noqa: SIM905


def start(*arguments):
    command = [sys.executable, "-m", "minitransformer", *map(str, arguments)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_until(process, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)  # between two looks


@pytest.fixture(scope="module")
def whole_process(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return path


def test_a_process_killed_twice_resumes_bit_for_bit(tmp_path, whole_process):
    path = tmp_path / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    wait_until(process, lambda: list(path.glob("checkpoint-*.npz")))
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (path / "result.json").exists()

    newest = mt.RunFolder(path).checkpoints()[-1].name
    process = start("train", "copy", "--out", path, "--resume")
    wait_until(process, lambda: max(p.name for p in path.glob("checkpoint-*.npz")) > newest)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    process = start("train", "copy", "--out", path, "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_resumes_bit_for_bit(tmp_path, whole_process, number):
    path = tmp_path / "run"
    process = start("train", "copy", "--out", path, "--seed", 5, "--set", *SETTINGS)
    wait_until(process, lambda: (path / "metrics.jsonl").exists())
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr and "--resume" in stderr
    _, meta = mt.RunFolder(path).load()
    assert 3 <= meta["step"] < 240

    process = start("train", "copy", "--out", path, "--resume")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert_same_outcome(path, whole_process)
