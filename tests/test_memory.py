"""The one flat buffer of all parameters."""

from __future__ import annotations

import numpy as np
import pytest
from replica_cases import model_and_batches
from small_models import Pair
from support import randomise

import minitransformer as mt


def test_flat_buffers_are_the_parameters():
    model = randomise(Pair(), np.random.default_rng(0))
    values = np.concatenate([p.data.ravel() for p in model.parameters().values()])
    grads = np.concatenate([p.grad.ravel() for p in model.parameters().values()])
    flat = model.flatten()
    np.testing.assert_array_equal(flat.data, values)
    np.testing.assert_array_equal(flat.grad, grads)
    flat.data[...] *= 2
    np.testing.assert_array_equal(
        np.concatenate([p.data.ravel() for p in model.parameters().values()]), 2 * values
    )
    assert model.flatten() is flat
    model.zero_grad()
    assert all((p.grad == 0).all() for p in model.parameters().values())


def test_flat_buffers_follow_a_parameter_that_moved():
    model = Pair()
    first = model.flatten()
    model.to(dtype="float64")
    second = model.flatten()
    assert second.data.dtype == np.float64 and second.data is not first.data
    second.data[...] = 7
    assert (model.second.b.data == 7).all()


def test_a_parameter_that_comes_later_is_zeroed_and_stepped_too():
    model = Pair()
    first = model.flatten()
    model.late = mt.Parameter(np.ones(3, np.float32))
    model.late.grad = np.full(3, 7)
    assert model.flatten().data.size == first.data.size + 3
    mt.Adam(model).step(0.1)
    assert (model.late.data < 1).all()
    model.zero_grad()
    assert (model.late.grad == 0).all()


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


class Twins(mt.Module):
    def __init__(self) -> None:
        self.one, self.two = mt.layers.Linear(3, 3, rng=1), mt.layers.Linear(3, 3, rng=2)


def change(model: Twins, how: str) -> None:
    if how == "a layer more":
        model.three = mt.layers.Linear(2, 2)
    elif how == "a layer less":
        del model.two
    elif how == "two layers in turn":
        model.one, model.two = model.two, model.one
    elif how == "another layer":
        model.two = mt.layers.Linear(3, 3)
    else:
        model.to(dtype="float64")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a layer more", r"three\.W is new"),
        ("a layer less", r"two\.W is not there any more"),
        ("two layers in turn", r"one\.W is another parameter now"),
        ("another layer", r"two\.W is another parameter now"),
        ("another dtype", r"it is float64 of shape .* now"),
    ],
)
def test_an_optimizer_notices_that_its_model_has_changed(how, said):
    model = Twins()
    optimizer = mt.Adam(model)
    optimizer.step(0.1)
    change(model, how)
    before = model.state_dict()
    with pytest.raises(
        mt.InputError, match=rf"^Adam: expected the model that it was made for, but {said}.*; make a new"
    ):
        optimizer.step(0.1)
    assert optimizer.t == 1
    for name, x in model.state_dict().items():
        np.testing.assert_array_equal(x, before[name])
    mt.Adam(model).step(0.1)


def test_an_optimizer_follows_a_model_that_was_only_moved():
    """As into memory that processes share."""
    model, twin = (randomise(Pair(), np.random.default_rng(0)) for _ in range(2))
    optimizers = [mt.Adam(m) for m in (model, twin)]
    model.share()
    for m, optimizer in zip((model, twin), optimizers, strict=True):
        for p in m.parameters().values():
            p.grad = np.ones(p.shape)
        optimizer.step(0.1)
    np.testing.assert_array_equal(model.flatten().data, twin.flatten().data)


def test_replicas_notice_that_their_model_has_changed():
    model, batches = model_and_batches(2)
    replicas = mt.Replicas(model, 2)
    model.more = mt.layers.Linear(2, 2, dtype="float64")
    with pytest.raises(
        mt.InputError, match=r"^Replicas: expected the model that it was made for, but more\.W is new"
    ):
        replicas.loss_and_gradients(mt.LabelSmoothedCrossEntropy(), batches, [None] * len(batches))
