"""Values that no entry point is made for, and a tally of what each of them said."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minitransformer as mt

TALLY: dict[str, Counter[str]] = defaultdict(Counter)  # entry point -> how often it accepted, or raised what
REFUSED = object()


def attempt(entry: str, call: Callable[[], Any], also: tuple[type[BaseException], ...] = ()) -> Any:
    """What `call()` returns; REFUSED if it raised what is documented, or one of `also`. All else goes through."""
    try:
        answer = call()
    except (mt.MinitransformerError, *also) as error:
        assert str(error), f"{entry}: a message says what was expected and what came"
        assert "\n" not in str(error) or not isinstance(error, mt.MinitransformerError), error
        TALLY[entry][type(error).__name__] += 1
        return REFUSED
    TALLY[entry]["accepted"] += 1
    return answer


def finite(*arrays: Any) -> bool:
    return all(bool(np.isfinite(x).all()) for x in arrays)


# --- single values --------------------------------------------------------------------------------------

# Between 20 and 2^63 an integer may be honestly large: accepted, and then not a matter of a millisecond.
SMALL = st.integers(-5, 20)
HUGE = st.sampled_from(
    [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**30, 10**400, -(10**400), 10**300]
)
NUMPY_SCALARS = st.sampled_from(
    [
        np.int8(3),
        np.uint64(2**64 - 1),
        np.float32(2),
        np.float64("nan"),
        np.float64(0.5),
        np.bool_(True),
        np.str_("post"),
        np.datetime64("2017-06-12"),
        np.timedelta64(3, "s"),
        np.complex128(1j),
    ]
)
TEXT = st.text(st.characters(exclude_categories=["Nd"]), max_size=12)
SCALARS = st.one_of(
    SMALL, HUGE, NUMPY_SCALARS, TEXT, st.none(), st.booleans(), st.floats(), st.complex_numbers(), st.binary()
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.tuples(SCALARS, SCALARS),
    st.dictionaries(TEXT, SCALARS, max_size=2),
    st.sampled_from([object(), int, len, ..., range(3)]),
)
DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    st.sampled_from([np.dtype(object), np.dtype("U3"), np.dtype("S2"), np.dtype("f4,i2")]),
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
        elements=SCALARS if dtype.kind == "O" else None,
        fill=st.nothing(),
    )
)
ANYTHING = st.one_of(VALUES, ARRAYS)


def mostly(good: st.SearchStrategy, hostile: st.SearchStrategy) -> st.SearchStrategy:
    """Good five times out of six: with several arguments, each must get past the checks of the others."""
    return st.integers(0, 5).flatmap(lambda n: hostile if n == 5 else good)


# --- ids, numbers, masks --------------------------------------------------------------------------------

INTEGERS = [*(np.dtype(c) for c in "bBhHiIlLqQ"), np.dtype(">i4"), np.dtype(">u8")]


@st.composite
def good_ids(draw: Any, vocab_size: int, shape: tuple[int, ...]) -> Any:
    """Ids of a vocabulary, of any integer type, as an array of any memory layout or as lists."""
    ids = draw(hnp.arrays(draw(st.sampled_from(INTEGERS)), shape, elements=st.integers(0, vocab_size - 1)))
    return draw(st.sampled_from([ids, np.flip(ids), np.asfortranarray(ids), ids.tolist()]))


def any_ids(vocab_size: int, shape: tuple[int, ...]) -> st.SearchStrategy:
    """Good ids of this shape or another, ids outside the vocabulary, ragged lists, and anything at all."""
    near = st.integers(-2, vocab_size + 1)
    wild = st.one_of(near, SCALARS)
    other_shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9)
    bad = st.one_of(
        other_shape.flatmap(lambda s: good_ids(vocab_size, s)),
        hnp.arrays(np.int64, shape, elements=near),
        st.lists(st.lists(near, max_size=9), max_size=4),
        st.lists(st.lists(wild, max_size=3), max_size=3),
        ANYTHING,
    )
    return mostly(good_ids(vocab_size, shape), bad)


def numbers(dtype: Any, shape: tuple[int, ...], largest: float = math.inf) -> st.SearchStrategy:
    """Arrays of finite numbers of the dtype, none above `largest`: all sizes at once, constant rows, zeros."""
    width = np.dtype(dtype).itemsize * 8
    largest = float(min(largest, np.finfo(dtype).max))
    bound = float(np.nextafter(np.asarray(largest, dtype), np.asarray(0, dtype)))
    elements = st.floats(-bound, bound, width=width)
    return hnp.arrays(dtype, shape, elements=elements)


def masks(shape: tuple[int, ...]) -> st.SearchStrategy:
    """Boolean masks for scores of this shape: as many axes, each 1 or full, or the last two axes."""
    axes = st.tuples(*(st.sampled_from(sorted({1, n})) for n in shape))
    return st.one_of(axes, st.just(shape[-2:])).flatmap(lambda s: hnp.arrays(bool, s))


# the settings of a small run
TINY = {
    "n_layers": 1,
    "d_model": 6,
    "n_heads": 2,
    "d_k": 4,
    "d_ff": 5,
    "max_len": 12,
    "processes": 1,
    "accumulate": 1,
}
