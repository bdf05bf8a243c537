"""§5.3: Adam against the textbook's loop over numbers, and clipping by the global norm."""

import math

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.training import optimizer as optimizer_module


class Weights(mt.Module):
    """Parameters of a few shapes, random from the start; `tied` lists one of them a second time."""

    def __init__(self, seed, tied=False, dtype="float64", sizes=((7, 11), (13,), (3, 5, 2))):
        rng = np.random.default_rng(seed)
        self.weights = [mt.Parameter(rng.normal(size=size).astype(dtype)) for size in sizes]
        if tied:
            self.again = self.weights[0]


def set_gradients(model, rng, scale=1.0):
    for p in model.parameters().values():
        p.grad = (scale * rng.normal(size=p.shape)).astype(p.data.dtype)


def adam_by_loop(p, gradients, rates, beta1, beta2, adam_eps):
    """Algorithm 1 of Kingma and Ba (2015) for one number."""
    m = v = 0.0
    for t, (g, lr) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        p = p - lr * m_hat / (math.sqrt(v_hat) + adam_eps)
    return p


@pytest.mark.parametrize("chunk", [1 << 16, 16, 17, 1])
@pytest.mark.parametrize(("betas", "adam_eps"), [((0.9, 0.98), 1e-9), ((0.7, 0.9), 1e-2), ((0.0, 0.5), 1e-9)])
def test_adam_is_the_textbooks(monkeypatch, chunk, betas, adam_eps):
    monkeypatch.setattr(optimizer_module, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    model = Weights(2)
    start = {name: p.data.copy() for name, p in model.parameters().items()}
    optimizer = mt.Adam(model, betas, adam_eps)
    rates = [0.1, 0.03, 0.2, 0.0, 0.05]
    gradients = []
    for lr in rates:
        set_gradients(model, rng, scale=10.0 ** rng.integers(-3, 4))
        gradients.append({name: p.grad.copy() for name, p in model.parameters().items()})
        optimizer.step(lr)
    for name, p in model.parameters().items():
        for i in np.ndindex(p.shape):
            expected = adam_by_loop(start[name][i], [g[name][i] for g in gradients], rates, *betas, adam_eps)
            assert p.data[i] == pytest.approx(expected, rel=1e-11)


def test_more_numbers_than_a_real_chunk_are_all_stepped():
    model = Weights(3, sizes=((optimizer_module.CHUNK + 37,), (5,)))
    optimizer = mt.Adam(model)
    before = model.flatten().data.copy()
    rng = np.random.default_rng(4)
    for p in model.parameters().values():
        p.grad = rng.choice([-1.0, 1.0], p.shape) * rng.uniform(0.1, 10, p.shape)
    optimizer.step(0.01)
    moved = model.flatten().data - before
    # the first step of Adam moves every number by lr against the sign of its gradient
    np.testing.assert_allclose(moved, -0.01 * np.sign(model.flatten().grad), rtol=1e-7)


def test_the_step_count_is_one_for_all_parameters():
    model = Weights(5)
    optimizer = mt.Adam(model)
    for expected in (1, 2, 3):
        set_gradients(model, np.random.default_rng(expected))
        optimizer.step(0.1)
        assert optimizer.t == expected
        assert int(optimizer.state_dict()["t"]) == expected


def test_a_tied_weight_is_stepped_once():
    plain, tied = Weights(6), Weights(6, tied=True)
    for model in (plain, tied):
        optimizer = mt.Adam(model)
        assert optimizer.m.size == 7 * 11 + 13 + 30
        for seed in (7, 8):
            set_gradients(model, np.random.default_rng(seed))
            optimizer.step(0.1)
    assert tied.again is tied.weights[0]
    np.testing.assert_array_equal(tied.flatten().data, plain.flatten().data)


def test_a_step_writes_where_the_model_reads_and_leaves_the_gradients():
    config = mt.TransformerConfig(
        11, 11, n_layers=1, d_model=6, n_heads=2, d_ff=10, max_len=8, tie_embeddings=True
    )
    model = mt.Transformer(config, seed=1, dtype="float64")
    src, tgt = [[3, 4, 5, 2]], [[1, 6, 7]]
    before, cache = model.forward(src, tgt)
    optimizer = mt.Adam(model)
    model.backward(np.random.default_rng(9).normal(size=before.shape), cache)
    gradients = model.flatten().grad.copy()
    optimizer.step(0.01)
    np.testing.assert_array_equal(model.flatten().grad, gradients)
    after, _ = model.forward(src, tgt)
    assert np.abs(after - before).max() > 1e-3
    E = model.parameters()["src_embedding.embedding.E"]
    assert model.output.E is E
    assert model.tgt_embedding.embedding.E is E


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype):
    model = Weights(10, dtype=dtype)
    optimizer = mt.Adam(model)
    set_gradients(model, np.random.default_rng(11))
    optimizer.step(0.1)
    assert {p.data.dtype for p in model.parameters().values()} == {np.dtype(dtype)}
    assert optimizer.m.dtype == optimizer.v.dtype == dtype


