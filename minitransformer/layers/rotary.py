"""Not in the paper: rotary positions (Su et al. 2021), which turn queries and keys in place of adding to embeddings.

A step along the sinusoids of §3.5 rotates each pair (sin, cos) by its own angle. Here the same rotation acts on each
pair of numbers of a query or key, so their product depends on the distance between the two, not on where they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minitransformer.backend import Array, DTypeLike, Generator, array_module
from minitransformer.module import Module
from minitransformer.validation import checked
from minitransformer.validation.layers import placed_inputs


class Rotation(NamedTuple):
    """The angles of a token for each pair of a head, as cosines and sines: (B or 1, 1, T, d_k / 2) each."""

    cos: Array
    sin: Array


def rotation(at: Array, d_k: int, dtype: DTypeLike) -> Rotation:
    """The angles at · ω_i of the d_k / 2 pairs of tokens at positions `at`: (B, T, n).

    Where a token has n positions, counted from n ends, d_k / 2n of its pairs turn by each. ω_i falls from 1 towards
    1 / 10000 over these, as in §3.5.
    """
    xp, n_pairs = array_module(at), d_k // 2 // at.shape[-1]
    omega = 10000.0 ** (-xp.arange(n_pairs) / n_pairs)
    angle = (at[..., None] * omega).reshape(*at.shape[:2], -1)[:, None]
    return Rotation(*(x.astype(dtype) for x in (xp.cos(angle), xp.sin(angle))))


def rotate(x: Array, by: Rotation) -> Array:
    """Each pair (x_2i, x_2i+1) turned as a step along the sinusoids turns (sin, cos): x, y: (B, h, T, d_k).

    y_2i = cos · x_2i + sin · x_2i+1,   y_2i+1 = cos · x_2i+1 - sin · x_2i
    """
    cos, sin = by
    even, odd = x[..., 0::2], x[..., 1::2]
    y = array_module(x).empty_like(x)
    y[..., 0::2] = cos * even + sin * odd
    y[..., 1::2] = cos * odd - sin * even
    return y


def rotate_back(y: Array, by: Rotation) -> Array:
    """The inverse of `rotate`, which is its transpose as well."""
    return rotate(y, Rotation(by.cos, -by.sin))


@dataclass(frozen=True)
class PlacedMask:
    """The mask of RotaryAttention: where a query may look, and the positions of queries and keys."""

    mask: Any  # as for any attention
    query_at: Array  # (B, T_q, n), or (1, T_q, n) for all sentences alike
    key_at: Array  # (B, T_k, n), likewise
    known: dict[Any, tuple[Rotation, Rotation]] = field(default_factory=dict, init=False, repr=False)

    def rotations(self, d_k: int, dtype: DTypeLike) -> tuple[Rotation, Rotation]:
        """The rotations of queries and keys, computed once for all layers."""
        key = d_k, str(dtype)
        if key not in self.known:
            self.known[key] = rotation(self.query_at, d_k, dtype), rotation(self.key_at, d_k, dtype)
        return self.known[key]

    def __getitem__(self, sentences: Array) -> PlacedMask:
        """The mask of these sentences only."""
        query_at, key_at = (at if len(at) == 1 else at[sentences] for at in (self.query_at, self.key_at))
        return PlacedMask(self.mask[sentences], query_at, key_at)

    def __len__(self) -> int:
        return len(self.mask)

    def with_queries_at(self, at: int) -> PlacedMask:
        """A mask with these keys, for queries that are all at position `at`."""
        n = self.key_at.shape[-1]
        return PlacedMask(self.mask, array_module(self.key_at).full((1, 1, n), at), self.key_at)


def placed_masks(
    padding: Array, causal: Array, src_at: Array, tgt_at: Array
) -> tuple[PlacedMask, PlacedMask, PlacedMask]:
    """The masks of the encoder, of the decoder, and of the decoder's attention over the encoder's output.

    A token of the target has one position. In the source, it is compared with each of the n positions of a token.
    """
    to_source = array_module(tgt_at).broadcast_to(tgt_at, (*tgt_at.shape[:2], src_at.shape[-1]))
    return (
        PlacedMask(padding, src_at, src_at),
        PlacedMask(causal, tgt_at, tgt_at),
        PlacedMask(padding, to_source, src_at),
    )


class RotaryCache(NamedTuple):
    attention: Any
    queries: Rotation
    keys: Rotation

    def all_weights(self) -> Array:
        """The attention weights, (B, h, T_q, T_k)."""
        return self.attention.all_weights()


class RotaryAttention(Module):
    """An attention, such as AttentionInBlocks, of queries and keys turned by their positions.

    forward   context = Attention(R_q Q, R_k K, V)               R turns each pair of numbers: see `rotate`
    backward  dQ = R_qᵀ dQ', dK = R_kᵀ dK', with dQ', dK', dV from the attention

    Shapes are those of ScaledDotProductAttention. The mask, a PlacedMask, holds the positions too.
    """

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    @checked(placed_inputs)
    def forward(
        self, Q: Array, K: Array, V: Array, mask: PlacedMask, rng: Generator | None = None
    ) -> tuple[Array, RotaryCache]:
        queries, keys = mask.rotations(Q.shape[-1], Q.dtype)
        context, cache = self.attention.forward(rotate(Q, queries), rotate(K, keys), V, mask.mask, rng)
        return context, RotaryCache(cache, queries, keys)

    def backward(self, dcontext: Array, cache: RotaryCache) -> tuple[Array, Array, Array]:
        dQ, dK, dV = self.attention.backward(dcontext, cache.attention)
        return rotate_back(dQ, cache.queries), rotate_back(dK, cache.keys), dV

    def attend(self, Q: Array, K: Array, V: Array, mask: PlacedMask | None) -> Array:
        """The context of a few queries, computed without blocks.

        Without a mask, as in self-attention while decoding, the keys are at 0, 1, …, and the query is at the last one.
        """
        if mask is None:
            at = array_module(K).arange(K.shape[2])[None, :, None]
            mask = PlacedMask(None, at[:, -1:], at)
        queries, keys = mask.rotations(Q.shape[-1], Q.dtype)
        return self.attention.attend(rotate(Q, queries), rotate(K, keys), V, mask.mask)
