"""Data parallelism on the cores of one machine: several processes train one model.

A replica is a copy of the model that shares its weights and adds up gradients of its own. Each process takes its
share of the batches of a step through its replica; then the gradients are summed, always in the same order, so
the result does not depend on which process was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from minitransformer.backend import Array, Generator, on_gpu, silent_overflow, sum_in_order, zeros
from minitransformer.errors import InputError
from minitransformer.memory import Buffer, Flat
from minitransformer.models.families import Model
from minitransformer.models.recompute import Keep
from minitransformer.parallel.processes import Processes
from minitransformer.parallel.ranks import ALONE, Ranks
from minitransformer.parts import in_parts, on_threads
from minitransformer.system import (
    blas_threads,
    can_fork,
    can_limit_blas,
    n_cores,
    peak_memory_mb,
    single_blas_thread,
)
from minitransformer.training.batching import AnyBatch
from minitransformer.training.loss import LabelSmoothedCrossEntropy
from minitransformer.validation.settings import SIZES_BELOW, as_integer

# The fewest numbers in the activations of a replica: with fewer, the processes wait for each other.
WORK = 1 << 14
# The most numbers in a model which is too small to be updated by several threads.
LARGE = 1 << 22
# The most numbers in a model with replicas: with more, another gradient would take too much memory (128 MB).
GRADIENTS = 1 << 25
T = TypeVar("T")


class Replicas:
    """`model` and n - 1 replicas of it, each with a process of its own inside a `with replicas.processes():`.

    `keep` is how much their stacks keep for backward, "caches" or "inputs" (see models/recompute.py). `ranks` are the
    MPI processes, perhaps on several machines, that have n replicas each and share all the work.
    """

    def __init__(self, model: Model, n: int = 1, keep: Keep = "caches", ranks: Ranks = ALONE) -> None:
        self.keep, self.ranks = keep, ranks
        n = as_integer("Replicas: n", n, 1, SIZES_BELOW, "a whole number, 1 or more")
        if n > 1:
            model.share()
        self.models = [model, *(model.replica() for _ in range(n - 1))]
        self._buffer = Buffer(model, "Replicas")
        self._processes: Processes | None = None
        # the models' buffers, while processes run: until they end, these cannot be moved
        self._running: list[Flat] = []
        # Threads pay off in the update of a large model, and in the forward and backward passes of one that is so large
        # that one process trains it.
        size = 0 if on_gpu(model.flatten().data) else model.n_parameters()
        self.n_threads = ranks.n_cores if size > LARGE else 0
        self.threads_find_gradient = size > GRADIENTS and can_limit_blas()
        self._forked = False  # also known to the workers, as `_processes` is not

    @contextmanager
    def processes(self) -> Iterator[None]:
        """A context in which each replica works in a process of its own, with one thread for its matrix products.

        Where that is not possible (see system.can_fork), this process does all the work, with the same results.
        """
        n = len(self.models)
        forking = n > 1 and can_fork(self.models[0].flatten().data)
        threads = 1 if forking else self.ranks.n_cores
        with blas_threads(threads) if forking or threads < n_cores() else nullcontext():
            self._running, self._forked = self.buffers(), forking
            self._processes = Processes(self, n) if forking else None
            try:
                yield
            finally:
                if self._processes:
                    self._processes.close()
                self._processes, self._running, self._forked = None, [], False

    def buffers(self) -> list[Flat]:
        """The flat buffer of each model. Raises InputError if the model has changed since the replicas were made."""
        return self._running or [self._buffer.flat(), *(model.flatten() for model in self.models[1:])]

    def _require_shared_weights(self) -> None:
        """Raise InputError unless all replicas still read the weights that the model has."""
        data = self.buffers()[0].data
        for model, flat in zip(self.models, self.buffers(), strict=True):
            if flat.data is not data or not model.lies_in(flat):
                raise InputError(
                    "Replicas: expected the weights where they were, in memory that all replicas share, but they have "
                    "moved (as by an optimizer or clip_grad_norm of a part of the model); make new ones"
                )

    def threads(self) -> AbstractContextManager[None]:
        """A context in which threads share the arrays of a large model (see parts.py), while no other process works."""
        return shared_by(self.n_threads) if self.n_threads else nullcontext()

    def peak_memory_mb(self) -> float | None:
        """Peak memory of this process and its workers, in MB (10^6 bytes); None where the system does not report it."""
        return peak_memory_mb(self._processes.pids if self._processes else [])

    def loss_and_gradients(
        self,
        loss_fn: LabelSmoothedCrossEntropy,
        batches: Sequence[AnyBatch],
        rngs: Sequence[Generator | None],
    ) -> Array:
        """The mean loss over the tokens of all batches, an array scalar; its gradient goes into the model's flat .grad.

        Both are those of one batch with all the sentences, since each part is divided by the number of tokens of all.
        (With several ranks, each has the loss and the gradient of its own batches, still to be summed over the ranks.)
        """
        if len(self.models) > 1:
            self._require_shared_weights()
        grads = [flat.grad for flat in self.buffers()]
        n_tokens = sum(batch.n_tokens for batch in batches)
        work = list(zip(batches, rngs, strict=True))
        turns = self._turns(self.ranks.rank)
        answers = self._each("_gradient", [(loss_fn, work[turn], n_tokens) for turn in turns])
        for turn, (_, states) in zip(turns, answers, strict=True):
            for (_, rng), state in zip(work[turn], states, strict=True):
                # A worker drew from a copy of the generator.
                if rng is not None:
                    rng.bit_generator.state = state
        with self.threads():
            for grad in grads[1:]:
                add(grads[0], grad)
        return sum_in_order((loss for loss, _ in answers), zeros((), "float64", grads[0]))

    def in_shares(self, function: Callable[..., list[T]], items: Sequence[Any], *settings: Any) -> list[T]:
        """An answer for each item from function(model, items, *settings), each replica answering its share of them."""
        answers: list[Any] = [None] * len(items)
        own = [(function, items[turn], *settings) for turn in self._turns(self.ranks.rank)]
        for rank, shares in enumerate(self.ranks.objects(self._each("_answers", own))):
            for turn, share in zip(self._turns(rank), shares, strict=True):
                answers[turn] = share
        return answers

    def _turns(self, rank: int) -> list[slice]:
        """The items of work that each replica of `rank` takes: they are dealt out to ranks first, then to replicas."""
        n, n_ranks = len(self.models), self.ranks.n
        return [slice(rank + i * n_ranks, None, n * n_ranks) for i in range(n)]

    def _each(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        if self._processes is not None:
            return self._processes.each(method, arguments)
        return [getattr(self, method)(i, *mine) for i, mine in enumerate(arguments)]

    def _gradient(
        self,
        i: int,
        loss_fn: LabelSmoothedCrossEntropy,
        work: list[tuple[AnyBatch, Generator | None]],
        n_tokens: int,
    ) -> tuple[Array, list[Any]]:
        """The loss of replica i's share, and the new states of its generators; the gradient goes into its own .grad."""
        grad = self.buffers()[i].grad
        grad[...] = 0
        threads = 1 if self._forked else self.n_threads  # the parts of arrays, and so the bits, are the same
        with shared_by(threads) if self.threads_find_gradient else nullcontext():
            loss = sum_in_order(self._add_gradient(i, loss_fn, batch, n_tokens, rng) for batch, rng in work)
        return loss, [None if rng is None else rng.bit_generator.state for _, rng in work]

    def _answers(
        self, i: int, function: Callable[..., list[T]], items: Sequence[Any], *settings: Any
    ) -> list[T]:
        return function(self.models[i], items, *settings) if items else []

    def _add_gradient(
        self,
        i: int,
        loss_fn: LabelSmoothedCrossEntropy,
        batch: AnyBatch,
        n_tokens: int,
        rng: Generator | None,
    ) -> Array:
        """Run forward and backward on one batch, and return its loss; the caches are freed on return."""
        model: Any = self.models[i]
        # An overflow shows in the loss.
        with silent_overflow():
            logits, cache = model.forward(*batch.inputs, rng=rng, keep=self.keep)
            loss, loss_cache = loss_fn.forward(logits, batch.targets, n_tokens)
            del logits  # as large as their gradient, which backward needs
            model.backward(loss_fn.backward(loss_cache), cache)
        return loss.astype("float64")


@contextmanager
def shared_by(n: int) -> Iterator[None]:
    """A context in which n threads share large arrays, and BLAS has no threads of its own."""
    with single_blas_thread(), on_threads(n):
        yield


@in_parts
@silent_overflow()
def add(total: Array, x: Array) -> None:
    """total += x."""
    total += x


def default_processes(model: Model, tokens: int, cores: int | None = None) -> int:
    """How many processes should share a batch of `tokens` target tokens, on the cores of this machine.

    It is one, with several threads, if there is too little work to share, or if the model is so large that another
    gradient would take too much memory (its arrays are then large enough for threads).
    """
    weights = model.flatten().data
    if weights.size > GRADIENTS or not can_fork(weights):
        return 1
    return max(1, min(cores or n_cores(), tokens * model.config.d_model // WORK))
