"""§6.1, beam search: equal to lists of hypotheses that are never given up early, and to trying every sequence."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from decoding_cases import BOS, CONFIGS, EOS, PAD, random_model, random_sources
from hypothesis import given
from hypothesis import strategies as st
from one_stack_cases import DECODERS, random_prompts
from one_stack_cases import random_model as one_stack_model

import minitransformer as mt
from minitransformer.inference.beam import largest, length_penalty, likeliest

ALPHAS = [0, 0.6, 1, 2.5]


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def naive_beam(log_p, beam, alpha, eos_id, max_len):
    """Lists, and every hypothesis followed to max_len; then how many steps a search has to take that stops early.

    log_p(prefix) are the log-probabilities of what follows, prefix being a tuple of ids. Three results: all that
    finished as (score, ids), best first; the same of those that were there when `beam` had finished; the steps.
    """
    living, finished, steps, hasty = [((), 0.0)], [], None, None
    for length in range(1, max_len + 1):
        penalty, largest_penalty = ((5 + length) / 6) ** alpha, ((5 + max_len) / 6) ** alpha
        found = [((*ids, t), sum_ + p) for ids, sum_ in living for t, p in enumerate(log_p(ids))]
        found.sort(key=lambda hypothesis: -hypothesis[1])
        living = []
        for ids, sum_ in found[:beam]:
            if ids[-1] == eos_id or length == max_len:
                finished.append((sum_ / penalty, ids))
            else:
                living.append((ids, sum_))
        finished.sort(key=lambda hypothesis: -hypothesis[0])
        enough = len(finished) >= beam
        best_possible = max((sum_ / largest_penalty for _, sum_ in living), default=-math.inf)
        if steps is None and (not living or (enough and best_possible <= finished[beam - 1][0])):
            steps = length
        if hasty is None and enough:
            hasty = finished[:beam]
    return finished[:beam], hasty, steps


def assert_same(hypotheses, expected):
    assert [tuple(h.ids) for h in hypotheses] == [ids for _, ids in expected]
    np.testing.assert_allclose([h.score for h in hypotheses], [score for score, _ in expected], rtol=1e-9)


class Tree:
    """In a model's place: every prefix of every sentence has next-token logits of its own, drawn from a seed.

    Its state is what each row has read, which `select` has to keep in order.
    """

    def __init__(self, seed, V=5, towards_end=0.0, spread=2.0):
        self.config = SimpleNamespace(tgt_vocab_size=V, pad_id=PAD, max_len=50)
        self.seed, self.towards_end, self.spread = seed, towards_end, spread
        self.sizes = []  # rows of each step, by sentence

    def logits(self, sentence, prefix):
        rng = np.random.default_rng([self.seed, sentence, len(prefix), *prefix])
        logits = self.spread * rng.normal(size=self.config.tgt_vocab_size)
        logits[EOS] += self.towards_end
        return logits

    def start_decoding(self, src_ids, max_len):
        rows = [(i, ()) for i in range(len(src_ids))]
        state = SimpleNamespace(layers=[SimpleNamespace(K=np.ones(1))], rows=rows)

        def select(rows, sentences):
            before = dict.fromkeys(i for i, _ in state.rows)
            state.rows = [state.rows[i] for i in rows]
            left = list(before) if sentences is None else [list(before)[i] for i in sentences]
            assert [i for i, _ in state.rows] == list(np.repeat(left, len(rows) // len(left)))

        state.select = select
        return state

    def decode_step(self, tokens, state):
        read = [(i, (*prefix, int(t))) for (i, prefix), t in zip(state.rows, tokens, strict=True)]
        state.rows = read
        assert all(prefix[0] == BOS for _, prefix in read)
        self.sizes.append(np.bincount([i for i, _ in read], minlength=1))
        return np.array([self.logits(i, prefix[1:]) for i, prefix in read])

    def naive(self, sentence, *options):
        return naive_beam(lambda prefix: log_softmax(self.logits(sentence, prefix)), *options)


@pytest.mark.parametrize("name", CONFIGS)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    beam=st.integers(1, 5),
    alpha=st.sampled_from(ALPHAS),
)
def test_equals_full_recomputation(name, seed, lengths, beam, alpha):
    model = random_model(seed, **CONFIGS[name])
    src_ids = random_sources(seed, lengths)
    # an id that greedy decoding writes as EOS: hypotheses then end, and at different steps
    eos_id = int(mt.greedy_decode(model, src_ids, BOS, EOS, 5)[0, -1])
    found = mt.beam_search(model, src_ids, beam, alpha, BOS, eos_id, 7)
    assert len(found) == len(lengths)
    for source, hypotheses in zip(src_ids, found, strict=True):

        def log_p(prefix, source=source):
            logits, _ = model.forward(source[None], [[BOS, *prefix]])
            return log_softmax(logits[0, -1])

        assert_same(hypotheses, naive_beam(log_p, beam, alpha, eos_id, 7)[0])


def every_sequence(V, max_len):
    """All that can be written: up to the first EOS, or max_len tokens."""
    full = itertools.product(range(V), repeat=max_len)
    return {ids[: ids.index(EOS) + 1] if EOS in ids else ids for ids in full}


@pytest.mark.parametrize("alpha", [0, 0.3, 0.6, 1, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_that_holds_all_prefixes_finds_the_best_of_all_sequences(seed, alpha):
    V, max_len = 4, 4
    model = random_model(seed, tgt_vocab_size=V, tie_embeddings=False)
    src_ids = random_sources(seed, [3, 6])
    sequences = sorted(every_sequence(V, max_len))
    read = np.array([[BOS, *ids, *[PAD] * (max_len - len(ids))][:max_len] for ids in sequences])
    found = {n: mt.beam_search(model, src_ids, n, alpha, BOS, EOS, max_len) for n in (108, 121, 200)}
    assert len(sequences) == 1 + 3 + 9 + 27 + 81 == 121
    for i, source in enumerate(src_ids):
        log_p = log_softmax(model.forward(np.tile(source, (len(read), 1)), read)[0])
        expected = sorted(
            (
                sum(log_p[row, at, token] for at, token in enumerate(ids)) / ((5 + len(ids)) / 6) ** alpha,
                ids,
            )
            for row, ids in enumerate(sequences)
        )[::-1]
        assert_same(found[108][i], expected[:108])  # 27 that live, each continued in 4 ways
        assert_same(found[121][i], expected)
        assert_same(found[200][i], expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    B=st.integers(1, 4),
    V=st.integers(3, 6),
    beam=st.integers(1, 7),
    alpha=st.floats(0, 5),
    limits=st.lists(st.integers(1, 12), min_size=4, max_size=4),
    towards_end=st.floats(-3, 3),
)
def test_a_sentence_stops_when_nothing_can_change_any_more_and_not_before(
    seed, B, V, beam, alpha, limits, towards_end
):
    tree = Tree(seed, V, towards_end)
    found = mt.beam_search(tree, [[3]] * B, beam, alpha, BOS, EOS, limits[:B])
    expected = [tree.naive(i, beam, alpha, EOS, limits[i]) for i in range(B)]
    for hypotheses, (finished, _, _) in zip(found, expected, strict=True):
        assert_same(hypotheses, finished)
        assert all(-math.inf < h.score <= 0 for h in hypotheses)
    for i, (_, _, steps) in enumerate(expected):
        taken = [len(size) > i and size[i] > 0 for size in tree.sizes]
        assert taken == [step < steps for step in range(len(tree.sizes))]
    assert all(size.max() <= beam for size in tree.sizes)


def test_what_a_search_that_stops_at_the_first_finished_hypotheses_would_miss():
    """The comparison above has cases that decide: longer hypotheses that displace all-finished beams, per alpha."""
    for alpha in (0, 0.6, 1):
        missed = early = 0
        for seed in range(60):
            tree = Tree(seed, spread=1.5, towards_end=1.0)
            expected, hasty, steps = tree.naive(0, 3, alpha, EOS, 10)
            missed += hasty != expected
            early += steps < 10
            assert_same(mt.beam_search(tree, [[3]], 3, alpha, BOS, EOS, 10)[0], expected)
            assert len(tree.sizes) == steps
        assert missed >= 5 and early >= 5, (alpha, missed, early)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_beam_is_greedy_decoding(name, dtype):
    ended = 0
    for seed in range(6):
        model = random_model(seed, dtype, **CONFIGS[name])
        src_ids = random_sources(seed, [4, 7, 2, 9])
        eos_id = int(mt.greedy_decode(model, src_ids, BOS, EOS, 5)[0, -1])
        greedy = mt.greedy_decode(model, src_ids, BOS, eos_id, 12).tolist()
        for alpha in ALPHAS:
            found = mt.beam_search(model, src_ids, 1, alpha, BOS, eos_id, 12)
            for row, hypotheses in zip(greedy, found, strict=True):
                assert len(hypotheses) == 1
                length = row.index(eos_id) + 1 if eos_id in row else 12
                assert hypotheses[0].ids == (row[:length] if eos_id in row else row + [PAD] * (12 - len(row)))
                ended += length < 12
    assert ended > 20


def test_one_beam_is_greedy_decoding_where_float32_would_see_equals():
    """The second token is likelier by 1e-8, which a log-probability of about -2 in float32 would swallow."""
    tree = Tree(0, V=8)
    logits = np.array([0, 1e-8, -99, -1e-8, 0, 0, 0, 0], np.float32)
    tree.logits = lambda sentence, prefix: logits
    assert logits[1] > logits[0] and logits[1] - np.float32(2) == logits[0] - np.float32(2)
    assert mt.beam_search(tree, [[3]], 1)[0][0].ids == [1] * 30


def test_more_beams_find_better_translations():
    """Better than greedy's, by the score that both are judged by; not for every sentence, but for most."""
    better = worse = 0
    for seed in range(20):
        tree = Tree(seed, V=9)
        one, four = (mt.beam_search(tree, [[3]] * 3, beam, 0, BOS, EOS, 8) for beam in (1, 4))
        for a, b in zip(one, four, strict=True):
            better += b[0].score > a[0].score
            worse += b[0].score < a[0].score
    assert better > 20 and worse < 5