def test_a_restored_optimizer_continues_bit_for_bit():
    reference, resumed = Weights(12), Weights(12)
    optimizer = mt.Adam(reference)
    for seed in (13, 14):
        set_gradients(reference, np.random.default_rng(seed))
        optimizer.step(0.1)
    state = optimizer.state_dict()
    resumed.load_state_dict(reference.state_dict())
    restored = mt.Adam(resumed)
    restored.load_state_dict(state)
    for model, adam in ((reference, optimizer), (resumed, restored)):  # the reference first: state is a copy
        set_gradients(model, np.random.default_rng(15))
        adam.step(0.1)
    np.testing.assert_array_equal(resumed.flatten().data, reference.flatten().data)
    assert restored.t == optimizer.t == 3
    np.testing.assert_array_equal(restored.m, optimizer.m)
    np.testing.assert_array_equal(restored.v, optimizer.v)


def test_the_state_of_another_model_is_refused():
    state = mt.Adam(Weights(16, sizes=((5, 3),))).state_dict()
    optimizer = mt.Adam(Weights(16))
    with pytest.raises(mt.CheckpointError, match="120"):
        optimizer.load_state_dict(state)
    assert optimizer.t == 0


@pytest.mark.parametrize("missing", ["m", "v", "t"])
def test_a_state_that_lacks_something_is_refused(missing):
    model = Weights(17)
    state = mt.Adam(model).state_dict()
    del state[missing]
    with pytest.raises(mt.CheckpointError, match=missing):
        mt.Adam(model).load_state_dict(state)


def norm_by_loop(model):
    return math.sqrt(math.fsum(float(g) ** 2 for p in model.parameters().values() for g in p.grad.ravel()))


def test_clipping_scales_all_gradients_by_one_factor():
    model = Weights(18)
    set_gradients(model, np.random.default_rng(19), scale=3.0)
    before, norm = model.flatten().grad.copy(), norm_by_loop(model)
    assert mt.clip_grad_norm(model, norm / 4) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_allclose(model.flatten().grad, before / 4, rtol=1e-12)
    assert norm_by_loop(model) == pytest.approx(norm / 4, rel=1e-12)


@pytest.mark.parametrize("above", [None, 1.0 + 1e-9, 10.0])
def test_clipping_leaves_short_gradients_alone(above):
    model = Weights(20)
    set_gradients(model, np.random.default_rng(21))
    before, norm = model.flatten().grad.copy(), norm_by_loop(model)
    assert mt.clip_grad_norm(model, None if above is None else above * norm) == pytest.approx(norm, rel=1e-12)
    np.testing.assert_array_equal(model.flatten().grad, before)


def test_a_tied_weight_counts_once_in_the_norm():
    plain, tied = Weights(22), Weights(22, tied=True)
    for model in (plain, tied):
        set_gradients(model, np.random.default_rng(23))
    assert mt.clip_grad_norm(tied, None) == mt.clip_grad_norm(plain, None) > 1


def test_the_norm_of_zero_gradients_is_zero():
    model = Weights(24)
    model.zero_grad()
    assert mt.clip_grad_norm(model, 1.0) == 0
    assert not model.flatten().grad.any()
