"""The training loop: what a run reports, and that it may stop anywhere and continue as if it had not."""

import copy
import json
import os
import pathlib
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import rank_program
from training_runs import (
    ONE_STACK,
    TASK,
    TINY,
    assert_same_outcome,
    new_run,
    one_stack_run,
    outcome,
    resumed_run,
    without_times,
)

import minitransformer as mt
from minitransformer.runs.interrupt import Interrupted
from minitransformer.tasks import Chars, Copy, Reverse, Sort

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
        assert ("cross_attention" in record) == ("valid" in record)
        assert 0 < record.get("cross_attention", 0.5) < 1
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


@dataclass(frozen=True)
class Hard(Sort):
    """Sort with a second held-out set that is not called "test"."""

    name: ClassVar[str] = "hard"

    def evaluation_sets(self, rng):
        sets = super().evaluation_sets(rng)
        return {"valid": sets["valid"], "hard": sets["test"][:3]}


def test_a_folder_may_be_given_by_its_path(tmp_path):
    settings = mt.RunSettings.of(TASK, TINY, 3)
    for path in (tmp_path / "a", str(tmp_path / "b")):
        mt.Trainer(settings, path).run()
        assert len(mt.RunFolder(path).checkpoints()) == 2


def test_without_a_test_set_the_figures_of_a_run_are_those_of_the_validation_set(tmp_path):
    trainer = new_run(
        tmp_path / "run", task=Hard(n_symbols=7, min_length=2, max_length=5, epoch_size=23, test_size=4)
    )
    result = trainer.run()
    assert set(result["sets"]) == {"hard"} and result["sets"]["hard"]["n"] == 3
    assert result["loss"] == trainer.folder.metrics()[-1]["valid"]["loss"]


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
    {"dtype": "float64", "norm": "pre", "positions": "learned", "clip_norm": 0.5, "weight_decay": 0.3},
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


def test_a_run_has_the_weight_decay_of_its_settings(tmp_path):
    assert new_run(tmp_path / "run", weight_decay=0.3).optimizer.weight_decay == 0.3
    assert new_run(tmp_path / "other").optimizer.weight_decay == 0


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


def test_fewer_cores_and_much_memory_are_no_reason_for_more_replicas(monkeypatch):
    """A large model that was begun on many ranks goes on in as many replicas as this machine is good for."""
    settings = mt.RunSettings.of(rank_program.TASK, {**rank_program.SETTINGS, "processes": 64})
    assert len(mt.Trainer(settings).replicas.models) == 64  # small: as it was begun, bit for bit
    monkeypatch.setattr("minitransformer.runs.trainer.GRADIENTS", 10)
    trainer = mt.Trainer(settings)
    assert len(trainer.replicas.models) == trainer.ranks.n_cores < 64
    assert trainer.settings.training.processes == 64


# --- models of one stack ----------------------------------------------------------------------------------

