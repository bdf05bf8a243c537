"""Processes that share the weights: the same numbers as one, whoever is faster, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from support import V_SRC, V_TGT, randomise, tiny_config

import minitransformer as mt
from minitransformer import parts, system
from minitransformer.inference.translation import decode
from minitransformer.parallel import default_processes
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
    with replicas.processes():
        loss = replicas.loss_and_gradients(LOSS, batches, rngs(5))
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    expected = alone.flatten().grad
    np.testing.assert_allclose(model.flatten().grad, expected, rtol=1e-11, atol=1e-14 * abs(expected).max())


def test_processes_give_the_same_bits_as_the_same_replicas_in_one():
    """Step after step, with dropout: what a helper draws is drawn here, too."""
    results = []
    for several in (False, True, True):
        model, batches = model_and_batches(4)
        replicas, optimizer, drawn = mt.Replicas(model, 2), mt.Adam(model), rngs(4)
        with replicas.processes() if several else nullcontext():
            losses = [mt.train_step(replicas, LOSS, optimizer, batches, 0.1, 1.0, drawn) for _ in range(3)]
        assert len({loss for loss, _ in losses}) == 3
        results.append((losses, model.flatten().data.copy(), [rng.random() for rng in drawn]))
    for losses, weights, random_numbers in results[1:]:
        assert losses == results[0][0] and random_numbers == results[0][2]
        np.testing.assert_array_equal(weights, results[0][1])


def test_each_replica_has_a_process_of_its_own(monkeypatch):
    """The first this one, the other a fork, which ends with the block."""
    monkeypatch.setattr(mt.Replicas, "_pid", lambda self, i: os.getpid(), raising=False)
    replicas = mt.Replicas(model_and_batches(0)[0], 3)
    assert replicas._each("_pid", [()] * 3) == [os.getpid()] * 3
    with replicas.processes():
        here, *forks = replicas._each("_pid", [()] * 3)
        assert here == os.getpid() and len({here, *forks}) == 3
        assert forks == replicas._processes.pids
        assert replicas.peak_memory_mb() > system.peak_memory_mb()
    for pid in forks:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_the_result_does_not_depend_on_which_process_is_faster(monkeypatch):
    gradient, grads = mt.Replicas._gradient, []
    for slower in (0, 1):

        def wait(self, i, *args, slower=slower):
            time.sleep(0.2 if i == slower else 0)
            return gradient(self, i, *args)

        monkeypatch.setattr(mt.Replicas, "_gradient", wait)
        model, batches = model_and_batches(2)
        replicas = mt.Replicas(model, 2)
        with replicas.processes():
            replicas.loss_and_gradients(LOSS, batches, rngs(2))
        grads.append(model.flatten().grad.copy())
    np.testing.assert_array_equal(grads[0], grads[1])


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_in_a_process_is_raised_here_and_the_others_go_on(which):
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    wrong = batches[which]._replace(src_ids=batches[which].src_ids + 1000)
    with replicas.processes():
        expected = replicas.loss_and_gradients(LOSS, batches, rngs(2))
        with pytest.raises(mt.InputError, match="src_ids: expected ids"):
            replicas.loss_and_gradients(
                LOSS, [wrong if i == which else batches[i] for i in range(2)], rngs(2)
            )
        assert replicas.loss_and_gradients(LOSS, batches, rngs(2)) == expected


def test_a_process_that_was_killed_is_noticed():
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    with replicas.processes():
        os.kill(replicas._processes.pids[0], signal.SIGKILL)
        with pytest.raises(mt.errors.MinitransformerError, match="a worker process has died"):
            for _ in range(2):
                replicas.loss_and_gradients(LOSS, batches, rngs(2))


def test_processes_end_with_a_program_that_does_not_close_them(tmp_path):
    """And a Ctrl-C, which the terminal sends to all of them, is the first one's to answer."""
    script = tmp_path / "program.py"
    script.write_text(
        "import os, signal, time, minitransformer as mt\n"
        "from minitransformer.runs.evaluation import decode\n"
        "from minitransformer.parallel.processes import Processes\n"
        "serve = Processes._serve\n"
        "Processes._serve = lambda *given: (time.sleep(1), serve(*given))\n"  # the signal comes before a fork is ready
        "model = mt.Transformer(mt.TransformerConfig.preset('toy', 11))\n"
        "replicas = mt.Replicas(model, 2)\n"
        "block = replicas.processes()\n"
        "block.__enter__()\n"
        "time.sleep(0.2)\n"
        "os.kill(replicas._processes.pids[0], signal.SIGINT)\n"
        "print(replicas.in_shares(decode, [[3, 4], [5]]) != [], replicas._processes.pids[0])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    answered, pid = done.stdout.split()
    assert answered == "True"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_replicas_decode_what_the_model_decodes(n):
    rng = np.random.default_rng(2)
    model = randomise(mt.Transformer(tiny_config()), rng)
    sources = [rng.integers(3, V_SRC, rng.integers(1, 7)).tolist() for _ in range(8)]
    replicas = mt.Replicas(model, n)
    with replicas.processes():
        assert replicas.in_shares(decode, sources) == decode(model, sources)


def test_without_threadpoolctl_or_a_fork_all_work_stays_in_this_process(monkeypatch):
    for there, platform in ((None, "linux"), (object(), "darwin"), (object(), "win32")):
        monkeypatch.setattr(system, "find_spec", lambda name, there=there: there)
        monkeypatch.setattr(system.sys, "platform", platform)
        assert not system.can_fork()
        replicas = mt.Replicas(model_and_batches(0)[0], 2)
        with replicas.processes():
            assert replicas._processes is None
    monkeypatch.setattr(system.sys, "platform", "linux")
    assert system.can_fork()
    monkeypatch.setattr(
        system.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True)
    )  # a worker of a Pool
    assert not system.can_fork()


