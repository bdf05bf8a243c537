"""Lines into translations: each in its place. (Of files: tests/commands/test_translate.py.)"""

from __future__ import annotations

import pytest

import minitransformer as mt
from minitransformer.inference.beam import Hypothesis
from minitransformer.inference.lines import Translation, translate_lines
from minitransformer.tasks import Vocabulary

WORDS = Vocabulary(["a", "b", "c"])


def backwards(sources: list[list[int]]) -> list[list[Hypothesis]]:
    """A search that finds each source backwards, then as it is."""
    return [[Hypothesis(source[::-1], -len(source)), Hypothesis(source, -9.0)] for source in sources]


def test_each_line_has_what_was_found_for_it_and_a_line_without_words_has_nothing():
    found = translate_lines(backwards, WORDS, ["a b c", "", "c", " \t "], max_len=4)
    assert found == [
        [Translation("c b a", -3), Translation("a b c", -9)],
        [],
        [Translation("c", -1), Translation("c", -9)],
        [],
    ]
    assert translate_lines(backwards, WORDS, [], max_len=4) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a d", "unknown symbol 'd'"),
        ("a b c a", r"expected less than 4 symbols \(the model's max_len\), got 4"),
    ],
)
def test_lines_are_counted_from_the_first_one_of_the_file(line, what):
    with pytest.raises(mt.InputError, match=f"^line 12: {what}"):
        translate_lines(backwards, WORDS, ["a", "", line], max_len=4, first=10)
