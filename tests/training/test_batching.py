"""§5.1: batches of neighbours in length, within a budget of tokens."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.tasks import BOS, EOS, PAD, SequenceTask
from minitransformer.training import BatchStream, by_length, make_batch, split_batch
from minitransformer.training.batching import OneStackBatch, aligned_batch, joined_batch, longest_input

SYMBOLS = st.lists(st.integers(3, 99), max_size=13)
PAIRS = st.lists(st.tuples(SYMBOLS, SYMBOLS), min_size=1, max_size=40)


@dataclass(frozen=True)
class Shift(SequenceTask):
    """A task of the tests' own: every number plus one, the largest to the smallest."""

    name: ClassVar[str] = "shift"
    max_length: int = 7
    epoch_size: int = 61
    test_size: int = 5

    def answer(self, sequence):
        return (sequence + 1) % self.n_symbols


def length(pair):
    return max(len(pair[0]), len(pair[1])) + 1


@given(PAIRS, st.integers(1, 120))
def test_every_pair_is_in_exactly_one_batch(pairs, batch_tokens):
    batches = by_length(pairs, batch_tokens)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(pairs)))
    assert all(batches)


@given(PAIRS, st.integers(1, 120))
def test_the_budget_is_kept_with_padding(pairs, batch_tokens):
    for indices in by_length(pairs, batch_tokens):
        batch = make_batch([pairs[i] for i in indices])
        assert len(indices) == 1 or max(batch.src_ids.size, batch.tgt_in.size) <= batch_tokens


@given(PAIRS, st.integers(1, 120))
def test_batches_are_neighbours_in_length_and_full(pairs, batch_tokens):
    batches = [[length(pairs[i]) for i in indices] for indices in by_length(pairs, batch_tokens)]
    in_order = list(itertools.chain.from_iterable(batches))
    assert in_order == sorted(in_order)
    for batch, following in itertools.pairwise(batches):  # the next pair would not have fitted
        assert (len(batch) + 1) * following[0] > batch_tokens


def test_no_pairs_make_no_batches():
    assert by_length([], 100) == []


def test_an_empty_batch_is_refused():
    with pytest.raises(mt.InputError):
        make_batch([])


def test_a_batch_has_the_target_shifted_by_one():
    batch = make_batch([([7, 8, 9], [5]), ([6], [4, 3, 10, 11])])
    assert (PAD, BOS, EOS) == (0, 1, 2)
    assert batch.src_ids.tolist() == [[7, 8, 9, EOS], [6, EOS, PAD, PAD]]
    assert batch.tgt_in.tolist() == [[BOS, 5, PAD, PAD, PAD], [BOS, 4, 3, 10, 11]]
    assert batch.tgt_out.tolist() == [[5, EOS, PAD, PAD, PAD], [4, 3, 10, 11, EOS]]
    assert batch.n_tokens == 7


@given(PAIRS)
def test_a_batch_is_its_pairs_with_specials_and_padding(pairs):
    batch = make_batch(pairs)
    assert batch.n_tokens == np.count_nonzero(batch.tgt_out != PAD) == np.count_nonzero(batch.tgt_in != PAD)
    for (source, target), src, tgt_in, tgt_out in zip(
        pairs, batch.src_ids.tolist(), batch.tgt_in.tolist(), batch.tgt_out.tolist(), strict=True
    ):
        n, k = len(source), len(target)
        assert src[:n] == list(source) and src[n] == EOS and not any(src[n + 1 :])
        assert tgt_in[0] == BOS and tgt_in[1 : k + 1] == list(target) and not any(tgt_in[k + 1 :])
        assert tgt_out[:k] == list(target) and tgt_out[k] == EOS and not any(tgt_out[k + 1 :])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("skipped", [1, 8, 23])
def test_a_stream_continues_from_epoch_and_index(skipped):
    stream = BatchStream(Shift(), 64, seed=5)
    for _ in range(skipped):
        stream.next()
    place = stream.epoch, stream.index
    expected = [stream.next() for _ in range(20)]
    assert stream.epoch > place[0]  # it went over the end of an epoch
    resumed = BatchStream(Shift(), 64, seed=5)
    resumed.epoch, resumed.index = place
    assert all(same(resumed.next(), batch) for batch in expected)


