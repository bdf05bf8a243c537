"""§5.4: label-smoothed cross-entropy, against a loop over tokens and against numerical derivatives."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import message_of

import minitransformer as mt
from minitransformer import parts
from minitransformer.layers import log_softmax
from minitransformer.layers.linear import rows
from minitransformer.training.loss import cross_entropy

PAD = 0
SEEDS = st.integers(0, 2**32 - 1)
SMOOTHING = st.sampled_from([0.0, 0.1, 0.3, 0.9])


def random_case(seed, B=3, T=5, V=7, scale=3.0, dtype="float64"):
    """Logits and targets with padding in it, and never padding alone."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(B, T, V))).astype(dtype)
    tgt_out = rng.integers(1, V, (B, T))
    for row, length in zip(tgt_out, rng.integers(0, T + 1, B), strict=True):
        row[length:] = PAD
    tgt_out[rng.integers(B), 0] = rng.integers(1, V)
    return logits, tgt_out


def loss_by_loop(logits, tgt_out, eps_ls, pad_id=PAD):
    """The definition, a token at a time, in Python's own numbers."""
    V = logits.shape[-1]
    total, n_tokens = 0.0, 0
    for scores, target in zip(logits.reshape(-1, V).tolist(), tgt_out.ravel().tolist(), strict=True):
        if target == pad_id:
            continue
        top = max(scores)
        log_z = top + math.log(math.fsum(math.exp(s - top) for s in scores))
        q = [eps_ls / V + (1 - eps_ls if v == target else 0.0) for v in range(V)]
        total += math.fsum(q_v * (log_z - s) for q_v, s in zip(q, scores, strict=True))
        n_tokens += 1
    return total / n_tokens


@given(SEEDS, SMOOTHING, st.integers(1, 4), st.integers(1, 6), st.integers(2, 9))
def test_loss_is_its_definition_token_by_token(seed, eps_ls, B, T, V):
    logits, tgt_out = random_case(seed, B, T, V)
    loss, _ = mt.LabelSmoothedCrossEntropy(eps_ls, PAD).forward(logits, tgt_out)
    assert float(loss) == pytest.approx(loss_by_loop(logits, tgt_out, eps_ls), rel=1e-12)


@pytest.mark.parametrize("eps_ls", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("pad_id", [0, 4])
def test_gradient_agrees_with_central_differences(eps_ls, pad_id):
    logits, tgt_out = random_case(11)
    tgt_out = np.where(tgt_out == PAD, pad_id, tgt_out)
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, pad_id)
    _, cache = loss_fn.forward(logits, tgt_out)
    analytic = loss_fn.backward(cache)
    numeric = np.zeros_like(logits)
    h = 1e-3  # the error of this five-point formula is of order h^4 = 1e-12, that of rounding 1e-13
    for i in np.ndindex(logits.shape):
        moved = []
        for t in (h, -h, 2 * h, -2 * h):
            nudged = logits.copy()
            nudged[i] += t
            moved.append(float(loss_fn.forward(nudged, tgt_out)[0]))
        numeric[i] = (8 * (moved[0] - moved[1]) - (moved[2] - moved[3])) / (12 * h)
    assert np.abs(analytic - numeric).max() < 1e-9 * np.abs(numeric).max()
    words = tgt_out != pad_id
    assert (np.abs(numeric[words]).max(-1) > 0).all()  # the comparison above was not of zeros


@given(SEEDS, SMOOTHING)
def test_padding_contributes_nothing(seed, eps_ls):
    logits, tgt_out = random_case(seed)
    tgt_out[1, 3:] = PAD
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, PAD)
    loss, cache = loss_fn.forward(logits, tgt_out)
    other = logits.copy()
    padding = tgt_out == PAD
    other[padding] = np.random.default_rng(seed + 1).normal(size=other[padding].shape) * 100
    loss_other, cache_other = loss_fn.forward(other, tgt_out)
    assert loss == loss_other
    assert (loss_fn.backward(cache)[padding] == 0).all()
    np.testing.assert_array_equal(loss_fn.backward(cache), loss_fn.backward(cache_other))


