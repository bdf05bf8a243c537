"""§5.3: Adam against the textbook's loop over numbers, and clipping by the global norm."""

import math

import numpy as np
import pytest
from messages import message_of

import minitransformer as mt
from minitransformer import parts


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
    monkeypatch.setattr(parts, "NUMBERS", chunk)
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


def decays(name):
    """Whether weight decay may touch a parameter: the matrices of the paper's formulas alone."""
    return name.rpartition(".")[2] in {"W_Q", "W_K", "W_V", "W_O", "W_1", "W_2"}


def model_with_biases(dtype="float64"):
    config = mt.TransformerConfig(
        11, 11, n_layers=1, d_model=6, n_heads=2, d_ff=10, max_len=8, positions="learned", attention_bias=True
    )
    return mt.Transformer(config, seed=1, dtype=dtype)


@pytest.mark.parametrize("chunk", [1 << 18, 17])
def test_weight_decay_takes_its_share_off_the_matrices_alone(monkeypatch, chunk):
    """Adam's own step depends on gradients alone, so the two updates add up, for any gradients."""
    monkeypatch.setattr(parts, "NUMBERS", chunk)
    plain, decayed = model_with_biases(), model_with_biases()
    adams = mt.Adam(plain), mt.Adam(decayed, weight_decay=0.3)
    for step, lr in enumerate((0.1, 0.0, 0.05)):
        before = [model.state_dict() for model in (plain, decayed)]
        for model, adam in zip((plain, decayed), adams, strict=True):
            set_gradients(model, np.random.default_rng(step))
            adam.step(lr)
        after = [model.state_dict() for model in (plain, decayed)]
        for name, W in before[1].items():
            moved = after[0][name] - before[0][name]
            share = lr * 0.3 * W if decays(name) else 0
            np.testing.assert_allclose(
                after[1][name], W - share + moved, rtol=1e-13, atol=1e-13, err_msg=name
            )
            assert decays(name) or (after[1][name] == after[0][name]).all()
    kept = {name.rpartition(".")[2] for name in plain.parameters() if not decays(name)}
    assert kept == {"E", "P", "gamma", "beta", "b_Q", "b_K", "b_V", "b_O", "b_1", "b_2"}
    for name in ("m", "v"):
        np.testing.assert_array_equal(getattr(adams[0], name), getattr(adams[1], name))


def test_without_gradients_a_matrix_shrinks_by_one_factor_a_step():
    model = model_with_biases("float32")
    adam = mt.Adam(model, weight_decay=0.5)
    start = model.state_dict()
    model.zero_grad()
    for _ in range(3):
        adam.step(0.1)
    for name, p in model.parameters().items():
        assert p.data.dtype == "float32"
        factor = 0.95**3 if decays(name) else 1
        np.testing.assert_allclose(p.data, factor * start[name], rtol=1e-6)


@pytest.mark.parametrize("weight_decay", [0, 0.0])
def test_no_weight_decay_changes_no_bit(weight_decay):
    plain, decayed = model_with_biases(), model_with_biases()
    for model, adam in ((plain, mt.Adam(plain)), (decayed, mt.Adam(decayed, weight_decay=weight_decay))):
        set_gradients(model, np.random.default_rng(3))
        adam.step(0.1)
    np.testing.assert_array_equal(decayed.flatten().data, plain.flatten().data)


def test_more_numbers_than_a_real_chunk_are_all_stepped():
    model = Weights(3, sizes=((parts.NUMBERS + 37,), (5,)))
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