def test_a_stream_depends_on_its_seed():
    batches = {seed: [BatchStream(Shift(), 64, seed).next() for _ in range(2)] for seed in (5, 6)}
    assert same(batches[5][0], batches[5][1])
    assert not same(batches[5][0], batches[6][0])


def test_an_epoch_shows_every_pair_once_and_the_next_one_others():
    stream = BatchStream(Shift(), 64, seed=7)
    epochs = {0: [], 1: []}
    while stream.epoch < 2:
        epoch = stream.epoch
        epochs[epoch] += stream.next().src_ids.tolist()
    rows = {epoch: sorted([i for i in row if i != PAD] for row in rows) for epoch, rows in epochs.items()}
    assert len(rows[0]) == len(rows[1]) == Shift().epoch_size
    assert rows[0] != rows[1]


def test_batches_of_an_epoch_are_not_sorted_by_length():
    stream = BatchStream(Shift(epoch_size=400), 64, seed=8)
    widths = []
    while stream.epoch == 0:
        widths.append(stream.next().src_ids.shape[1])
    assert widths != sorted(widths)
    assert sorted(set(widths)) == list(range(2, 9))


@given(PAIRS, st.integers(1, 9))
def test_parts_of_a_batch_are_its_sentences(pairs, n):
    batch = make_batch(pairs)
    found = split_batch(batch, n)
    assert len(found) == min(n, len(pairs))
    sizes = [len(part.src_ids) for part in found]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(pairs)
    assert [part.n_tokens for part in found] == [int((part.tgt_out != PAD).sum()) for part in found]
    assert sum(part.n_tokens for part in found) == batch.n_tokens
    for name in ("src_ids", "tgt_in", "tgt_out"):
        rows = sorted(row.tolist() for part in found for row in getattr(part, name))
        assert rows == sorted(getattr(batch, name).tolist())


# ---- batches for models of one stack


def test_a_decoder_alone_reads_source_and_target_as_one_text():
    batch = joined_batch([([7, 8, 9], [5]), ([6], [4, 3, 10, 11])])
    assert batch.ids.tolist() == [[7, 8, 9, EOS, BOS, 5, PAD], [6, EOS, BOS, 4, 3, 10, 11]]
    assert batch.answers.tolist() == [[PAD, PAD, PAD, PAD, 5, EOS, PAD], [PAD, PAD, 4, 3, 10, 11, EOS]]
    assert batch.n_tokens == 7 == make_batch([([7, 8, 9], [5]), ([6], [4, 3, 10, 11])]).n_tokens


@given(PAIRS)
def test_each_answer_of_a_joined_batch_follows_what_has_been_read(pairs):
    """As in a language model: the id to answer with is the next one read; nothing is asked within the source."""
    batch = joined_batch(pairs)
    assert batch.ids.shape == batch.answers.shape
    assert batch.n_tokens == np.count_nonzero(batch.answers != PAD) == make_batch(pairs).n_tokens
    assert batch.inputs == (batch.ids,) and batch.targets is batch.answers
    for (source, target), ids, answers in zip(pairs, batch.ids.tolist(), batch.answers.tolist(), strict=True):
        n = len(source) + 2 + len(target)
        assert ids[:n] == [*source, EOS, BOS, *target] and not any(ids[n:]) and not any(answers[n:])
        assert answers[:n] == [*[PAD] * (len(source) + 1), *ids[len(source) + 2 : n], EOS]


@given(
    st.lists(
        st.integers(1, 9).flatmap(
            lambda n: st.tuples(*[st.lists(st.integers(3, 99), min_size=n, max_size=n)] * 2)
        ),
        min_size=1,
        max_size=9,
    )
)
def test_an_aligned_batch_has_an_answer_at_each_position(pairs):
    batch = aligned_batch(pairs)
    assert batch.ids.shape == batch.answers.shape and batch.n_tokens == sum(
        len(target) for _, target in pairs
    )
    for (source, target), ids, answers in zip(pairs, batch.ids.tolist(), batch.answers.tolist(), strict=True):
        n = len(source)
        assert ids[:n] == source and answers[:n] == target and not any(ids[n:]) and not any(answers[n:])


