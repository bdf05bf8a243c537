"""The solutions of chapter 4 solve its exercises."""

import importlib.util
from pathlib import Path

import numpy as np

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs/textbook/solutions/04_attention.py"
spec = importlib.util.spec_from_file_location("solutions_04", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def test_the_jacobian_applied_is_softmax_backward():
    rng = np.random.default_rng(0)
    mask = rng.random((2, 3, 5)) < 0.7
    weights = mt.layers.softmax(rng.normal(size=(2, 3, 5)), mask)
    dweights = rng.normal(size=weights.shape)
    jacobian = solutions.solution_3(weights)
    assert jacobian.shape == (2, 3, 5, 5)
    dscores = (jacobian @ dweights[..., None])[..., 0]
    np.testing.assert_allclose(dscores, mt.layers.softmax_backward(dweights, weights), rtol=1e-12, atol=1e-15)
    assert abs(dscores).max() > 0.01


def test_the_jacobian_is_that_of_the_softmax():
    scores, h = np.random.default_rng(1).normal(size=7), 1e-30
    columns = [mt.layers.softmax(scores + 1j * h * one).imag / h for one in np.eye(7)]
    np.testing.assert_allclose(
        solutions.solution_3(mt.layers.softmax(scores)), np.stack(columns, -1), rtol=1e-12
    )


def test_the_window_mask_lets_through_what_the_exercise_says():
    T, n = 7, 3
    mask = solutions.solution_4(np.zeros((2, T), int), n)
    assert mask.shape == (1, 1, T, T)
    assert mask.dtype == bool
    for i in range(T):
        assert np.flatnonzero(mask[0, 0, i]).tolist() == list(range(max(0, i - n + 1), i + 1))
    whole = solutions.solution_4(np.zeros((2, T), int), T)
    assert (whole == mt.layers.causal_mask(np.zeros((2, T), int))).all()


def test_two_windows_reach_back_twice_as_far():
    T, n = 9, 3
    rng = np.random.default_rng(2)
    mask = solutions.solution_4(np.zeros((1, T), int), n)
    layers = [mt.layers.MultiHeadAttention(6, 2, rng=seed, dtype="float64") for seed in (0, 1)]

    def forward(x):
        for layer in layers:
            x, _ = layer.forward(x, x, x, mask)
        return x

    x = rng.normal(size=(1, T, 6))
    y = forward(x)
    reached = []
    for s in range(T):
        changed = x.copy()
        changed[0, s] += 1.0
        if abs(forward(changed) - y)[0, -1].max() > 1e-9:
            reached.append(s)
    assert reached == list(range(T - 1 - 2 * (n - 1), T))


def test_attention_by_distance_has_the_right_gradients():
    T = 5
    rng = np.random.default_rng(3)
    layer = solutions.AttentionByDistance(T)
    layer.a.data = rng.normal(size=2 * T - 1)
    Q, K, V = rng.normal(size=(2, 3, T, 4)), rng.normal(size=(2, 3, T, 4)), rng.normal(size=(2, 3, T, 7))
    for method in ("complex", "central"):
        report = mt.gradcheck(layer, Q, K, V, method=method)
        assert report.ok, report
        assert "a" in [row.name for row in report.rows]


def test_attention_by_distance_adds_a_number_for_each_distance():
    T = 4
    rng = np.random.default_rng(4)
    Q, K, V = rng.normal(size=(2, 3, T, 4)), rng.normal(size=(2, 3, T, 4)), rng.normal(size=(2, 3, T, 5))
    layer = solutions.AttentionByDistance(T)
    plain, _ = mt.layers.ScaledDotProductAttention().forward(Q, K, V)
    np.testing.assert_allclose(layer.forward(Q, K, V)[0], plain, rtol=1e-12)  # all distances alike
    for distance in range(1 - T, T):  # a strong liking for one distance: its value, where there is one
        layer.a.data = np.where(np.arange(1 - T, T) == distance, 100.0, 0.0)
        y, _ = layer.forward(Q, K, V)
        for i in range(T):
            if 0 <= i - distance < T:
                np.testing.assert_allclose(y[:, :, i], V[:, :, i - distance], rtol=1e-9)