def test_of_equals_the_first_comes_first():
    tree = Tree(0, V=4)
    tree.logits = lambda sentence, prefix: np.zeros(4)
    found = mt.beam_search(tree, [[3]], 3, 0, BOS, eos_id=1, max_len=2)[0]
    assert [h.ids for h in found] == [[1], [0, 0], [0, 1]]
    np.testing.assert_allclose([h.score for h in found], [-math.log(4), -2 * math.log(4), -2 * math.log(4)])
    found = mt.beam_search(tree, [[3]], 4, 0, BOS, eos_id=3, max_len=3)[0]
    assert [h.ids for h in found] == [[3], [0, 3], [0, 0, 0], [0, 0, 1]]
    found = mt.beam_search(tree, [[3]], 1, 0, BOS, eos_id=3, max_len=3)[0]
    assert [h.ids for h in found] == [[0, 0, 0]]  # as argmax does


def test_a_finished_hypothesis_stays_before_an_equal_one_found_later():
    tree = Tree(0, V=3)
    # [2] and [0, 2] and [0, 0, 2] are equally likely: what comes after a 0 costs nothing
    tree.logits = lambda sentence, prefix: np.log([[0.5, 1e-300, 0.5], [1e-300, 1e-300, 1]][bool(prefix)])
    assert [h.ids for h in mt.beam_search(tree, [[3]], 2, 0, max_len=5)[0]] == [[2], [0, 2]]
    assert [h.ids for h in mt.beam_search(tree, [[3]], 1, 0, max_len=5)[0]] == [[0, 2]]