REGULARISED = {
    "dropout": 0.3, "dropout_on": ("embedding", "residual", "attention", "relu"), "accumulate": 2, "processes": 2,
    "weight_decay": 0.3, "clip_norm": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("kind", ONE_STACK)
def test_a_run_of_one_stack_that_was_stopped_continues_bit_for_bit(tmp_path, kind):
    for name in ("whole", "cut"):
        trainer = one_stack_run(tmp_path / name, kind, **REGULARISED)
        for stop in (4, 10) if name == "cut" else ():
            with pytest.raises(Interrupted):
                trainer.run(stop_requested=lambda trainer=trainer, stop=stop: trainer.step == stop)
            trainer = resumed_run(tmp_path / name)
            assert trainer.step == stop
        result = trainer.run()
    assert_same_outcome(tmp_path / "cut", tmp_path / "whole")
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {
        path.name for path in (tmp_path / "whole").iterdir()
    }
    folder = mt.RunFolder(tmp_path / "cut")
    model = mt.load_model(folder)
    assert type(model) is type(trainer.model)
    np.testing.assert_array_equal(model.flatten().data, trainer.model.flatten().data)
    assert ("exact_match" in result) == (kind != "chars")
    assert not any("cross_attention" in record for record in folder.metrics())


@pytest.mark.parametrize("kind", ONE_STACK)
def test_recomputed_layers_and_processes_move_no_weight_of_one_stack(tmp_path, monkeypatch, kind):
    """Two replicas, in this process and in one of their own; layers with their caches, and run again."""
    one_stack_run(tmp_path / "run", kind, **REGULARISED).run()
    one_stack_run(tmp_path / "recomputed", kind, **REGULARISED, recompute=True).run()
    monkeypatch.setattr("minitransformer.parallel.replicas.can_fork", lambda *x: False)
    one_stack_run(tmp_path / "alone", kind, **REGULARISED).run()
    for other in ("recomputed", "alone"):
        for got, expected in list(zip(outcome(tmp_path / other), outcome(tmp_path / "run"), strict=True))[
            ::2
        ]:
            assert got == expected  # weights, moments, metrics; not config's recompute


def learned(task, family, **changes):
    """Exact match on the validation set before training, and the result."""
    settings = {
        "family": family,
        "n_layers": 1,
        "d_model": 32,
        "d_ff": 64,
        "batch_tokens": 300,
        "processes": 1,
    }
    settings |= {"warmup_steps": 10, "learning_rate": 1e-2, "schedule": "cosine", "evaluate_every": 50}
    trainer = mt.Trainer(mt.RunSettings.of(task, {**settings, "max_len": 8, "solved_at": 0.9, **changes}))
    before = mt.evaluate(trainer.model, trainer.sets["valid"]).get("exact_match")
    return before, trainer.run()


def test_an_encoder_alone_learns():
    task = Sort(n_symbols=6, min_length=3, max_length=4, epoch_size=500, test_size=50)
    before, result = learned(task, "encoder-only", steps=120)
    assert before < 0.2 and result["exact_match"] > 0.4


def test_a_decoder_alone_learns():
    task = Copy(n_symbols=6, min_length=2, max_length=2, epoch_size=500, test_size=50)
    before, result = learned(task, "decoder-only", steps=150)
    assert before < 0.05 and result["exact_match"] > 0.2


def test_a_text_that_repeats_itself_is_learned_and_written_on(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat.\n" * 40)
    task = Chars(str(tmp_path / "text.txt"), block=16, epoch_size=100)
    settings = {"n_layers": 1, "d_model": 32, "d_ff": 64, "batch_tokens": 300, "max_len": 16, "processes": 1}
    settings |= {"steps": 100, "warmup_steps": 10, "learning_rate": 1e-2, "evaluate_every": 50}
    trainer = mt.Trainer(mt.RunSettings.of(task, settings))
    assert trainer.run()["loss"] < 0.3
    vocabulary, prompt = task.vocabulary, "the cat sat on"
    ids = mt.greedy_decode(trainer.model, [vocabulary.encode(prompt)], None, None, 3)[0]
    assert vocabulary.decode(ids.tolist()) == " th"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"family": "encoder-only", "pooling": "mean"},
            "pooling: expected 'none', for one a position, got 'mean'",
        ),
        (
            {"family": "encoder-only", "head": "none"},
            "head: expected one that gives logits, which the loss compares with, got 'none'",
        ),
        ({"family": "decoder-only"}, "max_len: expected at least 12 for the sequences of this task, got 11"),
    ],
)
def test_a_model_of_one_stack_that_does_not_fit_is_refused_before_there_is_a_folder(
    tmp_path, changes, message
):
    with pytest.raises(mt.ConfigError) as raised:
        new_run(tmp_path / "run", **changes).run()
    assert str(raised.value) == message and not (tmp_path / "run").exists()


@dataclass(frozen=True)
class Largest(Sort):
    """One answer to a sequence: its largest number."""

    name: ClassVar[str] = "largest"

    def answer(self, sequence):
        return sequence.max(keepdims=True)


