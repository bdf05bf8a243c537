"""One training step: the gradients of all replicas on all ranks, their sum, and one update of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from minitransformer.backend import Generator, silent_overflow, sum_in_order, to_floats
from minitransformer.errors import InputError, describe
from minitransformer.parallel.replicas import Replicas
from minitransformer.parts import parts
from minitransformer.training.batching import AnyBatch, Batch, OneStackBatch
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam, scale_down, sum_of_squares
from minitransformer.validation.training import largest_norm


def train_step(
    replicas: Replicas,
    loss_fn: LabelSmoothedCrossEntropy,
    optimizer: Adam,
    batches: Sequence[AnyBatch],
    lr: float,
    clip_norm: float | None = None,
    rngs: Sequence[Generator | None] | None = None,
) -> tuple[float, float]:
    """Make one update from one or more batches; return the mean loss of their tokens, and the gradient's norm.

    `rngs` has a generator for the dropout of each batch; without them nothing is dropped. All ranks pass all the
    batches, and get the same answer. Raises InputError for an optimizer of another model, for no batches, and for a
    `clip_norm` that is not above 0.
    """
    if optimizer.model is not replicas.models[0]:
        raise InputError("optimizer: expected one of the replicas' model, got one of another model")
    if not batches or isinstance(batches, Batch | OneStackBatch):
        raise InputError(f"batches: expected a list of one or more, got {describe(batches)}")
    if rngs and len(rngs) != len(batches):
        raise InputError(f"rngs: expected one for each of {len(batches)} batches, got {len(rngs)}")
    largest_norm(optimizer.model, clip_norm)
    ranks, n = replicas.ranks, len(replicas.models)
    data, grad = replicas.buffers()[0]
    own = grad[ranks.share(grad.size)]
    loss = replicas.loss_and_gradients(loss_fn, batches, rngs or [None] * len(batches))
    # An overflow shows in the norm.
    with silent_overflow():
        ranks.reduce_scatter(grad)
        squares = [sum_of_squares(own[part]) for part in parts(own.size, n)]
        # the only line at which a step waits for a GPU
        found = ranks.numbers(*to_floats(loss, *squares))
        norm = math.sqrt(sum_in_order(chain.from_iterable(mine for _, *mine in found)))
        scale_down(own, norm, clip_norm)
        with replicas.threads():
            optimizer.step(lr)
        ranks.all_gather(data)
    return sum_in_order(loss for loss, *_ in found), norm
