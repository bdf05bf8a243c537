"""Hostile input to layers: masks, arrays and generators of all kinds. The answer is right, or it is refused in a line.

Right is what the plain formula gives for the same numbers written out plainly: the mask with all four axes, the array
in C order. Nothing that was given is written to, and no warning comes.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hostile import ANYTHING, ARRAYS, REFUSED, VALUES, attempt, finite, mostly
from hypothesis import given
from hypothesis import strategies as st
from support import randomise

import minitransformer as mt
from minitransformer.checks import CASES, Sizes
from minitransformer.module import Module

SEEDS = st.integers(0, 2**32 - 1)
SIZE = st.sampled_from([1, 2, 3])
SMALL = st.builds(
    lambda B, T_q, T_k, h: Sizes(B, T_q, T_k, h, 4, 6, 8, 5, 13, 17), SIZE, SIZE, SIZE, SIZE
)  # with sizes that are equal, so that a mask could be taken for another one


def frozen(x: Any) -> Any:
    """What can be compared later, to see whether `x` was written to."""
    if isinstance(x, np.ndarray):
        kind = [repr(item) for item in x.flat] if x.dtype.hasobject else x.tobytes()
        return x.shape, x.dtype, x.strides, kind
    return repr(x)


def close(a: Any, b: Any, precision: float) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=precision, atol=precision))


# --- masks ----------------------------------------------------------------------------------------------

# name in CASES -> inputs with their masks as keywords, and the shape of the scores that each mask is for
ATTENTIONS = ["softmax", "ScaledDotProductAttention", "AttentionInBlocks", "MultiHeadAttention", "EncoderLayer",
              "PreNormEncoderLayer", "DecoderLayer", "PreNormDecoderLayer", "Encoder", "Decoder"]  # fmt: skip


def scores_of(name: str, s: Sizes, argument: str) -> tuple[int, ...]:
    """The shape of the scores that this mask is for."""
    if argument == "tgt_mask":
        return s.B, s.h, s.T_q, s.T_q
    return (s.B, s.h, s.T_k, s.T_k) if "Encoder" in name else (s.B, s.h, s.T_q, s.T_k)


@st.composite
def any_mask(draw: Any, shape: tuple[int, ...]) -> Any:
    """A mask of up to five axes, most of booleans, most with sizes that fit somewhere; or anything."""
    kind = draw(st.sampled_from(["fits", "fits", "last two", "axes", "axes", "anything"]))
    if kind == "anything":
        return draw(ANYTHING)
    axes = {
        "fits": [draw(st.sampled_from([1, n])) for n in shape],
        "last two": list(shape[-2:]),
        "axes": draw(st.lists(st.sampled_from([*shape, 1, 0, 2]), max_size=5)),
    }[kind]
    mask = np.asarray(np.random.default_rng(draw(SEEDS)).random(axes) < 0.6)
    dtype = draw(st.sampled_from(["?", "?", "?", "?", "i1", "f4", "O", "U5", "c16"]))
    layout = st.sampled_from([lambda x: x, np.asfortranarray, np.flip, lambda x: x.view(Subclass), readonly])
    return draw(mostly(layout, st.just(np.ndarray.tolist)))(mask.astype(dtype))


class Subclass(np.ndarray):
    """An array of a class of its own."""


def readonly(x: Any) -> Any:
    x.flags.writeable = False
    return x


def written_out(mask: Any, shape: tuple[int, ...]) -> Any:
    """The mask with all axes of the scores, by the rule of docs/doors.md; REFUSED if it is to be refused."""
    if mask is None:
        return np.ones(shape, bool)
    if not isinstance(mask, np.ndarray | np.bool_) or mask.dtype != bool:
        return REFUSED
    fits = mask.ndim == len(shape) and all(m in (1, n) for m, n in zip(mask.shape, shape, strict=True))
    pairs = mask.shape == shape[-2:] and not (len(shape) > 2 and shape[0] == shape[-2] > 1)
    return np.broadcast_to(np.asarray(mask), shape).copy() if fits or pairs else REFUSED


@given(st.data(), st.sampled_from(ATTENTIONS), SMALL, SEEDS)
def test_masks_at_every_attention(data, name, sizes, seed):
    rng = np.random.default_rng(seed)
    layer, inputs = data.draw(st.sampled_from(CASES[name]))(sizes, rng)
    if hasattr(layer, "n_heads"):
        sizes = sizes._replace(h=layer.n_heads)
    names = mask_names(layer)
    randomise(layer, rng, 0.3)
    given_, plain = list(inputs[: -len(names)] if inputs[-1].dtype == bool else inputs), []
    for argument in names:
        shape = scores_of(name, sizes, argument)
        given_.append(data.draw(any_mask(shape)))
        plain.append(written_out(given_[-1], shape))
    before = [frozen(x) for x in given_]
    answer = attempt(f"{name}, mask", lambda: layer.forward(*given_))
    assert [frozen(x) for x in given_] == before
    assert (answer is REFUSED) == any(mask is REFUSED for mask in plain)
    if answer is not REFUSED:
        expected = layer.forward(*given_[: -len(names)], *plain)
        assert close(answer[0], expected[0], 1e-12)
        dy = rng.normal(size=answer[0].shape)
        for a, b in zip(*(arrays(layer.backward(dy, cache)) for _, cache in (answer, expected)), strict=True):
            assert close(a, b, 1e-12)


def mask_names(layer: Module) -> list[str]:
    code = getattr(type(layer).forward, "__wrapped__", type(layer).forward).__code__
    return [name for name in code.co_varnames[: code.co_argcount] if name.endswith("mask")]


def arrays(returned: Any) -> list[Any]:
    return [] if returned is None else list(returned) if isinstance(returned, tuple) else [returned]


@given(st.data(), st.lists(st.integers(1, 3), min_size=1, max_size=5), SEEDS)
def test_masks_of_a_softmax_of_any_number_of_axes(data, shape, seed):
    scores, shape = np.random.default_rng(seed).normal(size=shape), tuple(shape)
    mask = data.draw(any_mask(shape))
    plain, before = written_out(mask, shape), frozen(mask)
    answer = attempt("softmax, mask", lambda: mt.layers.softmax(scores, mask))
    assert (answer is REFUSED) == (plain is REFUSED) and frozen(mask) == before
    assert answer is REFUSED or close(answer, mt.layers.softmax(scores, plain), 1e-12)


# --- arrays ---------------------------------------------------------------------------------------------


def unaligned(x: Any) -> Any:
    return np.frombuffer(b"\0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)


def array_like(x: Any, *names: str) -> Any:
    """An object with some of the attributes of an array."""
    return type("ArrayLike", (), {name: getattr(x, name) for name in names})()


LAYOUTS: list[Any] = [
    np.asfortranarray,
    readonly,
    unaligned,
    np.ma.masked_array,
    lambda x: x.view(Subclass),
    lambda x: x.astype(x.dtype.newbyteorder()),
    lambda x: np.flip(np.flip(x).copy()),
    lambda x: np.repeat(x, 2, -1)[..., ::2],
    lambda x: np.rec.array(x),
]
DTYPES = ["e", "f", "g", "F", "D", "i", "B", "?", "O", "U", "S", "m8[s]", "M8[s]", ">f4", ">i2"]
SHAPES: list[Any] = [
    np.transpose,
    np.ravel,
    lambda x: x[None],
    lambda x: x[:0],
    lambda x: x[..., :0],
    lambda x: x[..., 0],
    lambda x: x[0],
    lambda x: x[:1],
    lambda x: x[..., :1],
    lambda x: x[:, :1],
    lambda x: x[:, 1:],
    lambda x: x[..., 1:],
    lambda x: x.ravel()[0],
    lambda x: x.sum(),
    lambda x: np.concatenate([x, x]),
    lambda x: np.concatenate([x, x], -1),
]
OTHERS: list[Any] = [
    memoryview,
    tuple,
    iter,
    lambda x: x.tolist(),
    lambda x: x.ravel()[0].item(),
    lambda x: x.reshape(-1, x.shape[-1]).view(np.matrix),
    lambda x: np.ma.masked_all(x.shape, x.dtype),
    lambda x: array_like(x, "dtype"),
    lambda x: array_like(x, "dtype", "shape"),
    lambda x: array_like(x, "dtype", "shape", "size", "astype"),
    lambda x: array_like(x, "dtype", "shape", "size", "ndim", "astype", "__array__"),
]
GENERATORS = st.one_of(
    st.sampled_from([0, 2**70, True, "0", 1.5, [1, 2], np.int64(3), len, object()]),
    st.sampled_from([np.random, random, random.Random(0), np.random.Generator, np.random.default_rng]),
    st.sampled_from([np.random.RandomState(0), np.random.PCG64(0), np.random.SeedSequence(0)]),
)


@given(st.data(), st.sampled_from([*CASES]), SEEDS)
def test_arrays_in_every_layout(data, name, seed):
    """In any memory, the same numbers give the same answer."""
    rng = np.random.default_rng(seed)
    layer, inputs = data.draw(st.sampled_from(CASES[name]))(Sizes(), rng)
    randomise(layer, rng, 0.3)
    at = data.draw(st.integers(0, len(inputs) - 1))
    hostile = list(inputs)
    hostile[at] = data.draw(st.sampled_from(LAYOUTS))(inputs[at].copy())
    before = [frozen(x) for x in hostile]
    answer = attempt(f"{name}, layout", lambda: layer.forward(*hostile))
    assert [frozen(x) for x in hostile] == before
    if answer is not REFUSED:
        y, cache = layer.forward(*inputs)
        assert close(answer[0], y, 1e-12)
        dy = rng.normal(size=np.shape(y))
        for a, b in zip(*(arrays(layer.backward(dy, c)) for c in (answer[1], cache)), strict=True):
            assert close(a, b, 1e-12)


@given(st.data(), st.sampled_from([*CASES]), SEEDS)
def test_arrays_of_every_kind(data, name, seed):
    """What is accepted gives finite numbers, and gradients of the shapes of what was given."""
    rng = np.random.default_rng(seed)
    layer, inputs = data.draw(st.sampled_from(CASES[name]))(Sizes(), rng)
    randomise(layer, rng, 0.3)
    at = data.draw(st.integers(0, len(inputs) - 1))
    dtypes = st.sampled_from(DTYPES).map(lambda dtype: lambda x: x.astype(dtype))
    change = st.one_of(dtypes, *map(st.sampled_from, (SHAPES, SHAPES, OTHERS)))
    hostile = list(inputs)
    hostile[at] = data.draw(
        st.one_of(change.map(lambda f: f(inputs[at])), change.map(lambda f: f(inputs[at])), ANYTHING)
    )
    before = [frozen(x) for x in hostile]
    answer = attempt(f"{name}, arrays", lambda: layer.forward(*hostile))
    assert [frozen(x) for x in hostile] == before
    if answer is REFUSED or not finite(
        *(x for x in hostile if isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "fc")
    ):
        return
    y, cache = answer
    assert finite(y)
    if getattr(hostile[at], "dtype", None) in (
        "c8",
        "c16",
    ):  # backward of a real layer has no place for a complex gradient
        return
    shapes = [np.shape(x) for x in hostile if getattr(x, "dtype", np.dtype("O")).kind in "fc"]
    dxs = arrays(layer.backward(rng.normal(size=np.shape(y)).astype(y.dtype), cache))
    assert not dxs or [np.shape(dx) for dx in dxs] == shapes


# what checks/wrapped.py makes of functions and models is no layer of the package's
WRAPPED = "softmax", "RotaryAttention", "LabelSmoothedCrossEntropy", "TiedEmbedding", "TransformerWithLoss"
LAYERS = [name for name in CASES if name not in WRAPPED]


@given(st.data(), st.sampled_from(LAYERS), SEEDS)
def test_things_of_all_kinds_for_a_generator(data, name, seed):
    layer, inputs = data.draw(st.sampled_from(CASES[name]))(Sizes(), np.random.default_rng(seed))
    rng = data.draw(st.one_of(GENERATORS, GENERATORS, VALUES, ARRAYS))
    before = frozen(rng)
    answer = attempt(f"{name}, rng", lambda: layer.forward(*inputs, rng=rng))
    assert (answer is REFUSED) == (rng is not None) and frozen(rng) == before
