"""Sampling: the frequencies of what is drawn, and the settings with which nothing is left to chance."""

import itertools
import math

import numpy as np
import pytest
from decoding_cases import BOS, CONFIGS, EOS, PAD, naive_greedy, random_model, random_sources
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from one_stack_cases import DECODERS, random_prompts
from one_stack_cases import random_model as one_stack_model

import minitransformer as mt
from minitransformer.inference.sampling import draw, probabilities

SETTINGS = {
    "softmax": {},
    "cold": {"temperature": 0.5},
    "hot": {"temperature": 3.0},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.6},
    "all three": {"temperature": 1.7, "top_k": 6, "top_p": 0.8},
    "top_k decides": {"top_k": 2, "top_p": 0.95},
}


def softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def expected_probabilities(logits, temperature=1.0, top_k=None, top_p=None):
    """By adding one token after another, likeliest first, until there are enough of them."""
    p = softmax(np.asarray(logits, np.float64) / temperature)
    kept = []
    for i in sorted(range(len(p)), key=lambda i: (-logits[i], i)):
        if len(kept) == top_k or (top_p is not None and kept and p[kept].sum() >= top_p * (1 - 1e-14)):
            break
        kept.append(i)
    result = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


def assert_frequencies(drawn, p):
    """Σ (observed - expected)² / expected is about as large as there are free tokens; and nothing impossible is drawn.

    Its mean is the number of tokens that can be drawn, less one, its variance twice that (chi-square).
    """
    counts = np.bincount(drawn, minlength=len(p))
    assert not counts[p == 0].any()
    counts, expected = counts[p > 0], len(drawn) * p[p > 0]
    assert expected.min() > 5
    freedom = len(expected) - 1
    assert ((counts - expected) ** 2 / expected).sum() <= freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("name", SETTINGS)
def test_frequencies_are_those_of_the_softmax(name):
    """The first token, the second after each of the first ones that are frequent; in each row on its own."""
    options, n = SETTINGS[name], 20_000
    model = random_model(2, positions="learned", norm="pre", tie_embeddings=False)
    source = random_sources(2, [5])
    ids = mt.sample(model, np.tile(source, (n, 1)), np.random.default_rng(1), max_len=2, **options)
    p = expected_probabilities(model.forward(source, [[BOS]])[0][0, -1], **options)
    assert_frequencies(ids[:, 0], p)
    checked = 0
    for first in np.flatnonzero(n * p > 1000):
        if first != EOS:
            after = ids[ids[:, 0] == first, 1]
            logits = model.forward(source, [[BOS, first]])[0][0, -1]
            assert_frequencies(after, expected_probabilities(logits, **options))
            checked += 1
    assert checked >= 2


def test_the_bound_on_frequencies_has_teeth():
    p, n = np.array([0.4, 0.3, 0.2, 0.1]), 20_000
    rng = np.random.default_rng(0)
    assert_frequencies(rng.choice(4, n, p=p), p)
    for wrong in ([0.42, 0.28, 0.2, 0.1], [0.3, 0.4, 0.2, 0.1], [0.4, 0.3, 0.22, 0.08]):
        with pytest.raises(AssertionError):
            assert_frequencies(rng.choice(4, n, p=wrong), p)
    with pytest.raises(AssertionError):
        assert_frequencies(np.array([0, 1, 2, 3]), np.array([0.5, 0.25, 0.25, 0]))


@pytest.mark.parametrize(
    "options", [{"top_k": 1}, {"temperature": 1e-9}, {"temperature": 1e-37}, {"top_p": 1e-9}]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONFIGS)