@given(st.data(), st.integers(1, 5), st.integers(1, 9), st.integers(1, 12))
def test_largest(data, rows, columns, n):
    few = st.sampled_from([-1.5, -1.0, 0.0, -math.inf, 2.0])
    x = np.array([data.draw(st.lists(few, min_size=columns, max_size=columns)) for _ in range(rows)])
    numbers, places = largest(x.copy(), n)
    assert numbers.shape == places.shape == (rows, min(n, columns))
    for row, numbers_of_row, places_of_row in zip(x, numbers, places, strict=True):
        expected = sorted(range(columns), key=lambda i: (-row[i], i))[:n]
        assert numbers_of_row.tolist() == row[expected].tolist()
        n_finite = int(np.isfinite(row).sum())
        assert places_of_row[:n_finite].tolist() == expected[:n_finite]  # -inf is nothing, and has no place


def test_length_penalty_is_that_of_wu_et_al():
    assert [length_penalty(n, 0) for n in (1, 7, 500)] == [1, 1, 1]
    assert [length_penalty(n, 1) for n in (1, 7, 25)] == [1, 2, 5]
    np.testing.assert_allclose(length_penalty(19, 0.5), 2)
    np.testing.assert_allclose(length_penalty(43, 0.6), 8**0.6)


def test_more_alpha_makes_longer_translations():
    tree, lengths = Tree(5, towards_end=1.0), []
    for alpha in (0, 0.6, 1, 2, 5):
        found = mt.beam_search(tree, [[3]] * 20, 4, alpha, BOS, EOS, 10)
        lengths.append(sum(len(hypotheses[0].ids) for hypotheses in found))
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[2] < lengths[-1]