@given(SEEDS, SMOOTHING)
def test_gradient_of_each_word_sums_to_zero(seed, eps_ls):
    """Adding a number to all logits of a position changes no probability."""
    logits, tgt_out = random_case(seed)
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, PAD)
    dlogits = loss_fn.backward(loss_fn.forward(logits, tgt_out)[1])
    assert np.abs(dlogits.sum(-1)).max() < 1e-14
    assert np.abs(dlogits).max() > 1e-3


@given(SEEDS, SMOOTHING, st.integers(1, 4))
def test_parts_divided_by_the_tokens_of_all_add_up_to_the_whole(seed, eps_ls, cut):
    logits, tgt_out = random_case(seed, B=5)
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, PAD)
    whole, cache = loss_fn.forward(logits, tgt_out)
    n_tokens = int((tgt_out != PAD).sum())
    parts = [
        loss_fn.forward(logits[part], tgt_out[part], n_tokens) for part in (slice(0, cut), slice(cut, None))
    ]
    assert sum(float(loss) for loss, _ in parts) == pytest.approx(float(whole), rel=1e-13)
    gradients = np.concatenate([loss_fn.backward(cache_part) for _, cache_part in parts])
    np.testing.assert_allclose(gradients, loss_fn.backward(cache), rtol=1e-13, atol=0)


def test_a_part_that_is_padding_alone_adds_nothing():
    logits, tgt_out = random_case(3)
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    loss, cache = loss_fn.forward(logits, np.zeros_like(tgt_out), n_tokens=7)
    assert float(loss) == 0
    assert not loss_fn.backward(cache).any()


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("eps_ls", [0.0, 0.1])
def test_huge_logits_give_finite_loss_and_gradient(size, eps_ls):
    rng = np.random.default_rng(5)
    logits = (size * rng.choice([-1.0, 0.5, 1.0], (3, 5, 7))).astype("float32")
    tgt_out = rng.integers(1, 7, (3, 5))
    loss_fn = mt.LabelSmoothedCrossEntropy(eps_ls, PAD)
    loss, cache = loss_fn.forward(logits, tgt_out)
    dlogits = loss_fn.backward(cache)
    assert float(loss) == pytest.approx(loss_by_loop(logits.astype("float64"), tgt_out, eps_ls), rel=1e-5)
    assert np.isfinite(dlogits).all()
    assert dlogits.any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loss_and_gradient_keep_the_dtype_of_the_logits(dtype):
    logits, tgt_out = random_case(9, dtype=dtype)
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    loss, cache = loss_fn.forward(logits, tgt_out)
    assert loss.dtype == dtype
    assert loss_fn.backward(cache).dtype == dtype
    assert float(loss) == pytest.approx(loss_by_loop(logits.astype("float64"), tgt_out, 0.1), rel=1e-5)


def test_forward_and_backward_write_to_nothing():
    logits, tgt_out = random_case(21)
    logits.flags.writeable = tgt_out.flags.writeable = False
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    loss, cache = loss_fn.forward(logits, tgt_out)
    first = loss_fn.backward(cache).copy()
    loss_fn.forward(logits[::-1], tgt_out[::-1])  # another one in flight
    np.testing.assert_array_equal(loss_fn.backward(cache), first)
    again, _ = loss_fn.forward(logits, tgt_out)
    assert loss == again


INTEGERS = "tgt_out: expected integers of shape (3, 5), at least one, got"


