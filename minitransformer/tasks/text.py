"""Text: your own parallel files, one sentence per line."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from minitransformer.backend import Generator
from minitransformer.errors import CheckpointError, ConfigError, InputError
from minitransformer.files import absolute, read_bytes
from minitransformer.tasks.parallel_text import BadLine, SentencePair, first_of, read_parallel
from minitransformer.tasks.subwords import Subwords
from minitransformer.tasks.task import Task
from minitransformer.training.batching import Pair
from minitransformer.validation.settings import check_size, check_types, one_of, require

FILES = ("train_src", "train_tgt", "valid_src", "valid_tgt", "test_src", "test_tgt")
SUBWORDS = "subwords.model"  # SentencePiece's file, in the run folder
T = TypeVar("T")


@dataclass(frozen=True)
class Text(Task):
    """Translate the lines of the `*_src` files into those of the `*_tgt` files (see parallel_text.py).

    Both languages share `vocab_size` subwords, learned from the training files and kept in the run folder. A training
    line that is empty, not UTF-8, missing in the other file, or longer than `max_length` subwords stops the run with an
    error that names it; bad_lines="skip" leaves it out, and reports it. Lines of valid and test are never left out,
    because their figures would then be those of fewer sentences.
    `bleu_tokenize` is SacreBLEU's: "13a" for plain text, "none" for text that blanks separate into tokens already.
    """

    name: ClassVar[str] = "text"
    selection_metric: ClassVar[str] = "bleu"
    # The sizes and the dropout of Wu et al. 2021 for 29,000 pairs of sentences; more data allows larger models.
    model: ClassVar[Mapping[str, Any]] = {
        "n_layers": 4,
        "d_model": 128,
        "n_heads": 4,
        "d_ff": 256,
        "dropout": 0.3,
        "max_len": 256,
    }
    # An update reads 4,096 tokens, in small batches: their logits are the largest array there is.
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 8000,
        "batch_tokens": 512,
        "accumulate": 8,
        "schedule": "cosine",
        "warmup_steps": 800,
        "learning_rate": 4e-3,
        "clip_norm": 1.0,
        "evaluate_every": 250,
        "keep_checkpoints": 10,
    }
    train_src: str = ""
    train_tgt: str = ""
    valid_src: str = ""
    valid_tgt: str = ""
    test_src: str = ""  # and test_tgt: without them, only valid is measured
    test_tgt: str = ""
    vocab_size: int = 8000
    max_length: int = 100
    bad_lines: str = "refuse"
    bleu_tokenize: str = "13a"

    def __post_init__(self) -> None:
        check_types(self)
        for name in FILES[:4]:
            require(
                bool(getattr(self, name)), name, "the path of a file (--set NAME=PATH)", getattr(self, name)
            )
        for name in FILES:  # a run can be continued, and measured, from anywhere
            object.__setattr__(self, name, absolute(name, getattr(self, name)))
        both = bool(self.test_src) == bool(self.test_tgt)
        require(both, "test_src, test_tgt", "both, or neither", [self.test_src, self.test_tgt])
        check_size("vocab_size", self.vocab_size)
        require(self.vocab_size > 8, "vocab_size", "a few thousand", self.vocab_size)
        check_size("max_length", self.max_length)
        one_of("bad_lines", self.bad_lines, ("refuse", "skip"))
        one_of("bleu_tokenize", self.bleu_tokenize, ("13a", "intl", "char", "none"))

    @cached_property
    def vocabulary(self) -> Subwords:
        pairs, _ = self._training_lines
        texts = chain((pair.source for pair in pairs), (pair.target for pair in pairs))
        return Subwords.learn(texts, self.vocab_size)

    def files(self) -> dict[str, bytes]:
        return {SUBWORDS: self.vocabulary.proto}

    def load(self, folder: Path) -> None:
        path = folder / SUBWORDS
        if not path.exists():
            return
        again = f"move it away to have them learned again from {self.train_src}"
        try:
            vocabulary = Subwords(read_bytes(path))
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}; restore it, or {again}") from None
        if len(vocabulary) != self.vocab_size:
            raise CheckpointError(
                f"{path}: damaged, or the wrong file: expected vocab_size={self.vocab_size} subwords, got "
                f"{len(vocabulary)}; {again}"
            )
        self.__dict__["vocabulary"] = vocabulary  # where cached_property would put it

    def training_pairs(self, rng: Generator) -> list[Pair]:
        pairs, _ = self._training_pairs
        return [pairs[i] for i in rng.permutation(len(pairs))]

    def evaluation_sets(self, rng: Generator) -> dict[str, list[Pair]]:
        sacrebleu()  # if it is missing, this fails before the training, not after it
        return {
            name: all_of(*self._encoded(lines, *self._files(name))) for name, lines in self._held_out.items()
        }

    def remarks(self) -> list[str]:
        _, bad = self._training_pairs
        return [f"left out, {len(bad):,} line(s): {first_of(bad)}"] if bad else []

    def figures(self, name: str, answers: Sequence[Sequence[int]]) -> dict[str, float]:
        """BLEU (Papineni et al. 2002) of the answers to a held-out set, by SacreBLEU, from 0 to 100."""
        answered = [self.vocabulary.decode(answer) for answer in answers]
        references = [pair.target for pair in self._held_out[name]]
        bleu = sacrebleu().BLEU(tokenize=self.bleu_tokenize, force=True)  # force: no advice on tokenised text
        return {"bleu": bleu.corpus_score(answered, [references]).score}

    def _files(self, name: str) -> tuple[str, str]:
        return getattr(self, f"{name}_src"), getattr(self, f"{name}_tgt")

    @cached_property
    def _held_out(self) -> dict[str, list[SentencePair]]:
        names = ("valid", "test") if self.test_src else ("valid",)
        return {name: all_of(*read_parallel(*self._files(name))) for name in names}

    @cached_property
    def _training_lines(self) -> tuple[list[SentencePair], list[BadLine]]:
        return self._allowed(*read_parallel(self.train_src, self.train_tgt))

    @cached_property
    def _training_pairs(self) -> tuple[list[Pair], list[BadLine]]:
        lines, unreadable = self._training_lines
        pairs, too_long = self._allowed(*self._encoded(lines, self.train_src, self.train_tgt))
        del self.__dict__["_training_lines"]  # the ids are all that is needed from here on
        return pairs, sorted(unreadable + too_long)

    def _allowed(self, pairs: list[T], bad: list[BadLine]) -> tuple[list[T], list[BadLine]]:
        """Return both, or raise InputError: for bad lines, unless they may be left out, and if no pairs are left."""
        if bad and self.bad_lines == "refuse":
            raise InputError(f"{first_of(bad)} (--set bad_lines=skip leaves such lines out)")
        if not pairs:
            raise InputError(f"expected lines to train on, got only bad ones: {first_of(bad)}")
        return pairs, bad

    def _encoded(self, lines: list[SentencePair], src: str, tgt: str) -> tuple[list[Pair], list[BadLine]]:
        """The ids of all pairs that are not too long, and the lines that are."""
        encode = self.vocabulary.encode_all
        sources, targets = encode([line.source for line in lines]), encode([line.target for line in lines])
        pairs: list[Pair] = []
        bad: list[BadLine] = []
        for line, source, target in zip(lines, sources, targets, strict=True):
            bad += [
                BadLine(path, line.number, f"{len(ids)} subwords, more than max_length={self.max_length}")
                for path, ids in ((src, source), (tgt, target))
                if len(ids) > self.max_length
            ]
            if max(len(source), len(target)) <= self.max_length:
                pairs.append((array("i", source), array("i", target)))  # a tenth of a list's memory
        return pairs, bad


def all_of(pairs: list[T], bad: list[BadLine]) -> list[T]:
    """`pairs`, of which none may be missing. Raises InputError if there are bad lines."""
    if bad:
        raise InputError(
            f"held-out lines are never left out; mend the files, or raise max_length: {first_of(bad)}"
        )
    return pairs


def sacrebleu() -> Any:
    """The module sacrebleu.metrics, which is optional. Raises ConfigError, saying what to install, without it."""
    try:
        import sacrebleu.metrics
    except ImportError:
        raise ConfigError("task 'text' needs SacreBLEU: pip install 'minitransformer[text]'") from None
    return sacrebleu.metrics
