"""Tasks on random sequences of symbols: copy, reverse, sort, and your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minitransformer.backend import Generator
from minitransformer.config import PRESETS
from minitransformer.errors import InputError
from minitransformer.tasks.task import Task
from minitransformer.tasks.vocabulary import SPECIALS, Vocabulary
from minitransformer.training.batching import MakeBatch, Pair, aligned_batch
from minitransformer.validation.settings import SIZES_BELOW, check_size, check_types, require

# A model of one stack learns faster with these. (In source and target as one text, no distance tells where to look.)
ONE_STACK = {**PRESETS["toy"], "max_len": 256, "positions": "learned", "random_gaps": 1, "norm": "pre"}


@dataclass(frozen=True)
class SequenceTask(Task):
    """A task that answers a random sequence of numbers with another; a subclass defines `answer`.

    Numbers are first_symbol … first_symbol + n_symbols - 1, lengths min_length … max_length, all equally
    likely. Held out means never trained on, by construction: a sequence whose numbers add up to a multiple
    of 10 is in the test sets, one whose sum ends in 1 in the validation set, all others are for training.
    With `longest` > max_length there are test sets of lengths that training never shows: up to five more, up to twice
    as many, up to four times as many, and so on; each is named by its lengths.

    Training sequences repeat their numbers more often than by chance. A model that finds its place by the number
    it wrote last is then often wrong, so it cannot learn to rely on that.
    """

    # The paper's settings with half the heads and a quarter of d_ff, which do as well, and without dropout, since data
    # is endless. With rotary positions from both ends, and random gaps in training, longer sequences are right too.
    model: ClassVar[Mapping[str, Any]] = {
        **PRESETS["toy"],
        "dropout": 0.0,
        "n_heads": 2,
        "d_ff": 64,
        "max_len": 128,
        "positions": "rotary",
        "count_source_from": "both",
        "random_gaps": 7,
    }
    families: ClassVar[Mapping[str, MakeBatch]] = {**Task.families, "encoder-only": aligned_batch}
    model_of_family: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "encoder-only": ONE_STACK,
        "decoder-only": {**ONE_STACK, "count_source_from": "start"},
    }
    first_symbol: int = 0
    n_symbols: int = 10
    min_length: int = 1
    max_length: int = 10
    longest: int = 0
    epoch_size: int = 10_000  # pairs drawn, then batched by length
    test_size: int = 1000

    def __post_init__(self) -> None:
        check_types(self)
        first = -SIZES_BELOW < self.first_symbol < SIZES_BELOW  # else sums of symbols overflow
        require(first, "first_symbol", f"a number nearer to 0 than {SIZES_BELOW:,}", self.first_symbol)
        require(self.n_symbols >= 2, "n_symbols", "at least 2", self.n_symbols)
        require(1 <= self.min_length <= self.max_length, "min_length", "1 … max_length", self.min_length)
        for name in ("n_symbols", "max_length", "epoch_size", "test_size"):
            check_size(name, getattr(self, name))
        most = SIZES_BELOW - len(SPECIALS) - 1  # of a vocabulary
        require(self.n_symbols <= most, "n_symbols", f"at most {most:,}", self.n_symbols)
        check_size("longest", self.longest or 1)
        longer = self.longest == 0 or self.longest > self.max_length
        require(longer, "longest", f"0, or more than max_length={self.max_length}", self.longest)

    def answer(self, sequence: np.ndarray) -> np.ndarray:
        """The target of a source sequence, both as numbers of the task."""
        raise NotImplementedError(f"{type(self).__name__} defines no answer")

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(str(self.first_symbol + i) for i in range(self.n_symbols))

    def training_pairs(self, rng: Generator) -> list[Pair]:
        last_digits = tuple(range(2, 10))
        return self._pairs(rng, self.epoch_size, self.min_length, self.max_length, last_digits, repeats=True)

    def evaluation_sets(self, rng: Generator) -> dict[str, list[Pair]]:
        sets = {
            "valid": self._pairs(rng, self.test_size, self.min_length, self.max_length, (1,)),
            "test": self._pairs(rng, self.test_size, self.min_length, self.max_length, (0,)),
        }
        for shortest, longest in self._longer():
            sets[f"{shortest}-{longest}"] = self._pairs(rng, self.test_size, shortest, longest, (0,))
        return sets

    def _longer(self) -> list[tuple[int, int]]:
        """The shortest and the longest sequence of each test set of lengths that training never shows."""
        ranges, shortest = [], self.max_length + 1
        for end in (self.max_length + 5, *(self.max_length * 2**k for k in range(1, 20))):
            longest = min(end, self.longest)
            if shortest <= longest:
                ranges.append((shortest, longest))
                shortest = longest + 1
        return ranges

    def _pairs(
        self,
        rng: Generator,
        n: int,
        shortest: int,
        longest: int,
        last_digits: tuple[int, ...],
        repeats: bool = False,
    ) -> list[Pair]:
        """`n` pairs whose source adds up to a number that ends in one of `last_digits`.

        With `repeats`, each sequence draws from a few random numbers of its own, between one and `longest` of them.
        """
        pairs: list[Pair] = []
        attempts = 0
        while len(pairs) < n:
            attempts += 1
            possible = attempts < 100 or bool(pairs)
            require(
                possible, "n_symbols", f"enough of them for a sum that ends in {last_digits}", self.n_symbols
            )
            lengths = rng.integers(shortest, longest + 1, 2 * n)
            numbers = rng.integers(self.first_symbol, self.first_symbol + self.n_symbols, (2 * n, longest))
            if repeats:
                n_distinct = rng.integers(1, 2 * longest + 1, (2 * n, 1)).clip(1, longest)
                numbers = np.take_along_axis(numbers, rng.integers(0, n_distinct, numbers.shape), 1)
            inside = np.arange(longest) < lengths[:, None]
            wanted = np.flatnonzero(np.isin((numbers * inside).sum(1) % 10, last_digits))
            for i in wanted[: n - len(pairs)]:
                sequence = numbers[i, : lengths[i]]
                pairs.append((self._ids(sequence), self._ids(self.answer(sequence))))
        return pairs

    def _ids(self, numbers: np.ndarray) -> list[int]:
        numbers = np.asarray(numbers) - self.first_symbol
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.n_symbols:
            last = self.first_symbol + self.n_symbols - 1
            raise InputError(
                f"{self.name}: expected answers made of the numbers {self.first_symbol} … {last}, "
                f"got {numbers.min() + self.first_symbol} … {numbers.max() + self.first_symbol}"
            )
        return (numbers + len(SPECIALS)).tolist()