def test_one_answer_to_a_sequence_needs_a_model_that_pools():
    task = Largest(n_symbols=4, min_length=3, max_length=5, epoch_size=300, test_size=40)
    with pytest.raises(mt.ConfigError) as raised:
        learned(task, "encoder-only")
    assert (
        str(raised.value) == "pooling: expected 'mean' or 'first', for one answer to a sequence, got 'none'"
    )
    _, result = learned(task, "encoder-only", pooling="first", steps=60)
    assert result["exact_match"] >= 0.8


def test_a_run_that_has_lost_its_checkpoints_is_not_begun_anew(tmp_path):
    new_run(tmp_path / "run").run()
    folder = mt.RunFolder(tmp_path / "run")
    for path in folder.checkpoints():
        path.unlink()
    trainer = mt.Trainer(folder.settings(), folder)
    with pytest.raises(mt.CheckpointError, match="no checkpoint is left of this run"):
        trainer.resume()
    assert folder.metrics()[-1]["step"] == 13 and (tmp_path / "run" / "best.npz").exists()


def test_a_signal_in_the_final_evaluation_ends_the_run_with_all_saved(tmp_path):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 13)
    assert len(mt.RunFolder(tmp_path / "run").checkpoints()) == 2
    asked = iter([False, True])
    ended = mt.Trainer(trainer.settings, trainer.folder)
    ended.resume()
    with pytest.raises(Interrupted):
        ended.run(stop_requested=lambda: next(asked, True) or True)
    assert not (tmp_path / "run" / "result.json").exists()


# --- settings reach the step ----------------------------------------------------------------------------


@pytest.fixture
def steps_taken(monkeypatch):
    """What each training step of a Trainer was given, and the norm that it found."""
    seen = []

    def noted(replicas, loss_fn, optimizer, batches, lr, clip_norm, rngs):
        loss, norm = mt.train_step(replicas, loss_fn, optimizer, batches, lr, clip_norm, rngs)
        seen.append((batches, clip_norm, norm))
        return loss, norm

    monkeypatch.setattr("minitransformer.runs.trainer.train_step", noted)
    return seen


def test_a_run_trains_with_its_settings(tmp_path):
    trainer = new_run(tmp_path / "run", beta1=0.8, beta2=0.95, adam_eps=1e-6, eps_ls=0.2)
    assert (trainer.optimizer.betas, trainer.optimizer.adam_eps) == ((0.8, 0.95), 1e-6)
    assert trainer.loss_fn.eps_ls == 0.2


def test_each_step_is_clipped_and_the_norm_in_a_report_is_that_of_its_step(tmp_path, steps_taken):
    trainer = new_run(tmp_path / "run", clip_norm=0.25)
    trainer.run()
    assert {clip_norm for _, clip_norm, _ in steps_taken} == {0.25}
    for record in trainer.folder.metrics():
        assert record["gradient_norm"] == steps_taken[record["step"] - 1][2]


def test_the_first_weights_are_those_of_the_seed():
    for seed in (3, 4):
        settings = mt.RunSettings.of(TASK, TINY, seed)
        expected = mt.Transformer(settings.model, seed).flatten().data
        np.testing.assert_array_equal(mt.Trainer(settings).model.flatten().data, expected)


@pytest.mark.parametrize(
    ("processes", "accumulate", "n"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (2, 2, 2), (3, 2, 4), (1, 3, 3)]
)
def test_each_process_has_a_part_of_a_batch(steps_taken, processes, accumulate, n):
    changes = {"processes": processes, "accumulate": accumulate, "steps": 1, "warmup_steps": 1}
    mt.Trainer(mt.RunSettings.of(TASK, {**TINY, **changes}, 3)).run()
    assert len(steps_taken[0][0]) == n


def test_a_resumed_run_goes_on_counting_its_seconds(tmp_path):
    trainer = new_run(tmp_path / "run")
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 7)
    arrays, meta = trainer.folder.load()
    trainer.folder.save(7, arrays, {**meta, "seconds": 1e5})
    result = resumed_run(tmp_path / "run").run()
    assert result["seconds"] > 1e5 and trainer.folder.load()[1]["seconds"] > 1e5
    assert trainer.folder.metrics()[-1]["seconds"] > 1e5
