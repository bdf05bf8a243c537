"""One training step: what is added up, what is clipped, what each batch draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replica_cases import LOSS, model_and_batches, rngs

import minitransformer as mt
from minitransformer import parts
from minitransformer.training import make_batch


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


@pytest.mark.parametrize(
    ("batches", "rngs", "message"),
    [
        (lambda batch: [], None, "batches: expected a list of one or more, got []"),
        (lambda batch: batch, None, "batches: expected a list of one or more, got Batch"),
        (lambda batch: [batch, batch], [None], "rngs: expected one for each of 2 batches, got 1"),
    ],
)
def test_a_step_needs_batches_and_a_generator_for_each(batches, rngs, message):
    model = small_model(0)
    optimizer, batch = mt.Adam(model), make_batch([([3, 4], [5])])
    with pytest.raises(mt.InputError) as raised:
        mt.train_step(mt.Replicas(model), LOSS, optimizer, batches(batch), 0.01, rngs=rngs)
    assert str(raised.value).startswith(message) and optimizer.t == 0


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


def test_the_update_is_shared_by_threads_where_the_model_is_large(monkeypatch):
    """The same bits as without threads, in more than one."""
    results = []
    monkeypatch.setattr(parts, "NUMBERS", 100)  # this model is small
    used = []
    pool = parts.ThreadPoolExecutor
    monkeypatch.setattr(parts, "ThreadPoolExecutor", lambda n: used.append(n) or pool(n))
    for n_threads in (0, 3):
        model, batches = model_and_batches(2)
        replicas = mt.Replicas(model, 2)
        assert replicas.n_threads == 0
        replicas.n_threads = n_threads
        with replicas.processes():
            mt.train_step(replicas, LOSS, mt.Adam(model), batches, 0.1, 1.0, rngs(2))
        results.append(model.flatten().data.copy())
    np.testing.assert_array_equal(*results)
    assert used == [3, 3]  # for the sum of the gradients, and for the update


@pytest.mark.parametrize("clip_norm", [0, -1.0, np.nan, "1"])
def test_a_norm_that_no_gradient_can_have_is_refused(clip_norm):
    """A negative one would climb."""
    model, batches = model_and_batches(1)
    before = model.state_dict()
    with pytest.raises(
        mt.InputError, match="max_norm: expected a number above 0 that float32 can hold, or None"
    ):
        mt.train_step(mt.Replicas(model), LOSS, mt.Adam(model), batches, 0.1, clip_norm)
    assert all(np.array_equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_optimizer_of_another_model_is_refused():
    """Its step would move the other model, and this one would never learn."""
    (model, batches), (other, _) = model_and_batches(1), model_and_batches(1)
    with pytest.raises(mt.InputError, match="optimizer: expected one of the replicas' model"):
        mt.train_step(mt.Replicas(model), LOSS, mt.Adam(other), batches, 0.1)