def test_with_nothing_left_to_chance_it_is_greedy_decoding(name, dtype, options):
    rng = np.random.default_rng(0)
    for seed in range(3):
        model = random_model(seed, dtype, **CONFIGS[name])
        src_ids = random_sources(seed, [4, 7, 2, 9])
        # an id that greedy decoding writes, as EOS: rows then end, and at different steps
        eos_id = int(mt.greedy_decode(model, src_ids, BOS, EOS, 5)[0, -1])
        expected = mt.greedy_decode(model, src_ids, BOS, eos_id, 9)
        found = mt.sample(model, src_ids, rng, bos_id=BOS, eos_id=eos_id, max_len=9, **options)
        np.testing.assert_array_equal(found, expected, strict=True)
        np.testing.assert_array_equal(found, naive_greedy(model, src_ids, BOS, eos_id, 9))


def test_top_k_of_one_is_greedy_among_equals_too():
    logits = np.array([[0.0, 3, 3, 1], [2, 2, 2, 2], [-1, -1, -5, 0]])
    for temperature in (1e-30, 1.0, 1e30):
        p = probabilities(logits, temperature, 1, None)
        np.testing.assert_array_equal(p.argmax(-1), logits.argmax(-1))
        np.testing.assert_array_equal((p > 0).sum(-1), 1)


LOGITS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.one_of(st.floats(-9, 9), st.sampled_from([0.0, 1.0, 1000.0])),
)


@given(
    LOGITS,
    st.floats(0.1, 10),
    st.one_of(st.none(), st.integers(1, 12)),
    st.one_of(st.none(), st.floats(0.01, 1), st.just(1)),
)
def test_probabilities(logits, temperature, top_k, top_p):
    before = logits.copy()
    p = probabilities(logits, temperature, top_k, top_p)
    np.testing.assert_array_equal(logits, before)
    for row, p_of_row in zip(logits, p / p.sum(-1, keepdims=True), strict=True):
        expected = expected_probabilities(row, temperature, top_k, top_p)
        at_the_border = top_p is not None and any(
            abs(sum(part) - top_p) < 1e-9
            for part in itertools.accumulate(
                sorted(softmax(row / temperature))[::-1], lambda a, b: (*a, b), initial=()
            )
        )
        if not at_the_border:
            np.testing.assert_allclose(p_of_row, expected, rtol=1e-9, atol=1e-15)


@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_is_likely_enough(logits, top_p):
    """All sets of tokens are looked at: none with fewer tokens is as likely as top_p."""
    p = probabilities(logits, 1.0, None, top_p)
    for row, kept in zip(logits, p > 0, strict=True):
        likely = softmax(row)
        assert likely[kept].sum() >= top_p - 1e-12
        most_likely_of_fewer = sorted(likely)[::-1][: kept.sum() - 1]
        assert sum(most_likely_of_fewer) < top_p + 1e-12
        assert likely[kept].min() >= likely[~kept].max(initial=0)


