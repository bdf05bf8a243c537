"""§5.1: sentence pairs of about the same length, batched up to a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

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

    @property
    def inputs(self) -> tuple[Array, Array]:
        """The arrays that the model's forward takes."""
        return self.src_ids, self.tgt_in

    @property
    def targets(self) -> Array:
        """The ids that the loss compares the logits with."""
        return self.tgt_out


class OneStackBatch(NamedTuple):
    """The ids that a model of one stack reads in a training step, and those it has to answer, padded on the right."""

    ids: Array  # (B, T)
    answers: Array  # (B, T), or (B, 1) for a single answer; PAD where nothing is asked
    n_tokens: int  # answers that are not padding

    @property
    def inputs(self) -> tuple[Array]:
        """The arrays that the model's forward takes."""
        return (self.ids,)

    @property
    def targets(self) -> Array:
        """The ids that the loss compares the logits with."""
        return self.answers


AnyBatch: TypeAlias = Batch | OneStackBatch
MakeBatch: TypeAlias = Callable[[Sequence[Pair]], AnyBatch]


def make_batch(pairs: Sequence[Pair]) -> Batch:
    """A batch of `pairs`, with BOS, EOS and padding. InputError for no pairs, and for ids that mean padding."""
    at_least_one(pairs)
    no_padding(pairs)
    return Batch(
        padded([[*source, EOS] for source, _ in pairs], PAD),
        padded([[BOS, *target] for _, target in pairs], PAD),
        padded([[*target, EOS] for _, target in pairs], PAD),
        sum(len(target) + 1 for _, target in pairs),
    )


def joined_batch(pairs: Sequence[Pair]) -> OneStackBatch:
    """A batch of `pairs` for a decoder alone: it reads source, EOS, BOS, target; its answers are the target and EOS.

    Raises InputError if there are no pairs, or ids that mean padding.
    """
    at_least_one(pairs)
    no_padding(pairs)
    return OneStackBatch(
        padded([[*source, EOS, BOS, *target] for source, target in pairs], PAD),
        padded([[*[PAD] * (len(source) + 1), *target, EOS] for source, target in pairs], PAD),
        sum(len(target) + 1 for _, target in pairs),
    )


def aligned_batch(pairs: Sequence[Pair]) -> OneStackBatch:
    """A batch of `pairs` in which the target answers the source position by position, or with one symbol for all.

    Raises InputError if there are no pairs, or if a target has another length.
    """
    at_least_one(pairs)
    single = all(len(target) == 1 for _, target in pairs)
    for source, target in pairs:
        if len(target) != len(source) and not single:
            expected = f"a target as long as its source, {len(source)} symbols, or of one symbol"
            raise InputError(f"encoder-only: expected {expected}, got {len(target)}")
    answers = padded([target for _, target in pairs], PAD)
    return OneStackBatch(padded([source for source, _ in pairs], PAD), answers, int((answers != PAD).sum()))


def longest_input(pairs: Sequence[Pair], make_batch: MakeBatch) -> int:
    """The number of tokens in the longest input that `make_batch` makes of these pairs."""
    longest = [
        max(pairs, key=lambda pair: len(pair[0]) + len(pair[1])),  # the longest if both sides become one text
        max(pairs, key=lambda pair: max(map(len, pair))),
    ]
    return max(ids.shape[1] for ids in make_batch(longest).inputs)


def at_least_one(pairs: Sequence[Pair]) -> None:
    """Raise InputError if there are no pairs."""
    if not pairs:
        raise InputError("expected at least one pair to make a batch of, got none")


def no_padding(pairs: Sequence[Pair]) -> None:
    """Raise InputError if one of the ids in `pairs` is that of PAD, which the loss leaves out, or below 0."""
    lowest = min((min(side) for pair in pairs for side in pair if len(side)), default=EOS + 1)
    if lowest <= PAD:
        raise InputError(f"pairs: expected ids from {EOS + 1} on, after PAD, BOS and EOS, got {lowest}")


def split_batch(batch: AnyBatch, n: int) -> list[Any]:
    """The batch in `n` parts of about the same number of sentences (or in one part per sentence, if n is larger)."""
    Kind: Any = type(batch)
    *arrays, _ = batch
    n = min(n, len(arrays[0]))
    parts = [[ids[i::n] for ids in arrays] for i in range(n)]
    return [Kind(*part, int((part[-1] != PAD).sum())) for part in parts]


def by_length(pairs: Sequence[Pair], batch_tokens: int) -> list[list[int]]:
    """Indices of `pairs` in batches of similar length and at most `batch_tokens` tokens, padding included.

    The number of tokens in a batch is its number of rows times the length of its longest source or target. A pair
    that exceeds the budget is a batch of its own. (A decoder alone reads source and target as one row, so its batches
    may have twice as many.)
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

    A batch is a function of seed, epoch and index, so a stream can continue from anywhere: set `epoch` and `index`.
    """

    def __init__(
        self, task: PairSource, batch_tokens: int, seed: int, make_batch: MakeBatch = make_batch
    ) -> None:
        self.task, self.batch_tokens, self.seed, self.make_batch = task, batch_tokens, seed, make_batch
        self.epoch, self.index = 0, 0  # of the next batch
        self._drawn: tuple[int, list[list[Pair]]] | None = None  # an epoch and its batches

    def pairs(self) -> list[Pair]:
        """All pairs of the current epoch."""
        return [pair for batch in self._batches() for pair in batch]

    def next(self) -> AnyBatch:
        """The next batch."""
        batches = self._batches()
        if self.index >= len(batches):
            raise InputError(
                f"epoch {self.epoch}: expected a batch below {len(batches)}, got {self.index}; "
                f"these are not the task settings that the run began with"
            )
        batch = self.make_batch(batches[self.index])
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
