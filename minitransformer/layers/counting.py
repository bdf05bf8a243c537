"""Positions of tokens, counted from the start of a sentence, as in §3.5, from its end, or from both.

The encoder sees the whole source, so it can be told how far each token is from the end as well as from the start. A
decoder that writes the answer token by token knows only the start of the target.
"""

from __future__ import annotations

from minitransformer.backend import Array, Generator, array_module


def from_start(ids: Array, pad_id: int) -> Array:
    """t for the t-th token, padding or not, which is the same in all sentences: (B, T) -> (1, T, 1)."""
    return array_module(ids).arange(ids.shape[1])[None, :, None]


def from_end(ids: Array, pad_id: int) -> Array:
    """How many words follow each token: (B, T) -> (B, T, 1). The last word is at 0, as padding after it is."""
    words = ids != pad_id
    from_here_on = words[:, ::-1].cumsum(1)[:, ::-1]
    return array_module(ids).maximum(from_here_on - 1, 0)[..., None]


def from_both_ends(ids: Array, pad_id: int) -> Array:
    """The positions from the start and from the end, side by side: (B, T) -> (B, T, 2)."""
    xp, end = array_module(ids), from_end(ids, pad_id)
    return xp.concatenate([xp.broadcast_to(from_start(ids, pad_id), end.shape), end], -1)


def random_places(rng: Generator, B: int, n: int, start: int, gaps: int) -> Array:
    """n ascending positions for each of B sentences, (B, n): a random first one, 0 … `start`, then random steps.

    The steps of a sentence are 1 … m, where m is random too, 1 … `gaps`, so some sentences are dense and some sparse.

    In training, the t-th token may be given the t-th of these positions instead of t, in source and target alike. The
    model then meets positions and distances for which no training sentence is long enough.
    """
    most = rng.integers(1, gaps + 1, (B, 1))
    steps = rng.integers(1, most + 1, (B, n))
    steps[:, 0] = rng.integers(0, start + 1, B)
    return steps.cumsum(1)


def at_places(places: Array, at: Array) -> Array:
    """places[b, at[b]] for each sentence b: (B, n), (B or 1, T, k) -> (B, T, k)."""
    xp = array_module(at)
    return xp.asarray(places)[xp.arange(len(places))[:, None, None], at]


# by their names in TransformerConfig.count_source_from
COUNTS = {"start": from_start, "end": from_end, "both": from_both_ends}