def test_the_end_counts_as_a_token():
    """log P / lp by hand: [EOS] is one token long, [3, EOS] two."""
    tree = Tree(0, V=4)
    p = {(): [0.1, 0.1, 0.4, 0.4], (3,): [0.01, 0.01, 0.9, 0.08]}
    tree.logits = lambda sentence, prefix: np.log(p.get(prefix, [0.25] * 4))
    found = mt.beam_search(tree, [[3]], 2, 1, BOS, EOS, 5)[0]
    assert [h.ids for h in found] == [[3, 2], [2]]
    np.testing.assert_allclose([h.score for h in found], [math.log(0.36) / (7 / 6), math.log(0.4)])


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("max_len", [1, 2, 7])
def test_what_has_not_ended_at_max_len_counts_as_it_is(alpha, max_len):
    tree = Tree(3, towards_end=-50.0)
    found = mt.beam_search(tree, [[3]], 3, alpha, BOS, EOS, max_len)[0]
    assert len(found) == 3
    for ids, score in found:
        assert len(ids) == max_len and EOS not in ids
        log_P = sum(log_softmax(tree.logits(0, tuple(ids[:i])))[ids[i]] for i in range(max_len))
        np.testing.assert_allclose(score, log_P / ((5 + max_len) / 6) ** alpha)


def test_a_vocabulary_smaller_than_the_beam():
    """Three sequences can be written, or just one: all are found, and nothing is made up to fill the beam."""
    found = mt.beam_search(Tree(0, V=3), [[3]], 10, 0.6, BOS, EOS, 1)[0]
    assert sorted(h.ids for h in found) == [[0], [1], [2]]
    tree = Tree(0, V=3)
    tree.logits = lambda sentence, prefix: np.array([-np.inf, -np.inf, 0.0])
    assert mt.beam_search(tree, [[3]], 10, 0.6, BOS, EOS, 3)[0][0] == ([2], 0.0)


@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_a_sentence_does_not_depend_on_its_neighbours_or_their_padding(seed, lengths):
    model = random_model(seed)
    src_ids = random_sources(seed, lengths)
    limits = [2 + seed % n for n in lengths]
    together = mt.beam_search(model, src_ids, 3, max_len=limits)
    for hypotheses, source, length, limit in zip(together, src_ids, lengths, limits, strict=True):
        alone = mt.beam_search(model, source[None, :length], 3, max_len=limit)[0]
        assert_same(hypotheses, [(score, tuple(ids)) for ids, score in alone])


def test_decoding_changes_neither_model_nor_input():
    model = random_model(6)
    src_ids = random_sources(6, [4, 6])
    before = model.flatten().data.copy(), model.flatten().grad.copy(), src_ids.copy()
    src_ids.flags.writeable = False
    found = mt.beam_search(model, src_ids, max_len=9)
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
    np.testing.assert_array_equal(src_ids, before[2])
    assert found == mt.beam_search(model, src_ids.tolist(), max_len=9)


def test_results_are_plain_python():
    found = mt.beam_search(random_model(7, "float32"), [[3, 2], [4, 2]], max_len=4)
    assert [type(h) for hypotheses in found for h in hypotheses] == [mt.Hypothesis] * 8
    assert {type(i) for hypotheses in found for h in hypotheses for i in h.ids} == {int}
    assert {type(h.score) for hypotheses in found for h in hypotheses} == {float}


def test_beams_alpha_start_end_and_length_have_defaults():
    """4, 0.6, 1, 2 and 30: Tree insists on the start symbol 1."""
    for seed in range(3):
        tree = Tree(seed, towards_end=-4)
        expected = tree.naive(0, 4, 0.6, 2, 30)[0]
        assert_same(mt.beam_search(tree, [[3]])[0], expected)
        assert max(len(ids) for _, ids in expected) == 30


