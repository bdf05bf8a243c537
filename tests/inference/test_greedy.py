"""§6.1, greedy decoding: equal to a loop that runs the whole model again for every token."""

import numpy as np
import pytest
from decoding_cases import BOS, CONFIGS, EOS, PAD, naive_greedy, random_model, random_sources
from hypothesis import given
from hypothesis import strategies as st
from one_stack_cases import DECODERS, random_prompts
from one_stack_cases import naive_greedy as naive_continuation
from one_stack_cases import random_model as one_stack_model

import minitransformer as mt
from minitransformer.inference.greedy import decode

SHAPE = "src_ids: expected ids of shape (B, T), B and T at least 1, got"


@pytest.mark.parametrize("name", CONFIGS)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_each_step_has_the_logits_of_the_whole_prefix(name, seed, lengths):
    """What greedy decoding chooses from, along a random target instead of the model's own."""
    model = random_model(seed, **CONFIGS[name])
    src_ids = random_sources(seed, lengths)
    tgt_in = np.random.default_rng(seed).integers(1, model.config.tgt_vocab_size, (len(lengths), 11))
    expected, _ = model.forward(src_ids, tgt_in)
    state = model.start_decoding(src_ids, 11)
    for position in range(11):
        logits = model.decode_step(tgt_in[:, position], state)
        np.testing.assert_allclose(logits, expected[:, position], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", CONFIGS)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_equals_full_recomputation(name, seed, lengths):
    model = random_model(seed, **CONFIGS[name])
    src_ids = random_sources(seed, lengths)
    # the most frequent token as EOS: rows then end, and at different steps
    free = naive_greedy(model, src_ids, BOS, -1, 11)
    eos_id = int(np.bincount(free[:, 2:].ravel()).argmax())
    for end in (EOS, eos_id):
        expected = naive_greedy(model, src_ids, BOS, end, 11)
        np.testing.assert_array_equal(mt.greedy_decode(model, src_ids, BOS, end, 11), expected, strict=True)


def test_equals_full_recomputation_where_the_model_writes_padding():
    """An untrained model may find the padding symbol likeliest; as a key it then counts like any token, in both."""
    found = 0
    for seed in range(40):
        model = random_model(seed, tie_embeddings="source_target")
        src_ids = random_sources(seed, [4, 7, 2])
        expected = naive_greedy(model, src_ids, BOS, EOS, 9)
        is_word = expected != PAD
        found += bool((is_word[:, 1:] & ~is_word[:, :-1]).any())  # padding, then a word
        np.testing.assert_array_equal(mt.greedy_decode(model, src_ids, BOS, EOS, 9), expected)
    assert found >= 3


@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=5))
def test_a_row_does_not_depend_on_its_neighbours_or_their_padding(seed, lengths):
    model = random_model(seed)
    src_ids = random_sources(seed, lengths)
    together = mt.greedy_decode(model, src_ids, BOS, EOS, 8)
    for row, source, length in zip(together, src_ids, lengths, strict=True):
        alone = mt.greedy_decode(model, source[None, :length], BOS, EOS, 8)[0]
        np.testing.assert_array_equal(row[: len(alone)], alone)
        assert not row[len(alone) :].any()


def ending_model(seed):
    """A model and an id that it writes in every row, but not at the same step."""
    for attempt in range(seed, seed + 500):
        model = random_model(attempt, norm="pre", positions="learned")
        src_ids = random_sources(attempt, [3, 8, 5])
        free = naive_greedy(model, src_ids, BOS, -1, 10)
        for eos_id in range(3, 13):
            first = [row.tolist().index(eos_id) if eos_id in row else 99 for row in free]
            if max(first) < 8 and len(set(first)) == 3 and PAD not in free:
                return model, src_ids, eos_id, first
    raise AssertionError("no such model")


def test_stops_when_all_rows_have_ended_and_pads_after_the_end():
    model, src_ids, eos_id, first = ending_model(1)
    steps = []
    step = model.decode_step
    model.decode_step = lambda *arguments: steps.append(1) or step(*arguments)
    ids = mt.greedy_decode(model, src_ids, BOS, eos_id, 10)
    assert ids.shape == (3, max(first) + 1)
    assert len(steps) == max(first) + 1
    for row, at in zip(ids, first, strict=True):
        assert row[at] == eos_id
        assert eos_id not in row[:at]
        assert (row[at + 1 :] == PAD).all()


def test_pads_with_the_models_own_padding():
    steps = []

    def choose(logits):  # the first sentence ends at once, the second never
        steps.append(1)
        return np.where(np.arange(len(logits)) < (len(steps) == 1), EOS, 3)

    ids = decode(random_model(3, pad_id=5), np.array([[7, 8, 2], [9, 5, 5]]), choose, BOS, EOS, 4)
    assert ids.tolist() == [[EOS, 5, 5, 5], [3, 3, 3, 3]]