def test_memory_is_not_known_where_the_system_does_not_say():
    assert system.peak_memory_mb() > 10
    assert system.peak_memory_mb([2**22 + 1]) is None  # no such process


def test_a_run_is_a_function_of_its_seed_and_not_of_processes_being_available(monkeypatch):
    settings = {
        "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 12, "max_len": 12, "dropout": 0.2, "steps": 9,
        "batch_tokens": 44, "warmup_steps": 2, "accumulate": 2, "processes": 2,
    }  # fmt: skip
    task = mt.tasks.Copy(n_symbols=6, min_length=2, max_length=5, epoch_size=30, test_size=3)
    weights = []
    for available in (True, True, False):
        monkeypatch.setattr(
            "minitransformer.parallel.replicas.can_fork", lambda x, available=available: available
        )
        trainer = mt.Trainer(mt.RunSettings.of(task, settings, seed=3))
        trainer.run(mt.runs.Progress(9, quiet=True))
        weights.append(trainer.model.flatten().data.copy())
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights[0], weights[2])


def test_recomputing_in_training_changes_no_bit_of_the_gradients():
    found = []
    for keep in ("caches", "inputs"):
        model, batches = model_and_batches(3)
        replicas = mt.Replicas(model, 2, keep)
        with replicas.processes():
            loss = replicas.loss_and_gradients(LOSS, batches, rngs(3))
        found.append((loss, model.flatten().grad.copy()))
    assert found[0][0] == found[1][0] and abs(found[0][1]).max() > 0
    np.testing.assert_array_equal(found[0][1], found[1][1])
    task = mt.tasks.Copy(test_size=3)
    for recompute, keep in ((False, "caches"), (True, "inputs")):
        assert mt.Trainer(mt.RunSettings.of(task, {"recompute": recompute})).replicas.keep == keep


# ---- how many processes


@pytest.mark.parametrize(
    ("d_model", "tokens", "most_parameters", "cores", "expected"),
    [
        (64, 768, None, 2, 2),
        (64, 200, None, 2, 1),  # processes would wait for each other
        (64, 768, None, 64, 3),  # 2^14 numbers for each
        (256, 1, None, 4, 1),
        (256, 10**6, 10**4, 4, 1),  # another gradient would take too much memory
    ],
)
def test_as_many_processes_as_pay(monkeypatch, d_model, tokens, most_parameters, cores, expected):
    monkeypatch.setattr("minitransformer.parallel.replicas.n_cores", lambda: cores)
    monkeypatch.setattr("minitransformer.parallel.replicas.can_fork", lambda x: True)
    if most_parameters is not None:
        monkeypatch.setattr("minitransformer.parallel.replicas.GRADIENTS", most_parameters)
    model = mt.Transformer(tiny_config(d_model=d_model, d_k=4, d_v=4))
    assert default_processes(model, tokens) == expected
    monkeypatch.setattr("minitransformer.parallel.replicas.can_fork", lambda x: False)
    assert default_processes(model, tokens) == 1


def test_the_update_is_shared_by_threads_where_the_model_is_large(monkeypatch):
    """The same bits as without threads, in more than one."""
    results = []
    monkeypatch.setattr(parts, "NUMBERS", 100)  # this model is small
    used = []
    pool = parts.ThreadPoolExecutor
    monkeypatch.setattr(parts, "ThreadPoolExecutor", lambda n: used.append(n) or pool(n))
    for n_threads in (1, 3):
        model, batches = model_and_batches(2)
        replicas = mt.Replicas(model, 2)
        assert replicas.n_threads == 1
        replicas.n_threads = n_threads
        with replicas.processes():
            mt.train_step(replicas, LOSS, mt.Adam(model), batches, 0.1, 1.0, rngs(2))
        results.append(model.flatten().data.copy())
    np.testing.assert_array_equal(*results)
    assert used == [3, 3]  # for the sum of the gradients, and for the update
