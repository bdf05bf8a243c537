"""Threads that share the weights: the same numbers as one thread, whoever is faster."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest
from support import V_SRC, V_TGT, randomise, tiny_config

import minitransformer as mt
from minitransformer.training import make_batch

LOSS = mt.LabelSmoothedCrossEntropy(0.1)


def model_and_batches(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    model = randomise(mt.Transformer(tiny_config()), rng)
    batches = []
    for size in range(2, 2 + n):  # of different sizes and lengths
        pairs = [
            (
                rng.integers(3, V_SRC, rng.integers(1, 7)).tolist(),
                rng.integers(3, V_TGT, rng.integers(1, 9)).tolist(),
            )
            for _ in range(size)
        ]
        batches.append(make_batch(pairs))
    return model, batches


def rngs(n: int):
    return [np.random.default_rng([7, i]) for i in range(n)]


def test_a_replica_shares_weights_and_constants_but_not_gradients():
    model, _ = model_and_batches(0)
    replica = model.replica()
    before = model.flatten().grad.copy()
    assert list(replica.parameters()) == list(model.parameters())
    for ours, theirs in zip(model.parameters().values(), replica.parameters().values(), strict=True):
        assert ours is not theirs and np.shares_memory(ours.data, theirs.data)
        assert not np.shares_memory(ours.grad, theirs.grad)
    assert replica.src_embedding.positions.PE.data is model.src_embedding.positions.PE.data
    assert replica.tgt_embedding.embedding.E is replica.output.E  # tied weights stay tied
    replica.flatten().grad[...] = 5
    np.testing.assert_array_equal(model.flatten().grad, before)
    assert all((p.grad == 5).all() for p in replica.parameters().values())
    model.flatten().data[...] = 3
    assert all((p.data == 3).all() for p in replica.parameters().values())


@pytest.mark.parametrize("n", [1, 2, 3])
def test_replicas_find_the_gradient_of_one_model(n):
    model, batches = model_and_batches(5)
    alone, _ = model_and_batches(0)
    expected_loss = mt.Replicas(alone).loss_and_gradients(LOSS, batches, rngs(5))
    replicas = mt.Replicas(model, n)
    with replicas.threads():
        loss = replicas.loss_and_gradients(LOSS, batches, rngs(5))
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    expected = alone.flatten().grad
    np.testing.assert_allclose(model.flatten().grad, expected, rtol=1e-11, atol=1e-14 * abs(expected).max())


def test_threads_give_the_same_bits_as_the_same_replicas_without_threads():
    results = []
    for threaded in (False, True, True):
        model, batches = model_and_batches(4)
        replicas = mt.Replicas(model, 2)
        if threaded:
            with replicas.threads():
                loss = replicas.loss_and_gradients(LOSS, batches, rngs(4))
        else:
            loss = replicas.loss_and_gradients(LOSS, batches, rngs(4))
        results.append((loss, model.flatten().grad.copy()))
    for loss, grad in results[1:]:
        assert loss == results[0][0]
        np.testing.assert_array_equal(grad, results[0][1])


def test_the_result_does_not_depend_on_which_thread_is_faster(monkeypatch):
    """Either replica has to wait until the other has gone forward; the sums keep their order."""
    forward = mt.Transformer.forward
    grads = []
    for last in (0, 1):
        model, batches = model_and_batches(2)
        replicas = mt.Replicas(model, 2)
        threads, first_is_done = set(), threading.Event()

        def one_after_the_other(self, *args, last=replicas.models[last], done=first_is_done, threads=threads):
            threads.add(threading.current_thread())
            assert self is not last or done.wait(timeout=60)
            result = forward(self, *args)
            done.set()
            return result

        monkeypatch.setattr(mt.Transformer, "forward", one_after_the_other)
        with replicas.threads():
            replicas.loss_and_gradients(LOSS, batches, rngs(2))
        assert first_is_done.is_set() and threading.main_thread() not in threads
        grads.append(model.flatten().grad.copy())
    np.testing.assert_array_equal(grads[0], grads[1])


def test_without_threadpoolctl_all_work_stays_in_this_thread(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    replicas = mt.Replicas(model_and_batches(0)[0], 2)
    with replicas.threads():
        assert (
            list(replicas.map(lambda _: threading.current_thread(), range(3)))
            == [threading.main_thread()] * 3
        )


def test_a_run_in_threads_is_a_function_of_its_seed_and_not_of_threads_being_available(monkeypatch):
    settings = {
        "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 12, "max_len": 12, "dropout": 0.2, "steps": 9,
        "batch_tokens": 44, "warmup_steps": 2, "accumulate": 2, "threads": 2,
    }  # fmt: skip
    task = mt.tasks.Copy(n_symbols=6, min_length=2, max_length=5, epoch_size=30, test_size=3)
    weights = []
    for available in (True, True, False):
        if not available:
            monkeypatch.setitem(sys.modules, "threadpoolctl", None)
        trainer = mt.Trainer(mt.RunSettings.of(task, settings, seed=3))
        trainer.run(mt.training.progress.Progress(9, quiet=True))
        weights.append(trainer.model.flatten().data.copy())
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])


def test_recomputing_in_training_changes_no_bit_of_the_gradients():
    found = []
    for keep in ("caches", "inputs"):
        model, batches = model_and_batches(3)
        replicas = mt.Replicas(model, 2, keep)
        with replicas.threads():
            loss = replicas.loss_and_gradients(LOSS, batches, rngs(3))
        found.append((loss, model.flatten().grad.copy()))
    assert found[0][0] == found[1][0] and abs(found[0][1]).max() > 0
    np.testing.assert_array_equal(found[0][1], found[1][1])
    task = mt.tasks.Copy(test_size=3)
    for recompute, keep in ((False, "caches"), (True, "inputs")):
        assert mt.Trainer(mt.RunSettings.of(task, {"recompute": recompute})).replicas.keep == keep