def test_top_p_at_a_border():
    """0.5, 0.25, 0.125, 0.125 are exact: 0.75 is reached by two, and not by a hair more."""
    logits = np.log2([[0.125, 0.5, 0.125, 0.25]]) * math.log(2)
    for top_p, kept in ((0.4, [1]), (0.5 - 1e-9, [1]), (0.5 + 1e-9, [1, 3]), (0.75 - 1e-9, [1, 3])):
        assert np.flatnonzero(probabilities(logits, 1.0, None, top_p)).tolist() == kept
    for top_p, kept in ((0.75 + 1e-9, [0, 1, 3]), (0.875 + 1e-9, [0, 1, 2, 3]), (1, [0, 1, 2, 3])):
        assert np.flatnonzero(probabilities(logits, 1.0, None, top_p)).tolist() == kept
    equal = np.zeros((1, 4))
    assert np.flatnonzero(probabilities(equal, 1.0, None, 0.5)).tolist() == [0, 1]
    assert np.flatnonzero(probabilities(equal, 1.0, 3, None)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_any_finite_size(dtype):
    huge = float(np.finfo(dtype).max)
    logits = np.array([[huge, -huge, huge, 0], [-huge, -huge, 0, 1]], dtype)
    for temperature in (1e-37, 1.0, 1e37):
        for top_k, top_p in ((None, None), (3, 0.9)):
            p = probabilities(logits, temperature, top_k, top_p)
            assert np.isfinite(p).all() and (p.max(-1) == 1).all()
            assert p[0, 1] == 0 or p[0, 1] == pytest.approx(math.exp(-2 * huge / temperature))


class Fixed(np.random.Generator):
    """A generator whose every number is `u`."""

    def __init__(self, u):
        super().__init__(np.random.PCG64(0))
        self.u = u

    def random(self, shape):
        return np.full(shape, self.u)


def test_a_draw_is_the_inverse_of_the_distribution_function():
    p = np.array([[0, 1, 0, 3, 0, 4, 0]]) / 16  # its sum need not be 1
    last = np.nextafter(1, 0)
    for u, i in ((0, 1), (0.1249, 1), (0.125, 3), (0.49, 3), (0.5, 5), (0.99, 5), (last, 5)):
        assert draw(p, Fixed(u)).tolist() == [i]
    for scale in np.random.default_rng(0).uniform(0, 1, 200):  # no rounding lets one past the end, to index 0
        assert draw(p * scale, Fixed(last)).tolist() == [5]


def test_the_tail_of_a_large_vocabulary_adds_up():
    """100,000 tokens of 1e-8 beside one of 1: a sum in float32 would stay at 1."""
    logits = np.full((1, 100_001), math.log(1e-8), np.float32)
    logits[0, 0] = 0
    assert draw(probabilities(logits, 1.0, None, None), Fixed(0.998)).tolist() == [0]
    (i,) = draw(probabilities(logits, 1.0, None, None), Fixed(0.9995))
    assert 49_000 < i < 51_000


def test_every_row_and_every_step_has_a_draw_of_its_own():
    model = random_model(3)
    src_ids = np.tile(random_sources(3, [4]), (50, 1))
    ids = mt.sample(model, src_ids, np.random.default_rng(0), temperature=5.0, eos_id=0, max_len=8)
    assert len({tuple(row) for row in ids.tolist()}) > 30


def test_the_generator_decides():
    model = random_model(4)
    src_ids = random_sources(4, [4, 6])

    def ids(rng):
        return mt.sample(model, src_ids, rng, temperature=4.0, max_len=9).tolist()

    assert ids(np.random.default_rng(5)) == ids(np.random.default_rng(5))
    rng = np.random.default_rng(5)
    assert len({str(ids(rng)) for _ in range(9)}) > 5  # it is used up, not copied
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    ids(rng)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_rows_end_with_the_end_symbol_and_then_padding():
    model = random_model(5, pad_id=4)
    src_ids = np.tile([[7, 8, 2]], (200, 1))
    ids = mt.sample(model, src_ids, np.random.default_rng(0), temperature=3.0, eos_id=9, max_len=23)
    lengths = []
    for row in ids.tolist():
        if 9 in row:
            lengths.append(row.index(9) + 1)
            assert set(row[lengths[-1] :]) <= {4}
    assert len(set(lengths)) > 10


def test_defaults():
    """Temperature 1, no limits, 1, 2 and 30."""
    model = random_model(6, max_len=40)
    src_ids = random_sources(6, [4, 6, 5])
    found = mt.sample(model, src_ids, np.random.default_rng(2))
    expected = mt.sample(model, src_ids.tolist(), np.random.default_rng(2), 1.0, None, None, 1, 2, 30)
    np.testing.assert_array_equal(found, expected, strict=True)
    said = []
    model.decode_step = lambda tokens, state: (
        said.append(tokens.tolist()) or np.eye(13)[[3] * len(tokens)] * 1e3
    )
    assert mt.sample(model, [[3, 2]], np.random.default_rng(0)).tolist() == [[3] * 30]
    assert said == [[1], *[[3]] * 29]


def test_sampling_changes_neither_model_nor_input():
    model = random_model(7)
    src_ids = random_sources(7, [4, 6])
    before = model.flatten().data.copy(), model.flatten().grad.copy(), src_ids.copy()
    src_ids.flags.writeable = False
    mt.sample(model, src_ids, np.random.default_rng(0), 2.0, 5, 0.9, max_len=9)
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
    np.testing.assert_array_equal(src_ids, before[2])


TEMPERATURE = (
    "temperature: expected a number above 0 that float32 can hold (greedy_decode is the limit at 0), got"
)
TOP_K, TOP_P = (
    "top_k: expected 1 or more, or None, got",
    "top_p: expected a probability 0 < p <= 1, or None, got",
)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"src_ids": [[3, 13]]}, "src_ids: expected ids 0 … 12, got 13"),
        ({"max_len": 24}, "max_len: expected 1 … 23 (the model's max_len), got 24"),
        ({"bos_id": -1}, "bos_id: expected an id 0 … 12, got -1"),
        ({"eos_id": 13}, "eos_id: expected an id 0 … 12, got 13"),
        ({"rng": 3}, "rng: expected a generator, such as numpy.random.default_rng(0), got 3"),
        ({"rng": None}, "rng: expected a generator, such as numpy.random.default_rng(0), got None"),
        ({"temperature": 0}, f"{TEMPERATURE} 0"),
        ({"temperature": -1.0}, f"{TEMPERATURE} -1.0"),
        ({"temperature": math.inf}, f"{TEMPERATURE} inf"),
        ({"temperature": "1"}, f"{TEMPERATURE} '1'"),
        ({"top_k": 0}, f"{TOP_K} 0"),
        ({"top_k": 2.0}, f"{TOP_K} 2.0"),
        ({"top_p": 0}, f"{TOP_P} 0"),
        ({"top_p": 1.01}, f"{TOP_P} 1.01"),
        ({"top_p": math.nan}, f"{TOP_P} nan"),
        ({"top_p": "0.5"}, f"{TOP_P} '0.5'"),
    ],
)
def test_bad_input_is_refused(options, message):
    good = {"src_ids": [[3, 2]], "rng": np.random.default_rng(0), "max_len": 5}
    with pytest.raises(mt.MinitransformerError) as raised:
        mt.sample(random_model(8), **{**good, **options})
    assert str(raised.value) == message


