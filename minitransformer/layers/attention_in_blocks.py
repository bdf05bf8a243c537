"""§3.2.1 for speed and for long sequences: equation 1, a block of queries at a time.

The plain version is `ScaledDotProductAttention` in layers/attention.py: read that first. The formulas are the
same, and so are the results, up to rounding (tests/layers/test_attention_in_blocks.py), but

1. no array of size T_q · T_k is kept. The scores of a block fit into the processor's cache, and backward computes
   them a second time from Q and K. That is one half of FlashAttention (Dao et al. 2022). The other half, blocks of
   keys with an online softmax, is not needed here, because the rows of a block are complete. The weights of a single
   block are kept. If there are several blocks, threads can share them;
2. keys at the end that no query of a block may attend to are left out, which with a causal mask
   comes to nearly half of all keys in long sentences;
3. the softmax subtracts a row's maximum only where exp would leave a safe range without it.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, TypeAlias

from minitransformer.backend import (
    Array,
    Generator,
    array_module,
    generator,
    on_gpu,
    random_bits,
    silent_overflow,
    sum_last,
    zeros,
)
from minitransformer.layers.activations import softmax_backward
from minitransformer.layers.attention import attention_scores, attention_weights
from minitransformer.layers.dropout import Dropout, DropoutCache
from minitransformer.module import Module
from minitransformer.parts import each, parts
from minitransformer.products import contiguous_on_gpu, product, write_product
from minitransformer.validation import checked
from minitransformer.validation.gradients import gradient_of_shape
from minitransformer.validation.layers import blocks_inputs
from minitransformer.validation.settings import layer_sizes

BLOCK = 1 << 18  # about how many scores are in a block: 1 MB in float32
BLOCK_ON_GPU = 1 << 27  # 512 MB, since a launch for each block costs more than reading memory twice
QUERIES = 128  # the fewest in a block: products with fewer rows are slow
SAFE = 1e12  # a row whose exps add up to between 1 / SAFE and SAFE needs no maximum subtracted

Index: TypeAlias = "tuple[slice, slice, slice]"  # sentences, heads, queries (or keys)


class BlocksCache(NamedTuple):
    Q: Array  # (B, h, T_q, d_k)
    K: Array  # (B, h, T_k, d_k)
    V: Array  # (B, h, T_k, d_v)
    mask: Array | None  # four axes
    seeds: tuple[int, ...] | None  # of the dropout in each block, if there are several and it is not off
    weights: Array | None  # (B, h, T_q, T_k) the softmax's output, if there was a single block
    dropout: DropoutCache  # of these weights

    def all_weights(self) -> Array:
        """The attention weights, (B, h, T_q, T_k), computed again from Q and K: for inspection."""
        return attention_weights(self.Q, self.K, self.mask)


class AttentionInBlocks(Module):
    """Scaled dot-product attention in blocks. For each block of queries, and the keys that they may attend to,

    forward   weights = softmax(Q Kᵀ / sqrt(d_k)) where the mask is True, 0 elsewhere
              dropped = Dropout(weights),   context = dropped V
    backward  dV += droppedᵀ dcontext,   dweights = kept · dcontext Vᵀ / (1 - p)
              dscores = weights · (dweights - Σ dweights · weights)                   the sum over the keys
              dQ = dscores K / sqrt(d_k),   dK += dscoresᵀ Q / sqrt(d_k)

    Shapes and masks are those of ScaledDotProductAttention. `rows` is the number of queries of a head in a block; with
    None, it is chosen so that the scores of a block fit into the processor's cache.
    """

    @layer_sizes
    def __init__(self, dropout: float = 0.0, rows: int | None = None) -> None:
        self.dropout = Dropout(dropout)
        self.rows = rows

    @checked(blocks_inputs)
    def forward(
        self, Q: Array, K: Array, V: Array, mask: Array | None = None, rng: Generator | None = None
    ) -> tuple[Array, BlocksCache]:
        if mask is not None and mask.ndim == 2:
            mask = mask[None, None]
        Q, K, V = map(contiguous_on_gpu, (Q, K, V))
        indices = blocks(Q, K, self.rows)
        several = len(indices) > 1
        seeds = tuple(random_bits(rng) for _ in indices) if several and rng and self.dropout.p else None
        cache = BlocksCache(Q, K, V, mask, seeds, None, DropoutCache(None))
        context = zeros_for_heads(Q.shape[:3], V)

        def attend(i: int) -> tuple[Array, DropoutCache]:
            index = indices[i]
            weights = block_weights(cache, index)
            dropped, cache_dropout = self.dropout.forward(weights, generator(seeds[i]) if seeds else rng)
            write_product(context[index], dropped, V[keys_of(index, weights)])
            return weights, cache_dropout

        if several:
            each(attend, range(len(indices)))
            return context, cache
        weights, cache_dropout = attend(0)
        return context, cache._replace(weights=weights, dropout=cache_dropout)

    def attend(self, Q: Array, K: Array, V: Array, mask: Array | None) -> Array:
        """The context of a few queries, computed without blocks and without dropout."""
        return attention_weights(Q, K, mask) @ V

    @gradient_of_shape(lambda layer, cache: (*cache.Q.shape[:-1], cache.V.shape[-1]))
    def backward(self, dcontext: Array, cache: BlocksCache) -> tuple[Array, Array, Array]:
        Q, K, V, _, seeds, *_ = cache
        dcontext = contiguous_on_gpu(dcontext)
        dQ, dK, dV = (zeros_for_heads(x.shape[:3], x) for x in (Q, K, V))

        def go_back(of_the_same_keys: list[tuple[int, Index]]) -> None:
            for i, index in of_the_same_keys:
                if cache.weights is None:
                    weights = block_weights(cache, index)
                    rng = generator(seeds[i]) if seeds else None
                    dropped, cache_dropout = self.dropout.forward(weights, rng)
                else:
                    weights, cache_dropout = cache.weights, cache.dropout
                    dropped = self.dropout.backward(
                        weights, cache_dropout
                    )  # kept · weights / (1 - p), as in forward
                keys = keys_of(index, weights)
                add_or_write(dV[keys], dropped.swapaxes(-1, -2), dcontext[index], index)
                ddropped = product(dcontext[index], V[keys].swapaxes(-1, -2))
                dweights = self.dropout.backward(ddropped, cache_dropout)
                dscores = softmax_backward(dweights, weights)
                write_product(dQ[index], dscores, K[keys])
                add_or_write(dK[keys], dscores.swapaxes(-1, -2), Q[index], index)

        indices = enumerate(blocks(Q, K, self.rows))
        each(go_back, [list(group) for _, group in itertools.groupby(indices, key=lambda item: item[1][:2])])
        scale = 1 / math.sqrt(Q.shape[-1])
        dQ *= scale
        dK *= scale
        return dQ, dK, dV


def block_weights(cache: BlocksCache, index: Index) -> Array:
    """The softmax's output for the queries of a block, and for as many keys as they may attend to."""
    mask, T_k = cache.mask, cache.K.shape[2]
    if mask is not None:
        mask = mask[tuple(i if size > 1 else slice(None) for i, size in zip(index, mask.shape, strict=False))]
        # a part of a single sentence, so no other sentence needs the keys that it leaves out
        if index[2] != slice(0, cache.Q.shape[2]) and not on_gpu(mask):
            T_k = n_keys(mask, T_k)
            mask = mask[..., :T_k]
    Q, K = cache.Q[index], cache.K[(*index[:2], slice(T_k))]
    if on_gpu(Q):  # looking for unsafe rows would wait for the GPU
        return attention_weights(Q, K, mask)
    weights, unsafe = softmax_without_maximum(attention_scores(Q, K), mask)
    if unsafe.any():
        weights = array_module(Q).where(unsafe, attention_weights(Q, K, mask), weights)
    return weights


