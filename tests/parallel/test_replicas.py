"""Replicas that share the weights: the same numbers as one model, whoever is faster."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from messages import message_of
from one_stack_cases import random_model as one_stack_model
from replica_cases import LOSS, model_and_batches, rngs
from support import V_SRC, randomise, tiny_config

import minitransformer as mt
from minitransformer import parts
from minitransformer.inference.translation import decode
from minitransformer.layers import attention_in_blocks
from minitransformer.parallel import default_processes
from minitransformer.training.batching import aligned_batch, joined_batch


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


@pytest.mark.parametrize("several", [False, True])
def test_each_generator_goes_on_where_its_own_batch_has_left_it(several):
    """Five batches for two replicas: they have three and two."""
    model, batches = model_and_batches(5)
    alone, drawn = rngs(5), rngs(5)
    mt.Replicas(model).loss_and_gradients(LOSS, batches, alone)
    replicas = mt.Replicas(model, 2)
    with replicas.processes() if several else nullcontext():
        replicas.loss_and_gradients(LOSS, batches, drawn)
    assert (
        [rng.random() for rng in drawn]
        == [rng.random() for rng in alone]
        != [rng.random() for rng in rngs(5)]
    )


@pytest.mark.parametrize("several", [False, True])
def test_a_replica_without_work_adds_nothing_of_an_earlier_step(several):
    model, batches = model_and_batches(3)
    alone, _ = model_and_batches(0)
    mt.Replicas(alone).loss_and_gradients(LOSS, batches[:1], rngs(1))
    replicas = mt.Replicas(model, 3)
    with replicas.processes() if several else nullcontext():
        replicas.loss_and_gradients(LOSS, batches, rngs(3))
        replicas.loss_and_gradients(LOSS, batches[:1], rngs(1))
    np.testing.assert_array_equal(model.flatten().grad, alone.flatten().grad)


def test_the_result_does_not_depend_on_which_process_is_faster(monkeypatch):
    gradient, grads = mt.Replicas._gradient, []
    for slower in range(3):  # three, because a + b is b + a to the last bit

        def wait(self, i, *args, slower=slower):
            time.sleep(0.2 if i == slower else 0)
            return gradient(self, i, *args)

        monkeypatch.setattr(mt.Replicas, "_gradient", wait)
        model, batches = model_and_batches(3)
        replicas = mt.Replicas(model, 3)
        with replicas.processes():
            replicas.loss_and_gradients(LOSS, batches, rngs(3))
        grads.append(model.flatten().grad.copy())
    for other in grads[1:]:
        np.testing.assert_array_equal(grads[0], other)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_replicas_decode_what_the_model_decodes(n):
    rng = np.random.default_rng(2)
    model = randomise(mt.Transformer(tiny_config()), rng)
    sources = [rng.integers(3, V_SRC, rng.integers(1, 7)).tolist() for _ in range(8)]
    replicas = mt.Replicas(model, n)
    with replicas.processes():
        assert replicas.in_shares(decode, sources) == decode(model, sources)


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


def test_the_memory_of_all_processes_is_counted_while_they_run(monkeypatch):
    counted = []
    monkeypatch.setattr(
        "minitransformer.parallel.replicas.peak_memory_mb", lambda pids: counted.append(list(pids))
    )
    replicas = mt.Replicas(model_and_batches(0)[0], 3)
    replicas.peak_memory_mb()
    with replicas.processes():
        replicas.peak_memory_mb()
        children = {process.pid for process in multiprocessing.active_children()}
    replicas.peak_memory_mb()
    assert counted[0] == counted[2] == [] and len(counted[1]) == 2 and set(counted[1]) <= children


class Recorded:
    """Stands in for Processes: who was asked to run, and whether all have ended."""

    made: ClassVar[list] = []

    def __init__(self, target, n):
        self.n, self.ended = n, False
        self.made.append(self)

    def close(self):
        self.ended = True


@pytest.mark.parametrize(
    ("n", "can_fork", "own_cores", "cores", "processes", "threads"),
    [
        (1, True, 4, 4, [], []),  # all cores for the products of one process
        (1, True, 2, 4, [], [2]),  # the other cores belong to other ranks
        (2, True, 4, 4, [2], [1]),
        (3, True, 4, 4, [3], [1]),
        (2, True, 1, 1, [2], [1]),
        (3, False, 4, 4, [], []),
        (3, False, 2, 4, [], [2]),
    ],
)
def test_each_process_has_one_thread_for_its_products_and_a_single_one_all_of_its_ranks_cores(
    monkeypatch, n, can_fork, own_cores, cores, processes, threads
):
    name, limits = "minitransformer.parallel.replicas", []
    model, _ = model_and_batches(0)
    replicas = mt.Replicas(model, n, ranks=SimpleNamespace(rank=0, n=1, n_cores=own_cores))
    weights = model.flatten().data
    monkeypatch.setattr(f"{name}.can_fork", lambda x: x is weights and can_fork)
    monkeypatch.setattr(f"{name}.n_cores", lambda: cores)
    monkeypatch.setattr(f"{name}.blas_threads", lambda n: limits.append(n) or nullcontext())
    monkeypatch.setattr(f"{name}.Processes", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    with replicas.processes():
        assert [made.n for made in Recorded.made] == processes and limits == threads
        assert not any(made.ended for made in Recorded.made)
        assert (replicas._processes is not None) == bool(processes)
    assert all(made.ended for made in Recorded.made) and replicas._processes is None


def test_a_model_alone_stays_where_it_is_in_memory():
    model, _ = model_and_batches(0)
    data = model.flatten().data
    mt.Replicas(model, 1)
    assert model.flatten().data is data
    mt.Replicas(model, 2)
    assert model.flatten().data is not data  # but in memory that processes share


@pytest.mark.parametrize(
    ("gpu", "parameters", "threads", "gradient"),
    [
        (False, 1 << 22, 0, False),
        (False, (1 << 22) + 1, 4, False),
        (False, (1 << 25) + 1, 4, True),
        (True, 1 << 26, 0, False),
    ],
)
def test_threads_share_the_arrays_of_a_large_model(monkeypatch, gpu, parameters, threads, gradient):
    model, _ = model_and_batches(0)
    weights = model.flatten().data
    monkeypatch.setattr("minitransformer.parallel.replicas.on_gpu", lambda x: x is weights and gpu)
    monkeypatch.setattr(model, "n_parameters", lambda: parameters)
    replicas = mt.Replicas(model, ranks=SimpleNamespace(rank=0, n=1, n_cores=4))
    assert (replicas.n_threads, replicas.threads_find_gradient) == (threads, gradient)


def test_a_training_step_has_the_same_bits_on_any_number_of_threads(monkeypatch):
    """And in processes. The arrays are small enough for a test; what threads share is the same for large ones."""
    monkeypatch.setattr(parts, "NUMBERS", 100)
    monkeypatch.setattr(parts, "ROWS", 4)
    monkeypatch.setattr(attention_in_blocks, "BLOCK", 60)
    monkeypatch.setattr(attention_in_blocks, "QUERIES", 2)
    found = []
    for n, forked in ((1, False), (2, False), (8, False), (2, True)):
        monkeypatch.setattr("minitransformer.parallel.replicas.can_fork", lambda x, forked=forked: forked)
        model, batches = model_and_batches(2, dropout=0.25)
        replicas = mt.Replicas(model, 2)
        optimizer = mt.Adam(model)
        replicas.n_threads, replicas.threads_find_gradient = n, True
        with replicas.processes():
            losses = [mt.train_step(replicas, LOSS, optimizer, batches, 0.01, 1.0, rngs(2)) for _ in range(2)]
        found.append((losses, model.flatten().data.copy()))
    for losses, weights in found[1:]:
        assert losses == found[0][0]
        np.testing.assert_array_equal(weights, found[0][1])


def test_a_model_that_has_changed_since_is_refused():
    model, batches = model_and_batches(1)
    replicas = mt.Replicas(model)
    model.more = mt.Parameter(np.zeros(3))
    assert message_of(mt.InputError, replicas.loss_and_gradients, LOSS, batches, rngs(1)) == (
        "Replicas: expected the model that it was made for, but more is new; make a new one"
    )


def test_buffers_are_looked_up_once_while_processes_run():
    model, _ = model_and_batches(0)
    replicas = mt.Replicas(model, 2)
    with replicas.processes():
        assert replicas.buffers() is replicas.buffers() and len(replicas.buffers()) == 2
    assert replicas.buffers() is not replicas.buffers()


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_threads_share_the_work_unless_several_processes_do(monkeypatch, forked, gradient):
    """The update is theirs in any case: the other processes wait."""
    used, (model, batches) = [], model_and_batches(2)
    name = "minitransformer.parallel.replicas"
    monkeypatch.setattr(f"{name}.on_threads", lambda n: used.append(n) or nullcontext())
    monkeypatch.setattr(f"{name}.can_fork", lambda x: forked)
    replicas = mt.Replicas(model, 2)
    replicas.n_threads, replicas.threads_find_gradient = 3, gradient
    with replicas.processes():
        mt.train_step(replicas, LOSS, mt.Adam(model), batches, 0.01, None, rngs(2))
    of_gradient = [1] if forked else [3, 3]  # the other process has a list of its own
    assert used == [*(of_gradient if gradient else []), 3, 3]  # then the sum of the gradients, and the update


def test_a_generator_too_few_is_refused():
    model, batches = model_and_batches(2)
    with pytest.raises(ValueError, match="zip"):
        mt.Replicas(model).loss_and_gradients(LOSS, batches, rngs(1))


@pytest.mark.parametrize("n", [1, 2])
def test_without_batches_the_loss_is_an_array_scalar_all_the_same(n):
    model, _ = model_and_batches(0)
    loss = mt.Replicas(model, n).loss_and_gradients(LOSS, [], [])
    assert loss.dtype == "float64" and loss.shape == () and loss == 0 and not model.flatten().grad.any()


@pytest.mark.parametrize("keep", ["caches", "inputs"])
def test_forward_keeps_what_the_replicas_were_told_to_keep(monkeypatch, keep):
    model, batches = model_and_batches(1)
    forward, kept = model.forward, []
    monkeypatch.setattr(
        model, "forward", lambda src, tgt, rng, keep: kept.append(keep) or forward(src, tgt, rng, keep)
    )
    mt.Replicas(model, 1, keep).loss_and_gradients(LOSS, batches, rngs(1))
    assert kept == [keep]


def test_a_replica_without_items_is_not_asked():
    def answers(model, items, more):
        assert items
        return [(item, more) for item in items]

    replicas = mt.Replicas(model_and_batches(0)[0], 3)
    assert replicas.in_shares(answers, "ab", 7) == [("a", 7), ("b", 7)]


def test_ranks_with_other_numbers_of_replicas_are_noticed():
    """Each rank takes the others to have as many as itself."""

    class Ranks(SimpleNamespace):
        def objects(self, mine):
            return [mine, [*mine, []]]

    replicas = mt.Replicas(model_and_batches(0)[0], ranks=Ranks(rank=0, n=2, n_cores=1))
    with pytest.raises(ValueError, match="zip"):
        replicas.in_shares(lambda model, items: list(items), "ab")


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


def test_the_number_of_processes_is_whole_and_bounded_by_the_cores_given(monkeypatch):
    model = mt.Transformer(tiny_config(d_model=64, d_k=4, d_v=4))
    weights, tokens = model.flatten().data, 2 * 2**14 // 64 + 200
    monkeypatch.setattr("minitransformer.parallel.replicas.n_cores", lambda: 4)
    monkeypatch.setattr("minitransformer.parallel.replicas.can_fork", lambda x: x is weights)
    assert [default_processes(model, tokens, cores) for cores in (None, 1, 2, 3)] == [2, 1, 2, 2]
    assert default_processes(model, 100 * tokens) == 4
    for most, expected in ((weights.size, 2), (weights.size - 1, 1)):
        monkeypatch.setattr("minitransformer.parallel.replicas.GRADIENTS", most)
        assert default_processes(model, tokens) == expected


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "move",
    [
        lambda model: mt.clip_grad_norm(model.encoder, 1.0),
        lambda model: mt.Adam(model.decoder),
        lambda model: model.share(),
        lambda model: mt.Replicas(model, 2),
    ],
    ids=["a norm of a part", "an optimizer of a part", "other memory", "other replicas"],
)
def test_replicas_notice_that_their_weights_have_moved(move, inside):
    """Otherwise the replicas would go on with the weights of the step before."""
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    with replicas.processes() if inside else nullcontext():
        replicas.loss_and_gradients(LOSS, batches, [None, None])
        move(model)
        with pytest.raises(
            mt.InputError, match=r"^Replicas: expected the weights where they were, .*; make new ones$"
        ):
            replicas.loss_and_gradients(LOSS, batches, [None, None])


# ---- models of one stack


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
@pytest.mark.parametrize("n", [2, 3])
def test_replicas_of_one_stack_find_its_gradient_and_its_answers(family, n):
    """Batches of other sizes, with dropout, in processes of their own; then what each family answers."""
    make_batch = {"encoder-only": aligned_batch, "decoder-only": joined_batch}[family]
    rng, found = np.random.default_rng(3), []
    pairs = [
        (rng.integers(3, 13, k).tolist(), rng.integers(3, 13, k).tolist()) for k in (1, 6, 2, 4, 7, 3, 3, 5)
    ]
    batches = [make_batch(pairs[:2]), make_batch(pairs[2:5]), make_batch(pairs[5:])]
    for replicas in (mt.Replicas(one_stack_model(family, 3, dropout=0.3), m) for m in (1, n)):
        with replicas.processes() if len(replicas.models) > 1 else nullcontext():
            loss = replicas.loss_and_gradients(LOSS, batches, rngs(3))
            answers = replicas.in_shares(decode, [source for source, _ in pairs])
        found.append((loss, replicas.models[0].flatten().grad.copy(), answers))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-13) and found[1][2] == found[0][2]
    expected = found[0][1]
    assert expected.any()
    np.testing.assert_allclose(found[1][1], expected, rtol=1e-11, atol=1e-14 * abs(expected).max())
