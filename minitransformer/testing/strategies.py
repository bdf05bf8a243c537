"""Hypothesis strategies for inputs on which a wrong formula shows.

Every axis has a different size, so that a transposed axis is a shape error. Ids repeat, sentences end in padding, masks
leave a row with nothing to attend to, and arrays lie in memory in every order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from minitransformer.checks.inputs import random_ids, random_mask

PRIMES = (2, 3, 5, 7, 11, 13, 17)

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(["float32", "float64"])


def sizes(n: int) -> st.SearchStrategy[tuple[int, ...]]:
    """`n` different primes from 2 to 17, one for each axis."""
    return st.permutations(PRIMES).map(lambda primes: tuple(primes[:n]))


def arrays(shape: Sequence[int], dtype: str = "float64") -> st.SearchStrategy[np.ndarray]:
    """Arrays of normally distributed numbers: none is 0, and few are far from 1."""
    return seeds.map(lambda seed: np.random.default_rng(seed).normal(size=shape).astype(dtype))


def ids(batch: int, length: int, vocab_size: int, pad_id: int = 0) -> st.SearchStrategy[np.ndarray]:
    """Ids (batch, length >= 2) with repetitions, and padding at the end of all rows but the first."""
    return seeds.map(lambda seed: random_ids(np.random.default_rng(seed), batch, length, vocab_size, pad_id))


def masks(B: int, T_q: int, T_k: int) -> st.SearchStrategy[np.ndarray]:
    """Boolean masks, True = may be attended to: of padding (B, 1, 1, T_k), causal (1, 1, T_q, T_k), or of any form.

    In the first a sentence has no word at all, and in the last (B, 1, T_q, T_k) a query has no key.
    """

    def any_of_them(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        lengths = rng.permutation(np.append(rng.integers(1, T_k + 1, B - 1), 0))
        forms = [
            (np.arange(T_k) < lengths[:, None])[:, None, None],
            np.tri(T_q, T_k, dtype=bool)[None, None],
            random_mask(rng, B, 1, T_q, T_k),
        ]
        return forms[rng.integers(len(forms))]

    return seeds.map(any_of_them)


def layouts(x: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """Read-only views with the numbers of `x` that lie in memory in any order: transposed, backwards, with gaps."""
    views = LAYOUTS if np.ndim(x) else [np.asarray]
    return st.sampled_from(views).map(lambda view: _read_only(view(x)))


def _every_second_backwards(x: np.ndarray) -> np.ndarray:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::-2] = x
    return wide[..., ::-2]


def _first_axis_backwards(x: np.ndarray) -> np.ndarray:
    return x[::-1].copy()[::-1]


def _first_axis_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.moveaxis(x, 0, -1).copy(), -1, 0)


def _every_third_row(x: np.ndarray) -> np.ndarray:
    tall = np.zeros((3 * len(x), *x.shape[1:]), x.dtype)
    tall[1::3] = x
    return tall[1::3]


LAYOUTS = [
    np.ascontiguousarray,
    np.asfortranarray,
    _every_second_backwards,
    _first_axis_backwards,
    _first_axis_last,
    _every_third_row,
]


def _read_only(x: np.ndarray) -> np.ndarray:
    view = x.view()
    view.flags.writeable = False
    return view