def softmax_without_maximum(scores: Array, mask: Array | None) -> tuple[Array, Array]:
    """softmax(scores, mask), in place of `scores`, and which rows, (b, h, q, 1), need their maximum subtracted.

    exp(score - maximum) / Σ exp(score - maximum) is exp(score) / Σ exp(score), so the passes over all scores that
    find and subtract the maximum gain nothing, unless a row's sum is so large that exps overflow, or so small that
    they underflow. A row that may attend to nothing has the sum 0, so it is one of these.
    """
    xp = array_module(scores)
    if mask is not None:
        scores += xp.where(mask, 0, -xp.inf).astype(scores.dtype)
    with silent_overflow():
        weights = xp.exp(scores, out=scores)
        total = sum_last(weights)
        weights /= total  # not times 1 / total, so that the weight of a row's only key is exactly 1
    return weights, ~((total.real > 1 / SAFE) & (total.real < SAFE))


def blocks(Q: Array, K: Array, rows: int | None) -> list[Index]:
    """The indices of all blocks, each of `rows` queries, or of about BLOCK scores but at least QUERIES queries."""
    (B, h, T_q, _), T_k = Q.shape, K.shape[2]
    rows = rows or max((BLOCK_ON_GPU if on_gpu(Q) else BLOCK) // T_k, QUERIES)

    def cut(size: int, step: int) -> list[slice]:
        return parts(size, -(-size // max(step, 1)))

    return list(itertools.product(cut(B, rows // (h * T_q)), cut(h, rows // T_q), cut(T_q, rows)))


def add_or_write(out: Array, a: Array, b: Array, index: Index) -> None:
    """out += a b, or out = a b for the first block of queries, for which `out` is still zero."""
    if index[2].start == 0:
        write_product(out, a, b)
    else:
        out += product(a, b)


def n_keys(mask: Array | None, T_k: int) -> int:
    """How many keys there are up to the last one that any query may attend to; at least one."""
    if mask is None or mask.shape[-1] == 1:
        return T_k
    attended = mask.any((0, 1, 2))
    return max(T_k - int(attended[::-1].argmax()), 1) if attended.any() else 1


def keys_of(index: Index, weights: Array) -> Index:
    """The index of a block's keys in K and V."""
    return (*index[:2], slice(weights.shape[-1]))


def zeros_for_heads(shape: tuple[int, ...], like: Array) -> Array:
    """Zeros (B, h, T, d) in the memory order of (B, T, h · d), so that merging the heads copies nothing."""
    B, h, T = shape
    return zeros((B, T, h, like.shape[-1]), like.dtype, like).swapaxes(1, 2)