@pytest.mark.parametrize("wrong", [("m", "v"), ("m",), ("v",)])
def test_the_state_of_another_model_is_refused(wrong):
    small = mt.Adam(Weights(16, sizes=((5, 3),))).state_dict()
    optimizer = mt.Adam(Weights(16))
    state = {**optimizer.state_dict(), "t": 7, **{name: small[name] for name in wrong}}
    message = message_of(mt.CheckpointError, optimizer.load_state_dict, state)
    assert message == f"Adam: {wrong[0]}: expected 120 numbers, got float64 of shape (15,)"
    assert optimizer.t == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": [0.0, 1.0]}, "m: expected 120 numbers, got [0.0, 1.0]"),
        ({"v": np.zeros(120, complex)}, "v: expected 120 numbers, got complex128 of shape (120,)"),
        ({"v": np.full(120, -1e-9)}, "m, v: expected finite means, and no mean of squares below 0"),
        ({"v": np.full(120, math.nan)}, "m, v: expected finite means, and no mean of squares below 0"),
        ({"t": -1}, "t: expected a number of steps, 0 or more, got -1"),
        ({"t": 2.0}, "t: expected a number of steps, 0 or more, got 2.0"),
    ],
)
def test_a_state_that_no_adam_has_is_refused(changes, message):
    optimizer = mt.Adam(Weights(16))
    state = {**optimizer.state_dict(), "m": np.ones(120), **changes}
    assert message_of(mt.MinitransformerError, optimizer.load_state_dict, state) == f"Adam: {message}"
    assert not optimizer.m.any() and optimizer.t == 0
    assert message_of(mt.CheckpointError, optimizer.load_state_dict, [1]) == (
        "Adam: expected a state of names and arrays, got [1]"
    )


def test_the_state_of_a_model_of_equal_size_is_refused():
    """Parameters of other names or shapes; a state of older versions, which says nothing of them, is taken."""
    state = mt.Adam(Weights(1, sizes=((2, 3), (6,)))).state_dict()
    for sizes in (((6,), (2, 3)), ((3, 2), (6,)), ((12,),)):
        optimizer = mt.Adam(Weights(1, sizes=sizes))
        message = message_of(mt.CheckpointError, optimizer.load_state_dict, state)
        assert message == "Adam: expected the moments of this model, got those of one with other parameters"
        optimizer.load_state_dict({name: state[name] for name in ("m", "v", "t")})


@pytest.mark.parametrize("model", [[mt.layers.Linear(2, 3)], None, mt.layers.Linear])
def test_an_optimizer_of_something_else_than_a_model_is_refused(model):
    assert message_of(mt.InputError, mt.Adam, model).startswith(
        "Adam: expected a model, a subclass of Module, got "
    )


def test_parameters_of_two_dtypes_are_not_mixed():
    model = Weights(1)
    model.other = mt.Parameter(np.zeros(3, "float32"))
    assert message_of(mt.InputError, mt.Adam, model) == (
        "Weights: expected parameters of one dtype, to lie side by side, got float64 and float32; "
        "layer.to(dtype='float32') gives all of them one"
    )
    mt.Adam(model.to(dtype="float32"))


def test_the_state_before_the_first_step_can_be_restored():
    stepped = mt.Adam(Weights(16))
    set_gradients(stepped.model, np.random.default_rng(17))
    stepped.step(0.1)
    stepped.load_state_dict(mt.Adam(Weights(16)).state_dict())
    assert stepped.t == 0 and not stepped.m.any() and not stepped.v.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"betas": betas}, f"betas: expected two numbers 0 <= beta < 1, got {betas!r}")
            for betas in (
                (0.9, 1.0),
                (1.0, 0.98),
                (-0.1, 0.98),
                (0.9,),
                (0.7, 0.8, 0.9),
                (0.9, "x"),
                0.9,
                {0.8: 1},
            )
        ),
        *(
            ({"adam_eps": eps}, f"adam_eps: expected a number above 0 that float32 can hold, got {eps!r}")
            for eps in (0.0, -1e-9, 1e-50, 1e50, math.nan, None, "1")
        ),
        *(
            ({"weight_decay": x}, f"weight_decay: expected a number, 0 or more, got {x!r}")
            for x in (-0.1, math.inf, math.nan, None, "1")
        ),
    ],
)
def test_settings_that_cannot_be_computed_with_are_refused(settings, message):
    assert message_of(mt.ConfigError, lambda: mt.Adam(Weights(16), **settings)) == message