@pytest.mark.parametrize(
    ("tgt_out", "message"),
    [
        (np.ones((3, 4), int), f"{INTEGERS} int64 of shape (3, 4)"),
        (np.ones((3, 5, 1), int), f"{INTEGERS} int64 of shape (3, 5, 1)"),
        (np.ones((3, 5)), f"{INTEGERS} float64 of shape (3, 5)"),
        (np.ones((3, 5), bool), f"{INTEGERS} bool of shape (3, 5)"),
        (np.array([[7, 2, 3, 4, 0]] * 3), "tgt_out: expected ids 0 … 6, got 7"),
        (np.array([[7, 2, 3, 4, -2]] * 3), "tgt_out: expected ids 0 … 6, got -2"),
        (np.full((3, 5), -1), "tgt_out: expected ids 0 … 6, got -1"),
        (np.zeros((3, 5), int), "tgt_out: expected at least one token that is not padding"),
    ],
)
def test_targets_that_do_not_fit_are_refused(tgt_out, message):
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    assert message_of(mt.InputError, loss_fn.forward, np.zeros((3, 5, 7)), tgt_out) == message


def test_an_empty_batch_is_refused():
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    empty = np.zeros((0, 5, 7)), np.zeros((0, 5), int)
    expected = "tgt_out: expected integers of shape (0, 5), at least one, got int64 of shape (0, 5)"
    assert message_of(mt.InputError, loss_fn.forward, *empty) == expected


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64"])
def test_targets_may_be_integers_of_any_kind_and_lists(kind):
    logits, tgt_out = random_case(31)
    tgt_out[0, 0], tgt_out[1, 0] = 6, 1  # the last id, too
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    loss, _ = loss_fn.forward(logits, tgt_out)
    assert loss_fn.forward(logits, tgt_out.astype(kind))[0] == loss
    assert loss_fn.forward(logits, tgt_out.tolist())[0] == loss


def test_the_papers_smoothing_and_padding_0_are_the_defaults():
    logits, tgt_out = random_case(34)
    tgt_out[0, 0] = 1
    assert (tgt_out == 0).any()
    loss, cache = mt.LabelSmoothedCrossEntropy().forward(logits, tgt_out)
    assert float(loss) == pytest.approx(loss_by_loop(logits, tgt_out, 0.1, pad_id=0), rel=1e-12)
    assert not cache.dlogits[tgt_out == 0].any()


@pytest.mark.parametrize("eps_ls", [-0.1, 1.0, math.nan])
def test_smoothing_outside_0_to_1_is_refused(eps_ls):
    message = message_of(mt.ConfigError, mt.LabelSmoothedCrossEntropy, eps_ls)
    assert message == f"eps_ls: expected a number 0 <= eps_ls < 1, got {eps_ls}"


@pytest.mark.parametrize("pad_id", [0.5, None, "0", True, 2**63, -(2**63) - 1])
def test_a_padding_id_that_is_none_is_refused(pad_id):
    message = message_of(mt.InputError, mt.LabelSmoothedCrossEntropy, 0.1, pad_id)
    assert message == f"pad_id: expected an integer, got {pad_id!r}"


def test_the_padding_id_may_be_none_of_the_vocabulary():
    logits, tgt_out = random_case(33)
    for pad_id in (-1, 7, 1 - 2**63, 2**63 - 1):
        loss, _ = mt.LabelSmoothedCrossEntropy(0.1, pad_id).forward(logits, tgt_out)
        assert float(loss) == pytest.approx(loss_by_loop(logits, tgt_out, 0.1, pad_id), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "got"),
    [
        (np.zeros((3, 5, 7), int), "int64 of shape (3, 5, 7)"),
        ([[[0.0]]], "[[[0.0]]]"),
        (np.float64(2.5), "np.float64(2.5)"),
        (None, "None"),
    ],
)
def test_logits_that_are_none_are_refused(logits, got):
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    message = message_of(mt.InputError, loss_fn.forward, logits, np.ones((3, 5), int))
    assert message == f"logits: expected floating-point numbers (B, T_tgt, V), got {got}"