@pytest.mark.parametrize("max_len", [1, 2, 7, 23])
def test_writes_at_most_max_len_tokens(max_len):
    model = random_model(4)
    src_ids = random_sources(4, [3, 6])
    free = naive_greedy(model, src_ids, BOS, -1, 23)
    never = min(set(range(3, 13)) - set(free.ravel().tolist()))
    ids = mt.greedy_decode(model, src_ids, BOS, never, max_len)
    assert ids.shape == (2, max_len)
    np.testing.assert_array_equal(ids, free[:, :max_len])


def test_the_start_symbol_is_the_callers():
    differ = 0
    for seed in range(12):
        model = random_model(seed, positions="learned", norm="pre")
        src_ids = random_sources(seed, [4, 6, 3])
        outputs = [mt.greedy_decode(model, src_ids, bos_id, EOS, 6).tolist() for bos_id in (1, 7, 12)]
        differ += outputs[0] != outputs[1] != outputs[2]
        for bos_id, ids in zip((1, 7, 12), outputs, strict=True):
            assert ids == naive_greedy(model, src_ids, bos_id, EOS, 6).tolist()
    assert differ >= 2


def test_decoding_changes_neither_model_nor_input():
    model = random_model(6)
    src_ids = random_sources(6, [4, 6])
    before = model.flatten().data.copy(), model.flatten().grad.copy(), src_ids.copy()
    src_ids.flags.writeable = False
    mt.greedy_decode(model, src_ids, BOS, EOS, 9)
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
    np.testing.assert_array_equal(src_ids, before[2])


def test_sources_may_be_lists():
    model = random_model(7)
    src_ids = random_sources(7, [4, 6])
    np.testing.assert_array_equal(
        mt.greedy_decode(model, src_ids.tolist(), BOS, EOS, 9), mt.greedy_decode(model, src_ids, BOS, EOS, 9)
    )


