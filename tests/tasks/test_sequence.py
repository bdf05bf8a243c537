"""What tasks on sequences promise: right answers, and test sequences that training can never show."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_tasks import Double, words_of

import minitransformer as mt
from minitransformer.backend import generator
from minitransformer.tasks import (
    BOS,
    EOS,
    PAD,
    Copy,
    Reverse,
    SequenceTask,
    Sort,
)

SEEDS = st.integers(0, 2**32 - 1)


def right_answer(name, words):
    """The tasks once more, on the words that a reader sees."""
    if name == "reverse":
        words.reverse()
    elif name == "sort":
        for end in range(len(words) - 1, 0, -1):  # bubble sort
            for i in range(end):
                if int(words[i]) > int(words[i + 1]):
                    words[i], words[i + 1] = words[i + 1], words[i]
    else:
        assert name == "copy"
    return words


def all_pairs(task, seed):
    """Name of the set -> its pairs, training among them."""
    sets = task.evaluation_sets(generator(seed))
    return {"train": task.training_pairs(generator(seed + 1)), **sets}


@pytest.mark.parametrize("cls", [Copy, Reverse, Sort])
@given(SEEDS)
def test_answers_are_right(cls, seed):
    task = cls(epoch_size=50, test_size=20)
    for pairs in all_pairs(task, seed).values():
        for source, target in pairs:
            assert len(words_of(task, source)) == len(source)
            assert words_of(task, target) == right_answer(task.name, words_of(task, source))


@pytest.mark.parametrize("cls", [Copy, Reverse, Sort])
@given(SEEDS)
def test_held_out_sequences_are_disjoint_by_construction(cls, seed):
    task = cls(epoch_size=300, test_size=100)
    last_digits = {
        name: {sum(map(int, words_of(task, source))) % 10 for source, _ in pairs}
        for name, pairs in all_pairs(task, seed).items()
    }
    assert last_digits.pop("train") == set(range(2, 10))
    assert last_digits.pop("valid") == {1}
    assert last_digits.pop("test") == {0}
    assert all(digits == {0} for digits in last_digits.values())


@pytest.mark.parametrize(
    ("cls", "symbols", "lengths", "longer"),
    [
        (Copy, range(1, 11), {10}, {}),
        (
            Reverse,
            range(50),
            set(range(1, 26)),
            {"26-30": set(range(26, 31)), "31-50": set(range(31, 51)), "51-100": set(range(51, 101))},
        ),
        (Sort, range(10), set(range(1, 13)), {}),
    ],
)
def test_symbols_and_lengths_are_those_of_the_task(cls, symbols, lengths, longer):
    task = cls()
    sets = all_pairs(task, seed=3)
    assert {name: len(pairs) for name, pairs in sets.items() if name != "train"} == dict.fromkeys(
        ["valid", "test", *longer], 1000
    )
    seen = {name: {len(source) for source, _ in pairs} for name, pairs in sets.items()}
    expected = {"train": lengths, "valid": lengths, "test": lengths, **longer}
    assert seen == {name: expected[name] for name in seen}
    ids = {i for source, target in sets["train"] for i in (*source, *target)}
    assert {int(task.vocabulary.symbols[i]) for i in ids} == set(symbols)
    assert len(task.vocabulary) == len(symbols) + 3


@pytest.mark.parametrize(
    ("max_length", "longest", "expected"),
    [
        (25, 100, ["26-30", "31-50", "51-100"]),
        (25, 28, ["26-28"]),
        (25, 31, ["26-30", "31-31"]),
        (3, 20, ["4-8", "9-12", "13-20"]),
        (25, 0, []),
    ],
)
def test_longer_sequences_are_tested_in_groups_of_their_lengths(max_length, longest, expected):
    task = Reverse(max_length=max_length, longest=longest, test_size=3)
    assert list(task.evaluation_sets(generator(0))) == ["valid", "test", *expected]


@pytest.mark.parametrize("cls", [Copy, Reverse, Sort])
def test_the_specials_are_never_a_data_symbol(cls):
    assert len({PAD, BOS, EOS}) == 3
    for pairs in all_pairs(cls(), seed=5).values():
        ids = {i for source, target in pairs for i in (*source, *target)}
        assert not ids & {PAD, BOS, EOS}
        assert max(ids) < len(cls().vocabulary)


@pytest.mark.parametrize("cls", [Copy, Reverse, Sort])
def test_pairs_are_a_function_of_the_seed(cls):
    task = cls(epoch_size=40, test_size=10)
    assert all_pairs(task, 7) == all_pairs(task, 7)
    assert all_pairs(task, 7)["train"] != all_pairs(task, 8)["train"]
    assert all_pairs(task, 7)["test"] != all_pairs(task, 8)["test"]


@given(
    SEEDS, st.integers(-20, 20), st.integers(2, 60), st.integers(1, 9), st.integers(0, 9), st.integers(0, 5)
)
def test_any_setting_that_can_be_split_keeps_the_promises(seed, first, n_symbols, shortest, more, beyond):
    longest_trained = shortest + more
    settings = {
        "first_symbol": first,
        "n_symbols": n_symbols,
        "min_length": shortest,
        "max_length": longest_trained,
        "longest": longest_trained + beyond if beyond else 0,
        "epoch_size": 30,
        "test_size": 7,
    }
    sums = range(shortest * first, shortest * (first + n_symbols - 1) + 1)  # those of the shortest alone
    if len(sums) < 10:
        return
    task = Reverse(**settings)
    sets = all_pairs(task, seed)
    longer = [name for name in sets if name not in ("train", "valid", "test")]
    assert bool(longer) == (beyond > 0)
    digits = {"train": set(range(2, 10)), "valid": {1}}
    for name, pairs in sets.items():
        assert len(pairs) == (30 if name == "train" else 7)
        for source, target in pairs:
            words = words_of(task, source)
            assert sum(map(int, words)) % 10 in digits.get(name, {0})
            assert words_of(task, target) == words[::-1]
            low, high = map(int, name.split("-")) if name in longer else (shortest, longest_trained)
            assert low <= len(source) <= high
    if longer:
        assert int(longer[0].split("-")[0]) == longest_trained + 1
        assert int(longer[-1].split("-")[1]) == longest_trained + beyond


class ImpatientGenerator:
    """A random generator that ends a search which would never end."""

    def __init__(self):
        self.rng, self.left = generator(1), 10_000

    def integers(self, *arguments):
        self.left -= 1
        if not self.left:
            pytest.fail("the task is still looking for a sequence that cannot exist")
        return self.rng.integers(*arguments)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_symbols": 2, "max_length": 1},  # sums 0 and 1: nothing to train on
        {
            "n_symbols": 2,
            "max_length": 2,
            "first_symbol": 4,
            "min_length": 2,
        },  # 8, 9, 10: nothing to validate on
        {"n_symbols": 5, "max_length": 1, "first_symbol": 1},  # 1 ... 5: nothing to test on
        {"n_symbols": 3, "max_length": 1, "longest": 2, "first_symbol": 10, "min_length": 1, "test_size": 3},
    ],
)
def test_numbers_that_cannot_be_split_are_refused_not_searched_for_ever(settings):
    """Of the last, the longer sums are 20 ... 24 and can be split off; 10, 11, 12 all can."""
    if settings.get("longest"):
        assert Reverse(**settings).evaluation_sets(ImpatientGenerator())["2-2"]
        return
    with pytest.raises(mt.ConfigError):
        task = Sort(**settings)
        task.evaluation_sets(ImpatientGenerator())
        task.training_pairs(ImpatientGenerator())


@pytest.mark.parametrize(
    "settings",
    [
        {"n_symbols": 1},
        {"min_length": 0},
        {"min_length": 11, "max_length": 10},
        {"epoch_size": 0},
        {"test_size": -3},
        {"n_symbols": 3.5},
        {"n_symbols": "ten"},
        {"max_length": True},
    ],
)
def test_impossible_settings_are_refused_by_name_and_value(settings):
    with pytest.raises(mt.ConfigError, match=f"{next(iter(settings))}.*{next(iter(settings.values()))}"):
        Sort(**settings)


def test_a_users_sequence_task_answers_in_its_own_numbers():
    task = Double()
    for source, target in task.training_pairs(generator(3)):
        expected = [str(2 * int(word) % 10) for word in words_of(task, source)]
        assert words_of(task, target) == expected


@dataclass(frozen=True)
class OffByOne(SequenceTask):
    """A user's mistake: an answer that is no number of the task."""

    name: ClassVar[str] = "off by one"
    by: int = -1

    def answer(self, sequence):
        return sequence + self.by


@pytest.mark.parametrize("by", [-1, 1])
def test_answers_outside_the_vocabulary_are_refused(by):
    """Below the first symbol lie the ids of EOS, BOS and PAD."""
    with pytest.raises(mt.InputError):
        OffByOne(by=by).training_pairs(generator(1))


def test_a_sequence_task_without_an_answer_says_so():
    with pytest.raises(NotImplementedError, match="SequenceTask"):
        SequenceTask().training_pairs(generator(1))
