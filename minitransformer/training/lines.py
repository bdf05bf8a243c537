"""Texts, a sentence a line, into translations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minitransformer.errors import InputError
from minitransformer.tasks.vocabulary import Symbols
from minitransformer.training.evaluation import n_best
from minitransformer.training.replicas import Replicas


class Translation(NamedTuple):
    """One translation of a line."""

    text: str
    score: float  # a Hypothesis's


def translate_lines(
    replicas: Replicas,
    vocabulary: Symbols,
    lines: Sequence[str],
    beam: int = 4,
    alpha: float = 0.6,
    first: int = 1,
) -> list[list[Translation]]:
    """What beam search finds for each line, the best first; nothing for a line without words.

    Raises InputError for a line that the model cannot read, with its number, `first` being that of the first.
    """
    max_len = replicas.models[0].config.max_len
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
    for i, found in zip(
        sources, replicas.in_shares(n_best, list(sources.values()), beam, alpha), strict=True
    ):
        translations[i] = [Translation(vocabulary.decode(ids), score) for ids, score in found]
    return translations
