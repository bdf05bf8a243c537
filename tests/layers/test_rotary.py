"""Rotary positions (Su et al. 2021): R_p turns each pair of numbers by the angle of position p."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import layers
from minitransformer.checks import Sizes
from minitransformer.checks.inputs import placed_heads
from minitransformer.layers.rotary import PlacedMask, rotate, rotate_back, rotation

rng = np.random.default_rng(7)


def at(*positions: int) -> np.ndarray:
    return np.array(positions)[None, :, None]


@pytest.mark.parametrize("step", [1, 5, -3])
def test_it_is_the_step_that_the_papers_sinusoids_take(step):
    """R_k PE[p] = PE[p + k]."""
    PE = layers.sinusoids(40, 12)
    before = PE[10:20].reshape(1, 1, 10, 12)
    after = rotate(before, rotation(at(*[step] * 10), 12, "float64"))
    np.testing.assert_allclose(after[0, 0], PE[10 + step : 20 + step], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [1, 100, 1000])
def test_a_product_depends_on_the_difference_of_positions_alone(shift):
    q, k = rng.normal(size=(2, 1, 1, 4, 10))

    def products(moved: int) -> np.ndarray:
        queries, keys = at(*np.arange(4) + moved), at(9 + moved, 3 + moved, 5 + moved, moved)
        turned = rotate(q, rotation(queries, 10, "float64")), rotate(k, rotation(keys, 10, "float64"))
        return (turned[0] * turned[1]).sum(-1)

    np.testing.assert_allclose(products(shift), products(0), rtol=0, atol=1e-11)
    assert abs(products(0) - (q * k).sum(-1)).max() > 0.1


def test_with_two_positions_each_half_turns_by_its_own():
    x = rng.normal(size=(3, 2, 5, 8))
    both = rng.integers(0, 30, (3, 5, 2))
    y = rotate(x, rotation(both, 8, "float64"))
    for half in (0, 1):
        alone = rotate(x[..., 4 * half : 4 * half + 4], rotation(both[..., half : half + 1], 4, "float64"))
        np.testing.assert_array_equal(y[..., 4 * half : 4 * half + 4], alone)


def test_back_is_the_inverse_and_the_transpose():
    x, y = rng.normal(size=(2, 3, 2, 5, 8))
    by = rotation(rng.integers(0, 30, (3, 5, 1)), 8, "float64")
    np.testing.assert_allclose(rotate_back(rotate(x, by), by), x, rtol=0, atol=1e-12)
    np.testing.assert_allclose((rotate(x, by) * y).sum(), (x * rotate_back(y, by)).sum(), rtol=1e-12)


def test_the_weights_are_those_of_complex_numbers():
    """Su et al. write a pair as a complex number z: turned by position p it is z e^(i p ω)."""
    Q, K, V = (rng.normal(size=(2, 3, T, d)) for T, d in ((5, 6), (7, 6), (7, 4)))
    query_at, key_at = rng.integers(0, 50, (2, 5)), rng.integers(0, 50, (2, 7))
    mask = PlacedMask(None, query_at[..., None], key_at[..., None])
    context, cache = layers.RotaryAttention(layers.AttentionInBlocks()).forward(Q, K, V, mask)
    omega = 10000.0 ** (-np.arange(3) / 3)
    z = [
        (x[..., 1::2] + 1j * x[..., 0::2]) * np.exp(1j * p[:, None, :, None] * omega)
        for x, p in ((Q, query_at), (K, key_at))
    ]
    scores = (z[0] @ z[1].conj().swapaxes(-1, -2)).real / np.sqrt(6)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(cache.all_weights(), weights, rtol=1e-11)
    np.testing.assert_allclose(context, weights @ V, rtol=1e-11)


def test_a_mask_without_positions_or_with_those_of_other_arrays_is_refused():
    Q, K, V, *placed = placed_heads(Sizes(), rng)
    mask = PlacedMask(*placed)
    layer = layers.RotaryAttention(layers.AttentionInBlocks())
    with pytest.raises(
        mt.InputError, match=r"mask: expected a PlacedMask, which has the positions of .*, got None"
    ):
        layer.forward(Q, K, V, None)
    with pytest.raises(mt.InputError, match="mask: expected a PlacedMask"):
        layer.forward(Q, K, V, mask.mask)
    with pytest.raises(
        mt.InputError, match="Q: expected 5 positions, as the mask has them, and features in pairs"
    ):
        layer.forward(Q[:, :, :4], K, V, mask)
    with pytest.raises(mt.InputError, match=r"K: expected 7 .* for each of 2 ends, got shape \(2, 3, 7, 2\)"):
        layer.forward(Q, K[..., :2], V, mask)
    for query_at in (None, mask.query_at * 1.0, mask.query_at[0]):
        with pytest.raises(
            mt.InputError, match=r"positions of Q: expected an array of integers|Q: expected 0"
        ):
            layer.forward(Q, K, V, PlacedMask(mask.mask, query_at, mask.key_at))
    with pytest.raises(mt.InputError, match="K: expected 7 positions"):
        layer.forward(Q[:1], K[:1], V[:1], mask)
    with pytest.raises(
        mt.InputError, match=r"^Q, K: expected both real, or both complex, got complex128 and"
    ):
        layer.forward(Q + 0j, K, V, mask)


def test_a_mask_of_some_sentences_has_their_queries_and_keys():
    rng = np.random.default_rng(8)
    mask = PlacedMask(rng.random((3, 1, 4, 5)) < 0.5, rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 5, 2)))
    some = mask[np.array([2, 0])]
    for name in ("mask", "query_at", "key_at"):
        np.testing.assert_array_equal(getattr(some, name), getattr(mask, name)[[2, 0]])


def test_one_mask_may_serve_heads_of_several_widths_and_dtypes():
    at = np.arange(5)[None, :, None]
    mask = PlacedMask(None, at, at)
    for d_k in (4, 8):
        for dtype in ("float64", "float32"):
            for found in mask.rotations(d_k, np.dtype(dtype)):
                for x, expected in zip(found, rotation(at, d_k, dtype), strict=True):
                    np.testing.assert_array_equal(x, expected, strict=True)
