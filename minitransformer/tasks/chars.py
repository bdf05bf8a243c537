"""Characters: a text, to be continued character by character."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minitransformer.backend import Generator
from minitransformer.errors import CheckpointError, InputError
from minitransformer.files import absolute
from minitransformer.tasks.parallel_text import content_of
from minitransformer.tasks.task import Task
from minitransformer.tasks.vocabulary import SPECIALS, Characters
from minitransformer.training.batching import MakeBatch, Pair, aligned_batch
from minitransformer.validation.settings import check_size, check_types, require

# in the run folder: the vocabulary, and the text if it is the source of this package, which other versions do not have
CHARACTERS, TEXT = "characters.txt", "text.txt"


@dataclass(frozen=True)
class Chars(Task):
    """Continue the text of a file with a decoder alone, which says at each position which character comes next.

    `text` is a file in UTF-8; without one, it is the source code of this package. Training reads `block` characters
    from a random place of its first nine tenths, `epoch_size` times an epoch. The last tenth is for validation: all of
    it, in blocks that do not overlap. The result is the loss, in nats per character.
    """

    name: ClassVar[str] = "chars"
    selection_metric: ClassVar[str] = "loss"
    larger_is_better: ClassVar[bool] = False
    has_answers: ClassVar[bool] = False
    families: ClassVar[Mapping[str, MakeBatch]] = {"decoder-only": aligned_batch}
    # GPT-2's layers, in the sizes and with the training that nanoGPT has for a laptop
    model: ClassVar[Mapping[str, Any]] = {
        "n_layers": 4,
        "d_model": 128,
        "n_heads": 4,
        "d_ff": 512,
        "max_len": 64,
        "dropout": 0.0,
        "norm": "pre",
        "activation": "gelu_tanh",
        "positions": "learned",
        "scale_embedding": False,
    }
    training: ClassVar[Mapping[str, Any]] = {
        "steps": 2000,
        "batch_tokens": 780,
        "schedule": "cosine",
        "warmup_steps": 100,
        "learning_rate": 1e-3,
        "last_learning_rate": 1e-4,
        "beta2": 0.99,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "eps_ls": 0.0,
        "log_every": 100,
    }
    text: str = ""
    block: int = 64
    epoch_size: int = 12_000

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("block", "epoch_size"):
            check_size(name, getattr(self, name))
        # a run can be continued, and measured, from anywhere
        object.__setattr__(self, "text", absolute("text", self.text))

    @cached_property
    def vocabulary(self) -> Characters:
        return Characters(sorted(set(self._read())))

    def files(self) -> dict[str, bytes]:
        characters = "".join(self.vocabulary.symbols[len(SPECIALS) :])
        return {CHARACTERS: characters.encode()} | ({} if self.text else {TEXT: self._source.encode()})

    def load(self, folder: Path) -> None:
        # where cached_property would put them
        if (characters := _read_utf8(folder / CHARACTERS)) is not None:
            self.__dict__["vocabulary"] = Characters(characters)
        if not self.text and (source := _read_utf8(folder / TEXT)) is not None:
            self.__dict__["_source"] = source

    def training_pairs(self, rng: Generator) -> list[Pair]:
        text, _ = self._parts
        return [self._pair(text, i) for i in rng.integers(0, len(text) - self.block, self.epoch_size)]

    def evaluation_sets(self, rng: Generator) -> dict[str, list[Pair]]:
        _, text = self._parts
        return {"valid": [self._pair(text, i) for i in range(0, len(text) - self.block, self.block)]}

    def _pair(self, text: np.ndarray, i: int) -> Any:
        """The block that begins at character i, and the same block one character later."""
        return text[i : i + self.block], text[i + 1 : i + self.block + 1]

    @cached_property
    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the text to train on, and of the text to validate with."""
        ids = np.array(self.vocabulary.encode(self._read()), "int32")
        n = len(ids) * 9 // 10
        least = 10 * self.block + 1  # so that the last tenth has a block, and a character after it
        long_enough = len(ids) >= least
        require(long_enough, "text", f"at least {least:,} characters, for block={self.block}", len(ids))
        return ids[:n], ids[n:]

    @cached_property
    def _source(self) -> str:
        package = Path(__file__).parents[1]
        return "\n".join(path.read_text("utf-8") for path in sorted(package.rglob("*.py")))

    def _read(self) -> str:
        if not self.text:
            return self._source
        try:
            text = content_of(self.text).decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.text}: not UTF-8, at byte {error.start:,}") from None
        if "\0" in text:
            raise InputError(f"{self.text}: a NUL in it, as UTF-16 has; save it as UTF-8")
        if not text:
            raise InputError(f"{self.text}: expected a text, got an empty file")
        return text


def _read_utf8(path: Path) -> str | None:
    """The text in a file of a run folder; None if there is no such file. Raises CheckpointError if it is damaged."""
    try:
        return path.read_bytes().decode() if path.exists() else None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: damaged: expected characters in UTF-8") from None
