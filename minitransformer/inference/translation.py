"""Translation of any number of sentences of any lengths: in batches, greedily or by beam search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minitransformer.backend import Array, padded, silent_overflow, to_host
from minitransformer.errors import InputError
from minitransformer.inference.beam import Hypothesis, beam_search, check_search, likeliest, up_to
from minitransformer.inference.greedy import greedy_decode
from minitransformer.models.decoder_only import DecoderOnly
from minitransformer.models.encoder_only import EncoderOnly
from minitransformer.models.families import Model, Writer
from minitransformer.training.batching import BOS, EOS, PAD, by_length
from minitransformer.validation.settings import INT64, as_integer, as_list

BATCH_TOKENS = 4096
# §6.1: output of at most the input's length + 50
LONGER_THAN_SOURCE = 50


def translate(
    model: Model, sources: Sequence[Sequence[int]], beam: int = 1, alpha: float = 0.6
) -> list[list[int]]:
    """Translations of sources of any lengths, in their order, without BOS and EOS: greedy, or the best of a beam.

    Raises InputError for sources that are not lists of the model's ids, or too long for it.
    """
    sources = [as_list("sources", source, "ids") for source in as_list("sources", sources, "lists of ids")]
    for source in sources:
        for i in source:
            as_integer("sources", i, 0, INT64, "ids")
    return [row[:-1] if row[-1:] == [EOS] else row for row in decode(model, sources, beam, alpha)]


def longest_source(model: Model) -> int:
    """The most ids that a source may have.

    An encoder-decoder reads EOS after them. A decoder alone does, too, and what it writes, one id at least, counts.
    """
    return model.config.max_len - (
        0 if isinstance(model, EncoderOnly) else 1 + isinstance(model, DecoderOnly)
    )


def decode(
    model: Model, sources: Sequence[Sequence[int]], beam: int = 1, alpha: float = 0.6
) -> list[list[int]]:
    """Translations as in `translate`, but each with its EOS, unless it reached its maximum length first."""
    if isinstance(model, EncoderOnly):
        return [answer.ids for answer in labels(model, sources)]
    if check_search(beam, alpha) > 1:
        return [found[0].ids for found in n_best(model, sources, beam, alpha)]
    translations: list[list[int]] = [[] for _ in sources]
    for indices, src_ids, limits in _batches(model, sources, BATCH_TOKENS):
        # The logits of a model that diverges may overflow; its answers are wrong anyway.
        with silent_overflow():
            rows = to_host(greedy_decode(model, src_ids, BOS, EOS, max(limits))).tolist()
        for i, row, limit in zip(indices, rows, limits, strict=True):
            translations[i] = up_to(EOS, row[:limit])
    return translations


def labels(model: EncoderOnly, sources: Sequence[Sequence[int]]) -> list[Hypothesis]:
    """The likeliest symbol at each position of each source, or the likeliest one for all of it; then EOS.

    The score is log P of these symbols, which are independent of one another.
    """
    answers = [Hypothesis([], 0.0) for _ in sources]
    for indices in by_length([(source, ()) for source in sources], BATCH_TOKENS):
        with silent_overflow():
            logits, _ = model.forward(padded([sources[i] for i in indices], PAD), keep="nothing")
        B, T, V = logits.shape
        found = [to_host(x).reshape(B, T).tolist() for x in likeliest(logits.reshape(-1, V), 1)]
        for i, log_p, symbols in zip(indices, *found, strict=True):
            n = len(sources[i])
            answers[i] = Hypothesis([*symbols[:n], EOS], sum(log_p[:n]))
    return answers


def n_best(
    model: Model, sources: Sequence[Sequence[int]], beam: int = 4, alpha: float = 0.6
) -> list[list[Hypothesis]]:
    """The hypotheses that beam search finds for sources of any lengths, in their order, the best first.

    An encoder-only model has one hypothesis for each source, its `labels`, because there is nothing to search.
    """
    if isinstance(model, EncoderOnly):
        return [[answer] for answer in labels(model, sources)]
    found: list[list[Hypothesis]] = [[] for _ in sources]
    for indices, src_ids, limits in _batches(model, sources, BATCH_TOKENS // check_search(beam, alpha)):
        with silent_overflow():
            batch = beam_search(model, src_ids, beam, alpha, BOS, EOS, limits)
        for i, hypotheses in zip(indices, batch, strict=True):
            found[i] = hypotheses
    return found


def _batches(
    model: Writer, sources: Sequence[Sequence[int]], tokens: int
) -> Iterator[tuple[list[int], Array, list[int]]]:
    """The sources in batches by length: their indices, their ids, and the maximum length of each answer."""
    pairs, max_len = [(source, ()) for source in sources], model.config.max_len
    # a decoder alone has one max_len for what it reads and what it writes
    reads = isinstance(model, DecoderOnly)
    room = [max_len - (len(source) + 1) * reads for source in sources]
    if min(room, default=1) < 1:
        expected = f"at most {longest_source(model)} ids, to leave room for an answer (max_len={max_len})"
        raise InputError(f"sources: expected {expected}, got {max(map(len, sources))}")
    limits = [min(len(source) + 1 + LONGER_THAN_SOURCE, n) for source, n in zip(sources, room, strict=True)]
    for batch in by_length(pairs, tokens):
        for indices in _with_room(batch, room, limits):
            yield indices, padded([[*sources[i], EOS] for i in indices], PAD), [limits[i] for i in indices]


def _with_room(batch: list[int], room: list[int], limits: list[int]) -> list[list[int]]:
    """The batch in parts, in each of which the longest source, the last one, leaves room for every answer."""
    parts: list[list[int]] = []
    longest_answer = math.inf
    for i in batch:
        if longest_answer > room[i]:
            parts.append([])
            longest_answer = 0
        parts[-1].append(i)
        longest_answer = max(longest_answer, limits[i])
    return parts