@pytest.mark.parametrize("n_tokens", [0, -1, 2.5, "7", True])
def test_a_count_of_tokens_that_is_none_is_refused(n_tokens):
    logits, tgt_out = random_case(34)
    message = message_of(mt.InputError, mt.LabelSmoothedCrossEntropy().forward, logits, tgt_out, n_tokens)
    assert message == f"n_tokens: expected 1 or more, got {n_tokens!r}"


def test_a_count_of_one_token_is_taken_as_it_is():
    logits, tgt_out = random_case(35)
    loss_fn = mt.LabelSmoothedCrossEntropy()
    mean, total = loss_fn.forward(logits, tgt_out)[0], loss_fn.forward(logits, tgt_out, 1)[0]
    assert float(total) == pytest.approx(float(mean) * (tgt_out != 0).sum(), rel=1e-12)


def test_targets_in_rows_of_several_lengths_are_refused():
    message = message_of(
        mt.InputError, mt.LabelSmoothedCrossEntropy().forward, np.zeros((2, 2, 3)), [[1], [1, 2]]
    )
    assert message == "tgt_out: expected rows of one length; pad the shorter ones"


# ---- the formula, and its definition written out


def by_definition(logits, tgt_out, weight, eps_ls):
    """Loss and gradient with q and log softmax as they are defined, in float64."""
    log_p = log_softmax(logits.astype(float))
    q = np.full_like(log_p, eps_ls / logits.shape[-1])
    np.put_along_axis(q, tgt_out[..., None], 1 - eps_ls + eps_ls / logits.shape[-1], -1)
    return -(q * log_p * weight).sum(), (np.exp(log_p) - q) * weight


@given(
    SEEDS,
    SMOOTHING,
    st.floats(-30, 30),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([3, 7, 10**6]),
)
def test_the_formula_is_its_definition(seed, eps_ls, exponent, dtype, numbers):
    """For logits of any size: some huge and some tiny, in one row or another; parts that split the batch, too."""
    rng = np.random.default_rng(seed)
    logits, tgt_out = random_case(seed, dtype=dtype)
    logits *= (10.0 ** np.minimum(exponent, 30) * rng.choice([1, 1e-20], (*logits.shape[:2], 1))).astype(
        dtype
    )
    weight = (rng.random((*tgt_out.shape, 1)) * (tgt_out != PAD)[..., None]).astype(dtype)
    loss, dlogits = by_definition(logits, tgt_out, weight, eps_ls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "NUMBERS", numbers)
        losses, found = cross_entropy(rows(logits), tgt_out.reshape(-1, 1), weight.reshape(-1, 1), eps_ls)
    eps = np.finfo(dtype).eps
    assert losses.dtype == found.dtype == dtype and losses.shape == (tgt_out.size, 1)
    scale = float(abs(logits.astype(float)).max()) * float(weight.sum())  # what the loss is a difference of
    assert abs(float(losses.sum()) - loss) <= 16 * eps * (scale + abs(loss) + float(weight.sum()))
    np.testing.assert_allclose(found, rows(dlogits), rtol=0, atol=16 * eps * float(weight.max()))


@pytest.mark.parametrize("eps_ls", [0.0, 0.1])
def test_logits_whose_sum_overflows_have_a_finite_loss(eps_ls):
    """The sum, and the difference, of logits that float32 can hold may be more than it can hold."""
    logits = np.full((1, 2, 5), -3e38, np.float32)
    logits[0, :, 1] = 3e38
    loss, cache = mt.LabelSmoothedCrossEntropy(eps_ls).forward(logits, np.array([[1, 2]]))
    lowest = float(np.finfo("float32").min) / 2  # stands for the differences, -6e38
    right, wrong = (1 - eps_ls + eps_ls / 5), eps_ls / 5
    expected = -(4 * wrong + (right + 3 * wrong)) * lowest / 2
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    q = np.array([[wrong, right, wrong, wrong, wrong], [wrong, wrong, right, wrong, wrong]])
    np.testing.assert_allclose(cache.dlogits[0], (np.eye(5)[[1, 1]] - q) / 2, atol=1e-7)
