"""Several threads, one model: data parallelism inside a process.

A replica is a copy of the model that shares its weights and adds up gradients of its own. Each thread takes its
share of the batches of a step through its replica; then the gradients are summed, always in the same order, so
the result does not depend on which thread was faster. Layers keep nothing between forward and backward (the
cache is explicit), and NumPy lets other threads run during its operations: that is all it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from minitransformer.backend import Generator, silent_overflow, single_blas_thread
from minitransformer.models.recompute import Keep
from minitransformer.models.transformer import Transformer
from minitransformer.training.batching import Batch
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.training.optimizer import Adam, clip_grad_norm, parts


class Replicas:
    """`model` and n - 1 replicas of it. Their work is done in threads inside a `with replicas.threads():`.

    `keep` is what their stacks keep for backward, "caches" or "inputs" (see models/recompute.py).
    """

    def __init__(self, model: Transformer, n: int = 1, keep: Keep = "caches") -> None:
        self.keep = keep
        self.models = [model, *(model.replica() for _ in range(n - 1))]
        # applies a function to many arguments, in threads or not
        self.map: Callable[..., Iterable[Any]] = map

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Work in threads, one for each replica, with one thread for each of their matrix products.

        Where the latter cannot be arranged (threadpoolctl is not installed), all work stays in this thread.
        """
        n = len(self.models)
        with single_blas_thread(wanted=n > 1) as single, ThreadPoolExecutor(n) as pool:
            self.map = pool.map if single else map
            try:
                yield
            finally:
                self.map = map

    def loss_and_gradients(
        self,
        loss_fn: LabelSmoothedCrossEntropy,
        batches: Sequence[Batch],
        rngs: Sequence[Generator | None],
    ) -> float:
        """Mean loss over the tokens of all batches; its gradient goes into the model's flat .grad.

        It is that of one batch with all the sentences, because each part is divided by the tokens of all.
        """
        n_tokens = sum(batch.n_tokens for batch in batches)

        grads = [model.flatten().grad for model in self.models]

        def work(i: int) -> float:
            grads[i][...] = 0
            share = list(zip(batches, rngs, strict=True))[i :: len(self.models)]
            return sum(self._add_gradient(i, loss_fn, batch, n_tokens, rng) for batch, rng in share)

        def add_up(part: slice) -> None:
            for grad in grads[1:]:
                grads[0][part] += grad[part]

        loss = sum(self.map(work, range(len(self.models))))
        list(self.map(add_up, parts(grads[0].size, len(self.models))))
        return loss

    def _add_gradient(
        self, i: int, loss_fn: LabelSmoothedCrossEntropy, batch: Batch, n_tokens: int, rng: Generator | None
    ) -> float:
        """Forward and backward of one batch; when it returns, the caches are gone."""
        model = self.models[i]
        with silent_overflow():  # it shows in the loss
            logits, cache = model.forward(batch.src_ids, batch.tgt_in, rng, self.keep)
            loss, loss_cache = loss_fn.forward(logits, batch.tgt_out, n_tokens)
            del logits  # as large as its gradient
            model.backward(loss_fn.backward(loss_cache), cache)
        return float(loss)


def train_step(
    replicas: Replicas,
    loss_fn: LabelSmoothedCrossEntropy,
    optimizer: Adam,
    batches: Sequence[Batch],
    lr: float,
    clip_norm: float | None = None,
    rngs: Sequence[Generator | None] | None = None,
) -> tuple[float, float]:
    """One update from one or more batches: the mean loss of their tokens, and the gradient's norm.

    `rngs`: a generator for the dropout of each batch; without them nothing is dropped.
    """
    loss = replicas.loss_and_gradients(loss_fn, batches, rngs or [None] * len(batches))
    with silent_overflow():  # it shows in the norm
        norm = clip_grad_norm(replicas.models[0], clip_norm)
        optimizer.step(lr, len(replicas.models), replicas.map)
    return loss, norm