def test_start_end_and_length_have_defaults():
    """1, 2 and 30, shown on a model that says what it is told to: one row ends with a 2, the other never."""
    model = random_model(10, max_len=40)
    said, read = [3, 4, 2, 5], []

    def decode_step(tokens, state):
        read.append(tokens.tolist())
        logits = np.zeros((2, 13))
        logits[0, 3] = logits[1, said[min(len(read), 4) - 1]] = 1
        return logits[: len(tokens)]

    model.decode_step = decode_step
    ids = mt.greedy_decode(model, random_sources(10, [4, 6]))
    assert ids.tolist() == [[3] * 30, [3, 4, 2, *[PAD] * 27]]
    assert read == [[1, 1], [3, 3], [3, 4], *[[3]] * 27]  # a sentence that has ended is not read any more


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
def test_sentences_that_have_ended_leave_the_batch(seed, n):
    """Told when each is to end: no step reads more than 4/3 of those still going, and none of them is lost.

    (4/3: the others' keys and values are copied when a quarter has ended, so that none is copied often.)
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 20, n)
    model = random_model(3)
    src_ids = random_sources(seed, [2] * n)
    sizes, copies, left = [], [], np.arange(n)
    start = model.start_decoding

    def start_decoding(src_ids, max_len):
        state = start(src_ids, max_len)
        select = state.select

        def noted(rows, sentences):
            nonlocal left
            assert rows is sentences
            left = left[sentences]
            copies.append(len(left))
            select(rows, sentences)
            assert {len(x) for s in state.layers for x in (s.K, s.V, s.memory_K, s.memory_V)} == {len(left)}
            assert len(state.src_mask) == len(left)

        state.select = noted
        return state

    def decode_step(tokens, state):
        sizes.append(len(tokens))
        logits = np.zeros((len(tokens), 13))
        ends = lengths[left] == len(sizes)
        logits[np.arange(len(tokens)), np.where(ends, EOS, 3 + left % 10)] = 1
        return logits

    model.start_decoding, model.decode_step = start_decoding, decode_step
    ids = mt.greedy_decode(model, src_ids, max_len=20)
    for i, length in enumerate(lengths):
        assert ids[i].tolist() == [*[3 + i % 10] * (length - 1), EOS, *[PAD] * (ids.shape[1] - length)]
    for step, size in enumerate(sizes):
        assert size < 4 / 3 * (lengths > step).sum() + 1
    assert sum(copies) <= 3 * n


@pytest.mark.parametrize(("n", "ended", "left"), [(4, 1, 3), (5, 1, 5), (8, 2, 6), (8, 1, 8)])
def test_they_leave_it_as_soon_as_they_are_a_quarter_of_it(n, ended, left):
    """What is drawn from a generator depends on it: `sample` draws one number for each row of the batch."""
    rows = []

    def choose(logits):
        rows.append(len(logits))
        return np.where(np.arange(len(logits)) < ended * (len(rows) == 1), EOS, 3)

    decode(random_model(3), random_sources(3, [2] * n), choose, BOS, EOS, 3)
    assert rows == [n, left, left]


@pytest.mark.parametrize(
    ("src_ids", "options", "message"),
    [
        ([[3.0, 2.0]], {}, "src_ids: expected integer ids, got float64"),
        ([[3, 13]], {}, "src_ids: expected ids 0 … 12, got 13"),
        ([[3, -1]], {}, "src_ids: expected ids 0 … 12, got -1"),
        ([[3] * 24], {}, "src_ids: expected at most max_len=23 tokens, got 24"),
        (np.zeros((0, 4), int), {}, f"{SHAPE} (0, 4)"),
        (np.zeros((4, 0), int), {}, f"{SHAPE} (4, 0)"),
        ([3, 4], {}, f"{SHAPE} (2,)"),
        ([[3, 2]], {"max_len": 0}, "max_len: expected 1 … 23 (the model's max_len), got 0"),
        ([[3, 2]], {"max_len": 24}, "max_len: expected 1 … 23 (the model's max_len), got 24"),
        ([[3, 2]], {"bos_id": -1}, "bos_id: expected an id 0 … 12, got -1"),
        ([[3, 2]], {"bos_id": 13}, "bos_id: expected an id 0 … 12, got 13"),
        ([[3, 2]], {"eos_id": -1}, "eos_id: expected an id 0 … 12, got -1"),
        ([[3, 2]], {"eos_id": 13}, "eos_id: expected an id 0 … 12, got 13"),
    ],
)
def test_bad_input_is_refused(src_ids, options, message):
    with pytest.raises(mt.InputError) as raised:
        mt.greedy_decode(random_model(8), src_ids, **{"max_len": 5, **options})
    assert str(raised.value) == message


@pytest.mark.parametrize("symbol", [0, 12])
def test_the_first_and_the_last_id_may_start_and_end(symbol):
    model = random_model(9)
    src_ids = random_sources(9, [4, 6])
    for bos_id, eos_id in ((symbol, EOS), (BOS, symbol)):
        ids = mt.greedy_decode(model, src_ids, bos_id, eos_id, 5)
        np.testing.assert_array_equal(ids, naive_greedy(model, src_ids, bos_id, eos_id, 5))


# ---- a decoder alone: src_ids are prompts


@pytest.mark.parametrize("name", DECODERS)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    bos_id=st.sampled_from([None, BOS, 7]),
    eos_id=st.sampled_from([None, EOS, "frequent"]),
)
def test_prompts_of_unequal_length_are_continued_as_each_alone_would_be(name, seed, lengths, bos_id, eos_id):
    """`frequent`: an end that comes, at different steps."""
    model = one_stack_model("decoder-only", seed, **DECODERS[name])
    prompts = random_prompts(seed, lengths)
    start = [] if bos_id is None else [bos_id]
    rows = [row[:n].tolist() + start for row, n in zip(prompts, lengths, strict=True)]
    free = [naive_continuation(model, row, 6) for row in rows]
    if eos_id == "frequent":
        eos_id = int(np.bincount(np.ravel(free)[1:]).argmax())
    expected = [row[: row.index(eos_id) + 1] if eos_id in row else row for row in free]
    longest = max(map(len, expected))
    padded = [row + [PAD] * (longest - len(row)) for row in expected]
    np.testing.assert_array_equal(mt.greedy_decode(model, prompts, bos_id, eos_id, 6), padded)


def test_without_an_end_all_of_max_len_is_written():
    model = one_stack_model("decoder-only", 4)
    assert mt.greedy_decode(model, [[3, 4]], None, None, 15).shape == (1, 15)
    source = random_sources(4, [3, 6])
    assert mt.greedy_decode(random_model(4), source, BOS, None, 23).shape == (
        2,
        23,
    )  # of an encoder-decoder, too


def test_a_prompt_that_fills_max_len_has_one_more_token():
    model = one_stack_model("decoder-only", 4)
    prompt = random_prompts(4, [17])
    expected = model.forward(prompt)[0][:, -1].argmax(-1)
    assert mt.greedy_decode(model, prompt, None, None, 1).tolist() == [expected.tolist()]


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[3] * 17], {}, "prompts: expected at most 16 tokens, to leave room for one (max_len=17), got 17"),
        (
            [[3] * 17],
            {"bos_id": None, "max_len": 2},
            "max_len: expected 1 … 1 (the model's max_len=17, less the length of the prompts), got 2",
        ),
        (
            [[3, 4]],
            {"max_len": 16},
            "max_len: expected 1 … 15 (the model's max_len=17, less the length of the prompts), got 16",
        ),
        ([[3, 13]], {"bos_id": None}, "prompts: expected ids 0 … 12, got 13"),
        ([[]], {"bos_id": None}, "prompts: expected ids of shape (B, T), B and T at least 1, got (1, 0)"),
        ([[3]], {"bos_id": 13}, "bos_id: expected an id 0 … 12, got 13"),
        ([[3]], {"eos_id": -1}, "eos_id: expected an id 0 … 12, got -1"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(prompts, options, message):
    for write in (mt.greedy_decode, mt.beam_search):
        with pytest.raises(mt.InputError) as raised:
            write(one_stack_model("decoder-only", 8), prompts, **{"max_len": 1, **options})
        assert str(raised.value) == message


def test_an_encoder_decoder_needs_a_start_symbol():
    with pytest.raises(mt.InputError) as raised:
        mt.greedy_decode(random_model(8), [[3, 2]], None, EOS, 5)
    assert (
        str(raised.value)
        == "bos_id: expected an id; only a decoder-only model can go on from its prompt (None)"
    )
