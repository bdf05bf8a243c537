"""§5.1: sentence pairs of about the same length, batched up to a budget of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

from minitransformer.backend import Array, Generator, generator, padded
from minitransformer.errors import InputError

# padding, start and end of a sentence: the ids that batching adds; no symbol of a task has them
PAD, BOS, EOS = 0, 1, 2

Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]  # ids of the source's and the target's symbols


class PairSource(Protocol):
    """A source of sentence pairs, as `tasks.Task` is."""

    name: ClassVar[str]

    def training_pairs(self, rng: Generator) -> list[Pair]:
        """The pairs of one epoch."""


class Batch(NamedTuple):
    """The sentence pairs that one training step reads, padded on the right.

    The decoder reads the correct target, shifted right, not what it has predicted itself (teacher forcing).
    """

    src_ids: Array  # (B, T_src) symbols, EOS
    tgt_in: Array  # (B, T_tgt) BOS, symbols: the target shifted right
    tgt_out: Array  # (B, T_tgt) symbols, EOS: at each position, the token to predict
    n_tokens: int  # target tokens that are not padding


def make_batch(pairs: Sequence[Pair]) -> Batch:
    """A batch of `pairs`, with BOS, EOS and padding. Raises InputError if there are no pairs."""
    if not pairs:
        raise InputError("expected at least one pair to make a batch of, got none")
    return Batch(
        padded([[*source, EOS] for source, _ in pairs], PAD),
        padded([[BOS, *target] for _, target in pairs], PAD),
        padded([[*target, EOS] for _, target in pairs], PAD),
        sum(len(target) + 1 for _, target in pairs),
    )


def split_batch(batch: Batch, n: int) -> list[Batch]:
    """The batch in `n` parts of about the same number of sentences (or in one part per sentence, if n is larger)."""
    n = min(n, len(batch.src_ids))
    return [
        Batch(src_ids, tgt_in, tgt_out, int((tgt_out != PAD).sum()))
        for src_ids, tgt_in, tgt_out in ((ids[i::n] for ids in batch[:3]) for i in range(n))
    ]


def by_length(pairs: Sequence[Pair], batch_tokens: int) -> list[list[int]]:
    """Indices of `pairs` in batches of similar length and at most `batch_tokens` tokens, padding included.

    The tokens of a batch are its rows times its longest source or target, whichever is longer. A pair beyond
    the budget is a batch of its own.
    """
    length = [max(len(source), len(target)) + 1 for source, target in pairs]
    batches: list[list[int]] = []
    for i in sorted(range(len(pairs)), key=length.__getitem__):  # ascending: the newest row is the longest
        if not batches or (len(batches[-1]) + 1) * length[i] > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


class BatchStream:
    """The batches of a training run, one after the other, epoch after epoch.

    A batch is a function of seed, epoch and index: setting `epoch` and `index` continues from anywhere.
    """

    def __init__(self, task: PairSource, batch_tokens: int, seed: int) -> None:
        self.task, self.batch_tokens, self.seed = task, batch_tokens, seed
        self.epoch, self.index = 0, 0  # of the next batch
        self._drawn: tuple[int, list[list[Pair]]] | None = None  # an epoch and its batches

    def pairs(self) -> list[Pair]:
        """All pairs of the current epoch."""
        return [pair for batch in self._batches() for pair in batch]

    def next(self) -> Batch:
        """The next batch."""
        batches = self._batches()
        if self.index >= len(batches):
            raise InputError(
                f"epoch {self.epoch}: expected a batch below {len(batches)}, got {self.index}; "
                f"these are not the task settings that the run began with"
            )
        batch = make_batch(batches[self.index])
        self.index += 1
        if self.index == len(batches):
            self.epoch, self.index = self.epoch + 1, 0
        return batch

    def _batches(self) -> list[list[Pair]]:
        if self._drawn is None or self._drawn[0] != self.epoch:
            self._drawn = self.epoch, self._draw(generator(self.seed, 1, self.epoch))
        return self._drawn[1]

    def _draw(self, rng: Generator) -> list[list[Pair]]:
        pairs = self.task.training_pairs(rng)
        if not pairs:
            raise InputError(f"task {self.task.name}: expected pairs to train on, got none")
        batches = by_length(pairs, self.batch_tokens)
        return [[pairs[i] for i in batches[b]] for b in rng.permutation(len(batches))]
