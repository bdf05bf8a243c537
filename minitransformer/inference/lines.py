"""Translation of texts with one sentence per line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minitransformer.errors import InputError
from minitransformer.inference.beam import Hypothesis
from minitransformer.tasks.vocabulary import Symbols


class Translation(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # of its Hypothesis


def translate_lines(
    search: Callable[[list[list[int]]], list[list[Hypothesis]]],
    vocabulary: Symbols,
    lines: Sequence[str],
    max_len: int,
    first: int = 1,
) -> list[list[Translation]]:
    """The translations that `search` finds for each line, the best first; none for a line without words.

    `search` is `n_best` of a model, and `max_len` the model's. Raises InputError for a line that the model cannot read
    or that is too long, with its number, counted from `first`.
    """
    sources: dict[int, list[int]] = {}
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            sources[i] = vocabulary.encode(line)
        except InputError as error:
            raise InputError(f"line {first + i}: {error}") from None
        if len(sources[i]) >= max_len:
            raise InputError(
                f"line {first + i}: expected less than {max_len} symbols (the model's max_len), got {len(sources[i])}"
            )
    translations: list[list[Translation]] = [[] for _ in lines]
    for i, found in zip(sources, search(list(sources.values())), strict=True):
        translations[i] = [Translation(vocabulary.decode(ids), score) for ids, score in found]
    return translations
