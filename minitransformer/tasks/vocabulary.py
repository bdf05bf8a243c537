"""Symbols and their ids."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from minitransformer.errors import InputError, describe
from minitransformer.training.batching import EOS
from minitransformer.validation.settings import as_integer, as_list

# how the ids PAD, BOS and EOS are written
SPECIALS = ("<pad>", "<s>", "</s>")


class Vocabulary:
    """The symbols of a task; the first one has the id 3, after PAD, BOS and EOS."""

    separator = " "  # between symbols in a text

    def __init__(self, symbols: Iterable[str]) -> None:
        self.symbols: tuple[str, ...] = (*SPECIALS, *symbols)
        self._id_of = {symbol: i for i, symbol in enumerate(self.symbols) if i >= len(SPECIALS)}

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Ids of the symbols in `text`, which blanks separate. Raises InputError for no symbols or unknown ones."""
        if not isinstance(text, str):
            raise InputError(f"expected a text of symbols separated by blanks, got {describe(text)}")
        words = text.split()
        if not words:
            raise InputError("expected symbols separated by blanks, got an empty text")
        for word in words:
            if word not in self._id_of:
                near = difflib.get_close_matches(word, self._id_of)
                hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
                some = " ".join(self.symbols[len(SPECIALS) :][:10])
                raise InputError(f"unknown symbol {describe(word)}{hint}; the task's symbols begin: {some}")
        return [self._id_of[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """The symbols of `ids`, up to EOS. Raises InputError for an id that no symbol has."""
        last = len(self) - 1
        expected = f"ids 0 … {last}"
        ids = [as_integer("ids", i, 0, last, expected) for i in as_list("ids", ids, expected)]
        return self._joined(ids[: ids.index(EOS)] if EOS in ids else ids)

    def _joined(self, ids: Sequence[int]) -> str:
        return self.separator.join(self.symbols[i] for i in ids)


class Characters(Vocabulary):
    """The characters of a text."""

    separator = ""

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of `text`. Raises InputError for no characters or unknown ones."""
        if not isinstance(text, str) or not text:
            raise InputError(f"expected a text, got {describe(text)}")
        try:
            return [self._id_of[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise InputError(f"unknown character {character!r}; the text that was learned has none") from None