def test_a_model_that_diverged_is_decoded_all_the_same():
    model = random_model(8)
    model.decode_step = lambda tokens, state: np.full((len(tokens), 13), np.nan)
    found = mt.beam_search(model, [[3, 2], [4, 2]], 3, max_len=4)
    assert [len(hypotheses) > 0 for hypotheses in found] == [True, True]
    assert math.isnan(found[0][0].score)


class Endless:
    """Something that has a length, and no items."""

    def __len__(self):
        return 1

    def __repr__(self):
        return "Endless()"


@pytest.mark.parametrize(
    ("src_ids", "options", "error", "message"),
    [
        ([[3, 13]], {}, mt.InputError, "src_ids: expected ids 0 … 12, got 13"),
        ([3, 4], {}, mt.InputError, "src_ids: expected ids of shape (B, T), B and T at least 1, got (2,)"),
        ([[3]], {"max_len": 0}, mt.InputError, "max_len: expected 1 … 23 (the model's max_len), got 0"),
        ([[3]], {"max_len": [24]}, mt.InputError, "max_len: expected 1 … 23 (the model's max_len), got 24"),
        (
            [[3]],
            {"max_len": [2, 3]},
            mt.InputError,
            "max_len: expected a number, or one for each of 1 sentences, got 2",
        ),
        ([[3]], {"max_len": 24}, mt.InputError, "max_len: expected 1 … 23 (the model's max_len), got 24"),
        ([[3]], {"max_len": Endless()}, mt.InputError, "max_len: expected a list of numbers, got Endless()"),
        ([[3]], {"bos_id": -1}, mt.InputError, "bos_id: expected an id 0 … 12, got -1"),
        ([[3]], {"eos_id": 13}, mt.InputError, "eos_id: expected an id 0 … 12, got 13"),
        ([[3]], {"beam": 0}, mt.InputError, "beam: expected 1 … 1,024, got 0"),
        ([[3]], {"beam": 1025}, mt.InputError, "beam: expected 1 … 1,024, got 1025"),
        ([[3]], {"beam": 2.0}, mt.InputError, "beam: expected 1 … 1,024, got 2.0"),
        ([[3]], {"alpha": -0.1}, mt.ConfigError, "alpha: expected a number 0 <= alpha < 10, got -0.1"),
        ([[3]], {"alpha": 10}, mt.ConfigError, "alpha: expected a number 0 <= alpha < 10, got 10"),
        ([[3]], {"alpha": "1"}, mt.ConfigError, "alpha: expected a number 0 <= alpha < 10, got '1'"),
        ([[3]], {"alpha": math.nan}, mt.ConfigError, "alpha: expected a number 0 <= alpha < 10, got nan"),
    ],
)
def test_bad_input_is_refused(src_ids, options, error, message):
    with pytest.raises(error) as raised:
        mt.beam_search(random_model(8), src_ids, **{"max_len": 5, **options})
    assert str(raised.value) == message


@pytest.mark.parametrize("symbol", [0, 12])
def test_the_first_and_the_last_id_may_start_and_end(symbol):
    model = random_model(9)
    src_ids = random_sources(9, [4, 6])
    for bos_id, eos_id in ((symbol, EOS), (BOS, symbol)):
        greedy = mt.greedy_decode(model, src_ids, bos_id, eos_id, 5).tolist()
        found = mt.beam_search(model, src_ids, 1, 0, bos_id, eos_id, 5)
        for row, hypotheses in zip(greedy, found, strict=True):
            assert hypotheses[0].ids == row[: len(hypotheses[0].ids)]


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 9),
    size=st.floats(0.1, 30),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_the_likeliest_are_the_first_of_the_log_softmax(seed, n, size, dtype):
    logits = (size * np.random.default_rng(seed).normal(size=(3, 7))).round(1).astype(dtype)  # some are equal
    expected = log_softmax(logits)
    log_p, places = likeliest(logits.copy(), n)
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :n]
    np.testing.assert_array_equal(places, order)
    assert log_p.dtype == "float64"
    atol = 1e-6 if dtype == "float32" else 1e-12  # of log Σ exp, which is a sum of float32
    np.testing.assert_allclose(log_p, np.take_along_axis(expected, order, -1), rtol=1e-12, atol=atol)