def test_betas_may_be_a_list():
    assert mt.Adam(Weights(16), betas=[0.0, 0.5]).betas == [0.0, 0.5]


@pytest.mark.parametrize("lr", [-1e-9, math.inf, math.nan, None, "0.1"])
def test_a_learning_rate_that_is_none_is_refused(lr):
    optimizer = mt.Adam(Weights(16))
    message = message_of(mt.InputError, optimizer.step, lr)
    assert message == f"lr: expected a number, 0 or more, got {lr!r}" and optimizer.t == 0


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.inf, math.nan, "1"])
def test_a_norm_that_is_none_is_refused(max_norm):
    message = message_of(mt.InputError, mt.clip_grad_norm, Weights(16), max_norm)
    assert message == f"max_norm: expected a number above 0 that float32 can hold, or None, got {max_norm!r}"


@pytest.mark.parametrize("missing", [("m",), ("v",), ("t",), ("m", "v", "t")])
def test_a_state_that_lacks_something_is_refused(missing):
    optimizer = mt.Adam(Weights(17))
    state = {name: x for name, x in optimizer.state_dict().items() if name not in missing}
    message = message_of(mt.CheckpointError, optimizer.load_state_dict, state)
    assert message == f"Adam: the state lacks {', '.join(missing)}"


def test_the_papers_betas_and_eps_are_the_defaults():
    default, written_out = Weights(25), Weights(25)
    adams = mt.Adam(default), mt.Adam(written_out, betas=(0.9, 0.98), adam_eps=1e-9)
    for seed in (26, 27):
        for model, adam in zip((default, written_out), adams, strict=True):
            set_gradients(model, np.random.default_rng(seed), scale=1e-8)  # so that eps is felt
            adam.step(0.1)
    np.testing.assert_array_equal(default.flatten().data, written_out.flatten().data)


@pytest.mark.parametrize("infinite", [math.inf, math.nan])
def test_clipping_leaves_gradients_alone_that_have_no_finite_norm(infinite):
    """Scaled by max_norm / inf = 0, they would look like gradients that are good and small."""
    model = Weights(28)
    set_gradients(model, np.random.default_rng(29))
    model.weights[1].grad[3] = infinite
    before = model.flatten().grad.copy()
    norm = mt.clip_grad_norm(model, 1.0)
    assert norm == math.inf or math.isnan(norm)
    np.testing.assert_array_equal(model.flatten().grad, before)


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


@pytest.mark.parametrize("size", [1e20, 1e-22, 3e-23, 1e-30])
def test_the_norm_is_right_where_the_squares_are_not(size):
    """In float32 they overflow, lose digits, or vanish."""
    layer = mt.layers.Linear(2, 2, bias=False, rng=0)
    layer.W.grad = np.full((2, 2), size, "float32")
    assert mt.clip_grad_norm(layer, size) == pytest.approx(2 * size, rel=1e-6)
    np.testing.assert_allclose(layer.W.grad, size / 2, rtol=1e-6)


def test_moments_that_the_dtype_cannot_hold_are_refused():
    adam = mt.Adam(mt.layers.Linear(2, 2, rng=0))
    state = adam.state_dict()
    with pytest.raises(mt.CheckpointError, match="expected finite means"):
        adam.load_state_dict({**state, "m": state["m"].astype("float64") + 1e300})
    assert not adam.m.any()


def test_the_norm_of_zero_gradients_is_zero():
    model = Weights(24)
    model.zero_grad()
    assert mt.clip_grad_norm(model, 1.0) == 0
    assert not model.flatten().grad.any()


def test_a_layout_that_is_no_number_is_refused():
    optimizer = mt.Adam(Weights(16))
    state = {**optimizer.state_dict(), "layout": 1.5}
    message = message_of(mt.InputError, optimizer.load_state_dict, state)
    assert message == "Adam: layout: expected a number that tells models apart, got 1.5"
