"""§6.1: beam search with a length penalty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from minitransformer.backend import Array, array_module, silent_overflow, sum_last, to_host
from minitransformer.errors import InputError
from minitransformer.inference.greedy import begin, end_of
from minitransformer.models.families import Writer
from minitransformer.validation.layers import as_array
from minitransformer.validation.settings import as_integer, as_list, between, require

WIDEST = 1_024  # beam


class Hypothesis(NamedTuple):
    """One translation of a sentence."""

    ids: list[int]  # up to and including its `eos_id`, if it has one
    score: float  # log P(ids) / lp(ids), at most 0


def beam_search(
    model: Writer,
    src_ids: Array,
    beam: int = 4,
    alpha: float = 0.6,
    bos_id: int | None = 1,
    eos_id: int | None = 2,
    max_len: int | Sequence[int] = 30,
) -> list[list[Hypothesis]]:
    """The best translations found for each sentence of a batch, best first: at most `beam` of them, at least one.

    score(Y) = log P(Y) / lp(Y),    lp(Y) = ((5 + |Y|) / 6)^alpha             (Wu et al. 2016, section 7)

    |Y| counts the tokens written, including `eos_id`. Each step keeps the `beam` likeliest of all continuations of
    the unfinished hypotheses. Those that end with `eos_id`, or have `max_len` tokens (one number, or a list of one
    for each sentence), are finished; the `beam` best finished ones are kept. A sentence leaves the batch when no
    unfinished hypothesis could still be kept. Of equals, the one found first wins: continuations of the likelier
    hypothesis come first, then smaller ids. So beam=1 writes what `greedy_decode` writes, and a beam that holds every
    prefix finds the best of all sequences. None for `bos_id` or `eos_id` means the same as in `greedy_decode`.
    Raises InputError or ConfigError for ids that the model does not have, a beam that is not 1 … 1,024, alpha < 0 or
    >= 10, and a `max_len` that is not between 1 and the model's.
    """
    end = end_of(eos_id, model)
    beam = check_search(beam, alpha)
    src_ids = as_array(src_ids, "src_ids")
    B = (*src_ids.shape, 1)[0]  # `begin` refuses an array without axes
    limits = limits_of(max_len, B, model.config.max_len)
    longest = max(limits, default=1)
    tokens, state = begin(model, src_ids, bos_id, longest)
    xp, tokens = array_module(tokens), tokens[:, None]  # (b, n) the last of ids
    limit, penalty = xp.asarray(limits), xp.asarray([length_penalty(n, alpha) for n in limits])
    kept, scores = xp.full((B, beam, longest), end), xp.full((B, beam), -xp.inf)  # -inf: nothing there yet
    sentences = xp.arange(B)  # the b sentences still in the batch, with n unfinished hypotheses each:
    ids, log_P = xp.full((B, 1, longest), end), xp.zeros((B, 1))  # (b, n, max_len), (b, n); -inf: finished
    for length in range(1, longest + 1):
        b, n = tokens.shape
        # A hypothesis' beam + 1st continuation cannot be among the beam best of all.
        log_p, words = likeliest(model.decode_step(tokens.ravel(), state), beam)
        with silent_overflow():  # very low numbers may add up to -inf, which means no hypothesis
            log_P = (log_P[..., None] + log_p.reshape(b, n, -1)).reshape(b, -1)
        log_P, place = largest(log_P, beam)
        parent, tokens = place // log_p.shape[-1], xp.take_along_axis(words.reshape(b, -1), place, 1)
        ids = rows_of(ids, parent)
        ids[..., length - 1] = tokens
        finished = (tokens == end) | (length == limit[sentences])[:, None]
        score = xp.where(finished, log_P / length_penalty(length, alpha), -xp.inf)
        log_P = xp.where(finished, -xp.inf, log_P)
        score, place = largest(xp.concatenate([scores[sentences], score], 1), beam)
        scores[sentences] = score
        kept[sentences] = rows_of(xp.concatenate([kept[sentences], ids], 1), place)
        # More tokens make log P no larger, and a log P <= 0 scores best over the largest penalty, lp(max_len) as
        # alpha >= 0. Where that is no more than the worst score kept, going on changes nothing. (With NaN, it goes on.)
        done = log_P.max(-1) / penalty[sentences] <= score[:, -1]
        going = xp.arange(b)[~done]
        if len(going) == 0:
            break
        state.select((going[:, None] * n + parent[going]).ravel(), going if len(going) < b else None)
        sentences, ids, log_P, tokens = sentences[going], ids[going], log_P[going], tokens[going]
    return [
        [
            Hypothesis(up_to(end, row[:n]), score)
            for row, score in zip(*found, strict=True)
            if score != -math.inf
        ]
        for n, *found in zip(limits, to_host(kept).tolist(), to_host(scores).tolist(), strict=True)
    ]


def check_search(beam: int, alpha: float) -> int:
    """`beam` as an int. Raises InputError unless it is 1 or more, ConfigError unless `alpha` is between 0 and 10."""
    require(between(alpha, 0, 10), "alpha", "a number 0 <= alpha < 10", alpha)
    return as_integer("beam", beam, 1, WIDEST, f"1 … {WIDEST:,}")


def limits_of(max_len: int | Sequence[int], B: int, most: int) -> list[int]:
    """The maximum length of each of B translations, in tokens."""
    expected = f"1 … {most} (the model's max_len)"
    several = hasattr(max_len, "__len__") and getattr(max_len, "shape", None) != ()
    limits = as_list("max_len", max_len, "numbers") if several else [max_len] * B
    if len(limits) != B:
        raise InputError(f"max_len: expected a number, or one for each of {B} sentences, got {len(limits)}")
    return [as_integer("max_len", n, 1, most, expected) for n in limits]


def length_penalty(length: int, alpha: float) -> float:
    """lp = ((5 + length) / 6)^alpha: 1 for one token or alpha = 0, larger for more (Wu et al. 2016)."""
    return float(((5 + length) / 6) ** alpha)


def likeliest(logits: Array, n: int) -> tuple[Array, Array]:
    """log softmax of each row's n largest logits, in float64, and their places: (B, V) -> (B, n). Writes to `logits`.

    In float64, since sums in float32 would make ties of unequal numbers. The exps and their sum have the logits' dtype.
    """
    xp = array_module(logits)
    top = logits.max(-1, keepdims=True)
    with silent_overflow():  # -1e38 - 3e38 is -inf in float32, and its exp 0, as it should be
        shifted = logits - top
        total = sum_last(xp.exp(shifted, out=shifted))
        found, places = largest(logits, n)
        return found.astype("float64") - top.astype("float64") - xp.log(total.astype("float64")), places


def largest(x: Array, n: int) -> tuple[Array, Array]:
    """The n largest numbers of each row (all, if it has fewer), largest first, and their places. Writes to `x`.

    Of equal numbers the first comes first, which `argpartition` does not promise; for the few that a beam needs of
    a large vocabulary, this takes a fraction of a sort's time. -inf means no number, and its place has no meaning.
    """
    xp = array_module(x)
    rows, numbers, places = xp.arange(len(x)), [], []
    for _ in range(min(n, x.shape[1])):
        places.append(x.argmax(-1))
        numbers.append(x[rows, places[-1]])
        x[rows, places[-1]] = -xp.inf
    return xp.stack(numbers, 1), xp.stack(places, 1)


def rows_of(ids: Array, indices: Array) -> Array:
    """y[b, i] = ids[b, indices[b, i]]: (b, n, T), (b, m) -> (b, m, T)."""
    return array_module(ids).take_along_axis(ids, indices[..., None], 1)


def up_to(eos_id: int, row: list[int]) -> list[int]:
    """`row` up to and including its first `eos_id`; all of it if there is none."""
    return row[: row.index(eos_id) + 1] if eos_id in row else row