def test_or_one_answer_for_all_of_them():
    batch = aligned_batch([([7, 8, 9], [5]), ([6], [4])])
    assert batch.ids.tolist() == [[7, 8, 9], [6, PAD, PAD]] and batch.answers.tolist() == [[5], [4]]
    assert batch.n_tokens == 2


def test_padding_among_the_answers_is_not_counted():
    """A task may leave a position without an answer."""
    assert aligned_batch([([7, 8, 9], [PAD, 5, PAD]), ([6, 3], [4, PAD])]).n_tokens == 2


@pytest.mark.parametrize("pairs", [[([7, 8], [5, 6, 4])], [([7, 8], [5]), ([7, 8], [5, 6])], [([7, 8], [])]])
def test_answers_that_are_not_aligned_are_refused(pairs):
    n = len(pairs[0][1])
    with pytest.raises(mt.InputError) as raised:
        aligned_batch(pairs)
    expected = "encoder-only: expected a target as long as its source, 2 symbols, or of one symbol, got"
    assert str(raised.value) == f"{expected} {n}"


@pytest.mark.parametrize("make", [joined_batch, aligned_batch])
def test_a_batch_of_no_pairs_is_refused(make):
    with pytest.raises(mt.InputError, match="expected at least one pair to make a batch of, got none"):
        make([])


@given(PAIRS, st.integers(1, 9))
def test_parts_of_a_joined_batch_are_its_rows(pairs, n):
    batch = joined_batch(pairs)
    found = split_batch(batch, n)
    assert {type(part) for part in found} == {OneStackBatch} and len(found) == min(n, len(pairs))
    assert [part.n_tokens for part in found] == [int((part.answers != PAD).sum()) for part in found]
    rows = [
        [*ids, *answers]
        for part in found
        for ids, answers in zip(*map(np.ndarray.tolist, part[:2]), strict=True)
    ]
    expected = [
        [*ids, *answers] for ids, answers in zip(batch.ids.tolist(), batch.answers.tolist(), strict=True)
    ]
    assert sorted(rows) == sorted(expected)


@given(PAIRS)
@example(
    [([3] * 5, [4]), ([3], [4] * 9), ([3] * 6, [4] * 5)]
)  # the longest source, target, and both together
def test_the_longest_input_is_that_of_any_batch(pairs):
    for make in (make_batch, joined_batch):
        expected = max(ids.shape[1] for pair in pairs for ids in make([pair]).inputs)
        assert longest_input(pairs, make) == expected
    same = [(source, source) for source, _ in pairs if source]
    if same:
        assert longest_input(same, aligned_batch) == max(len(source) for source, _ in same)


def test_a_stream_makes_the_batches_that_it_is_told_to():
    stream, plain = BatchStream(Shift(), 64, 5, joined_batch), BatchStream(Shift(), 64, 5)
    for _ in range(12):
        batch, other = stream.next(), plain.next()
        assert isinstance(batch, OneStackBatch) and batch.n_tokens == other.n_tokens
        assert (batch.ids == EOS).sum() == len(batch.ids) == len(other.src_ids)
        assert [row[row != PAD].tolist() for row in batch.answers] == [
            row[row != PAD].tolist() for row in other.tgt_out
        ]


@pytest.mark.parametrize("make", [make_batch, joined_batch])
@pytest.mark.parametrize(("pair", "lowest"), [(([3], [4, 0, 5]), 0), (([0], []), 0), (([5, -1], [3]), -1)])
def test_ids_that_mean_padding_are_refused(make, pair, lowest):
    with pytest.raises(mt.InputError, match=f"expected ids from 3 on, after PAD, BOS and EOS, got {lowest}$"):
        make([([3], [4]), pair])
