"""The solutions to the exercises of chapter 3 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import layers

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "03_positions.py"
spec = importlib.util.spec_from_file_location("solutions_03", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


@pytest.mark.parametrize("d_model", [2, 6, 64])
def test_exercise_2_turns_the_halves_into_the_papers_table(d_model):
    angle = np.arange(23)[:, None] / 10000 ** (2 * np.arange(d_model // 2) / d_model)
    halves = np.hstack([np.sin(angle), np.cos(angle)])
    order = solutions.solution_2(d_model)
    assert sorted(order) == list(range(d_model))
    np.testing.assert_array_equal(halves[:, order], layers.sinusoids(23, d_model))
    np.testing.assert_allclose(
        halves @ halves.T, layers.sinusoids(23, d_model) @ layers.sinusoids(23, d_model).T
    )


def test_exercise_3_divides_by_the_length_and_has_the_right_gradient():
    x = np.random.default_rng(1).normal(size=(2, 5, 3))
    layer = solutions.FractionsOfLength()
    added = layer.forward(x)[0] - x
    np.testing.assert_allclose(added, np.broadcast_to(np.arange(5)[:, None] / 5, x.shape), atol=1e-15)
    for method in ("complex", "central"):
        assert mt.gradcheck(layer, x, method=method).ok


def test_exercise_3_shows_that_earlier_positions_move():
    x = np.random.default_rng(2).normal(size=(2, 5, 3))
    moved = solutions.solution_3(x)
    np.testing.assert_allclose(moved, [t / 4 - t / 5 for t in range(4)], atol=1e-12)
    assert (moved[1:] > 0.01).all()


@pytest.mark.parametrize("base", [10000, 100])
def test_exercise_4_finds_the_first_distance_below_half(base):
    d_model = 512
    distance = solutions.solution_4(d_model, base)
    angle = np.arange(distance + 1)[:, None] / base ** (2 * np.arange(d_model // 2) / d_model)
    PE = np.hstack([np.sin(angle), np.cos(angle)])
    products = PE @ PE[0]
    assert products[distance] < products[0] / 2 <= products[:distance].min()


def test_exercise_4_says_that_a_larger_base_looks_further():
    near, far = (solutions.solution_4(512, base) for base in (100, 10000))
    assert (near, far) == (5, 54)


def test_the_dot_product_of_two_codes_does_not_fall_steadily():
    PE = layers.sinusoids(64, 64)
    np.testing.assert_allclose((PE @ PE[0])[5:7], [23.50, 23.56], atol=0.005)


@pytest.mark.parametrize("d_model", [4, 16])
def test_no_matrix_turns_sines_into_the_sines_of_the_next_position(d_model):
    """Nor with a constant beside them: the cosine that is missing is no linear combination of these."""
    code = layers.sinusoids(400, d_model)
    sines = np.hstack([code[:, ::2], np.ones((400, 1))])
    basis = np.hstack([sines, code[:, 1::2]])
    assert np.linalg.matrix_rank(basis) == basis.shape[1]
    for from_codes, possible in ((sines, False), (code, True)):
        found, *_ = np.linalg.lstsq(from_codes[:-1], from_codes[1:], rcond=None)
        assert (abs(from_codes[:-1] @ found - from_codes[1:]).max() < 1e-10) == possible


def test_rotated_queries_and_keys_see_the_distance_alone():
    query, key = np.random.default_rng(0).normal(size=(2, 6))
    rotate = solutions.solution_5
    by_distance = {}
    for p in range(0, 60, 7):
        for q in range(0, 60, 5):
            product = rotate(query, p) @ rotate(key, q)
            np.testing.assert_allclose(product, by_distance.setdefault(p - q, product), rtol=1e-10)
    assert len(by_distance) > 50 and np.ptp(list(by_distance.values())) > 0.1
    np.testing.assert_allclose(rotate(layers.sinusoids(9, 6)[2], 4), layers.sinusoids(9, 6)[6], rtol=1e-12)
