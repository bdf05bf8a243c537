"""§3.4: rows of a matrix, its gradient, and the matrix that is shared."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support import D_MODEL, T_Q, V_SRC, B, random_ids, randomise

import minitransformer as mt
from minitransformer import layers


def test_embedding_is_a_row_times_the_square_root_of_d_model():
    rng = np.random.default_rng(5)
    layer = randomise(layers.Embedding(V_SRC, D_MODEL), rng)
    ids = random_ids(rng, B, T_Q, V_SRC)
    y, _ = layer.forward(ids)
    np.testing.assert_allclose(y[1, 0], math.sqrt(D_MODEL) * layer.E.data[ids[1, 0]], rtol=1e-12)


def test_embedding_gradient_counts_every_occurrence_of_an_id():
    layer = layers.Embedding(3, 4, dtype="float64")
    _, cache = layer.forward(np.array([[1, 1, 1, 2]]))
    dy = np.random.default_rng(6).normal(size=(1, 4, 4))
    layer.backward(dy, cache)
    np.testing.assert_allclose(
        layer.E.grad, 2 * np.stack([0 * dy[0, 0], dy[0, :3].sum(0), dy[0, 3]]), rtol=1e-12
    )


def test_a_tied_matrix_is_taken_as_it_is():
    E = mt.Parameter(np.ones((V_SRC, D_MODEL)))
    assert layers.Embedding(V_SRC, D_MODEL, E=E).E is E
    assert layers.OutputProjection(V_SRC, D_MODEL, E=E).E is E


@pytest.mark.parametrize("Layer", [layers.Embedding, layers.OutputProjection])
def test_a_matrix_of_another_size_is_refused(Layer):
    with pytest.raises(mt.ConfigError, match=r"E: expected shape \(10, 8\), got float32 of shape \(5, 4\)"):
        Layer(10, 8, E=mt.Parameter(np.ones((5, 4), "float32")))
