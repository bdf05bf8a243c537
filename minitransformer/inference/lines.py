"""Translation of texts with one sentence per line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from minitransformer.errors import InputError
from minitransformer.inference.beam import Hypothesis
from minitransformer.tasks.vocabulary import Vocabulary


class Translation(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # of its Hypothesis


def translate_lines(
    search: Callable[[list[list[int]]], list[list[Hypothesis]]],
    vocabulary: Vocabulary,
    lines: Sequence[str],
    longest: int,
) -> tuple[list[list[Translation]], dict[int, str]]:
    """The translations that `search` finds for each line, the best first, and what is wrong with bad lines, by index.

    A bad line, and one without words, has no translations. `search` is `n_best` of a model, and `longest` is its
    `longest_source`. Bytes that are not UTF-8 come as the surrogates that `decode(errors="surrogateescape")` makes.
    """
    sources: dict[int, list[int]] = {}
    bad: dict[int, str] = {}
    for i, line in enumerate(lines):
        try:
            if line.strip():
                sources[i] = _encoded(vocabulary, line, longest)
        except InputError as error:
            bad[i] = str(error)
    translations: list[list[Translation]] = [[] for _ in lines]
    for i, found in zip(sources, search(list(sources.values())), strict=True):
        translations[i] = [Translation(vocabulary.decode(ids), score) for ids, score in found]
    return translations, bad


def _encoded(vocabulary: Vocabulary, line: str, longest: int) -> list[int]:
    """The ids of a line. Raises InputError if it is bad."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("not UTF-8") from None
    ids = vocabulary.encode(line)
    if len(ids) > longest:
        raise InputError(f"expected at most {longest} symbols (by the model's max_len), got {len(ids)}")
    return ids