def test_every_sentence_needs_as_many_rows_as_the_others():
    state = random_model(2).start_decoding(random_sources(2, [3, 4, 2]), 5)
    state.select(np.array([0, 0, 1, 1, 2, 2]))
    state.select(np.array([0, 1, 4, 5]), np.array([0, 2]))
    for rows, sentences in ((np.array([0, 1, 2]), None), (np.array([0, 1]), np.array([0, 1, 1]))):
        with pytest.raises(mt.InputError, match="same number of rows for each"):
            state.select(rows, sentences)


@pytest.mark.parametrize("limits", [[2, 5], (2, 5), np.array([2, 5])], ids=["list", "tuple", "array"])
def test_each_sentence_may_have_a_length_of_its_own(limits):
    tree = Tree(0, V=4, towards_end=-9)
    assert [len(found[0].ids) for found in mt.beam_search(tree, [[3], [3]], 2, max_len=limits)] == [2, 5]


# ---- a decoder alone: src_ids are prompts


@pytest.mark.parametrize(("eos_id", "alpha"), [(2, 1.3), (None, 0.0)])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_wide_beam_finds_the_best_continuation_of_each_prompt(eos_id, alpha, seed):
    """Of all there are, for a vocabulary of 4; prompts of unequal length, the last token read first."""
    model = one_stack_model("decoder-only", seed, src_vocab_size=4, tgt_vocab_size=4, norm="pre")
    lengths = [3, 1]
    prompts = random_prompts(seed, lengths, 4)
    for bos_id in (1, None):
        found = mt.beam_search(model, prompts, 64, alpha, bos_id, eos_id, max_len=3)
        for row, n, hypotheses in zip(prompts.tolist(), lengths, found, strict=True):
            read = row[:n] if bos_id is None else [*row[:n], bos_id]
            scores, every = {}, list(itertools.product(range(4), repeat=3))
            log_p = log_softmax(model.forward([[*read, *ids] for ids in every])[0][:, len(read) - 1 : -1])
            for ids, rows in zip(every, log_p, strict=True):
                ids = ids[: ids.index(eos_id) + 1] if eos_id in ids else ids
                scores[ids] = sum(map(float, rows[range(len(ids)), ids])) / ((5 + len(ids)) / 6) ** alpha
            best = sorted(scores, key=scores.get, reverse=True)
            assert [tuple(h.ids) for h in hypotheses] == best[: len(hypotheses)]
            assert len(hypotheses) == min(64, len(scores))
            np.testing.assert_allclose(
                [h.score for h in hypotheses], [scores[ids] for ids in best], rtol=1e-9
            )


@pytest.mark.parametrize("name", DECODERS)
@given(
    ends=st.sampled_from([(1, 2), (None, 5), (None, None)]),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
)
def test_a_beam_of_one_continues_prompts_as_greedy_decoding_does(name, ends, seed, lengths):
    model = one_stack_model("decoder-only", seed, **DECODERS[name])
    prompts = random_prompts(seed, lengths)
    bos_id, eos_id = ends
    rows = mt.greedy_decode(model, prompts, bos_id, eos_id, 6).tolist()
    expected = [row[: row.index(eos_id) + 1] if eos_id in row else row for row in rows]
    found = mt.beam_search(model, prompts, 1, 0.6, bos_id, eos_id, max_len=6)
    assert [hypotheses[0].ids for hypotheses in found] == expected


def test_each_prompt_has_a_limit_of_its_own():
    model, prompts = one_stack_model("decoder-only", 3), random_prompts(3, [2, 5, 4])
    found = mt.beam_search(model, prompts, 3, 0.6, None, None, [1, 7, 3])
    assert [{len(h.ids) for h in hypotheses} for hypotheses in found] == [{1}, {7}, {3}]
    for i, n in enumerate((1, 7, 3)):
        row = prompts[i, : (2, 5, 4)[i]]
        alone = mt.beam_search(model, [row], 3, 0.6, None, None, n)[0]
        assert [h.ids for h in alone] == [h.ids for h in found[i]]
        np.testing.assert_allclose([h.score for h in alone], [h.score for h in found[i]], rtol=1e-9)