def test_top_k_may_be_more_than_there_are():
    model = random_model(9)
    src_ids = random_sources(9, [4, 6])
    found = [
        mt.sample(model, src_ids, np.random.default_rng(1), top_k=k, top_p=p, max_len=9)
        for k, p in ((None, None), (13, None), (10**9, None), (None, 1))
    ]
    for ids in found[1:]:
        np.testing.assert_array_equal(ids, found[0])
    assert (found[0] != PAD).any()


# ---- a decoder alone: src_ids are prompts


@pytest.mark.parametrize("name", DECODERS)
@given(
    ends=st.sampled_from([(1, 2), (None, 5), (None, None)]),
    few=st.sampled_from([{"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-9}]),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_the_likeliest_continuation_is_that_of_greedy_decoding(name, ends, few, seed, lengths):
    model, rng = one_stack_model("decoder-only", seed, **DECODERS[name]), np.random.default_rng(seed)
    prompts, (bos_id, eos_id) = random_prompts(seed, lengths), ends
    expected = mt.greedy_decode(model, prompts, bos_id, eos_id, 6)
    got = mt.sample(model, prompts, rng, bos_id=bos_id, eos_id=eos_id, max_len=6, **few)
    np.testing.assert_array_equal(got, expected)


def test_continuations_are_as_frequent_as_their_probabilities_say():
    """Of 4 symbols, twice: 16 continuations of a prompt, 8000 of them drawn."""
    model = one_stack_model("decoder-only", 5, src_vocab_size=4, tgt_vocab_size=4)
    n, prompt = 8000, [3, 1, 2]
    drawn = mt.sample(model, [prompt] * n, np.random.default_rng(1), bos_id=None, eos_id=None, max_len=2)
    for first in range(4):
        p = softmax(model.forward([prompt])[0][0, -1])[first]
        of_next = softmax(model.forward([[*prompt, first]])[0][0, -1])
        for second in range(4):
            share = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
            expected = p * of_next[second]
            assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n)
