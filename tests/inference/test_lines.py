"""Lines into translations: each in its place. (Of files: tests/commands/test_translate.py.)"""

from __future__ import annotations

import pytest

from minitransformer.inference.beam import Hypothesis
from minitransformer.inference.lines import Translation, translate_lines
from minitransformer.tasks import Vocabulary

WORDS = Vocabulary(["a", "b", "c"])


def backwards(sources: list[list[int]]) -> list[list[Hypothesis]]:
    """A search that finds each source backwards, then as it is."""
    return [[Hypothesis(source[::-1], -len(source)), Hypothesis(source, -9.0)] for source in sources]


def test_each_line_has_what_was_found_for_it_and_a_line_without_words_has_nothing():
    found, bad = translate_lines(backwards, WORDS, ["a b c", "", "c", " \t "], longest=3)
    assert bad == {} and found == [
        [Translation("c b a", -3), Translation("a b c", -9)],
        [],
        [Translation("c", -1), Translation("c", -9)],
        [],
    ]
    assert translate_lines(backwards, WORDS, [], longest=3) == ([], {})


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a d", "unknown symbol 'd'"),
        ("a b c a", "expected at most 3 symbols (by the model's max_len), got 4"),
        ("a \udcff b", "not UTF-8"),
    ],
)
def test_a_bad_line_has_nothing_and_the_others_what_was_found(line, what):
    found, bad = translate_lines(backwards, WORDS, ["a", line, "b"], longest=3)
    assert list(bad) == [1] and bad[1].startswith(what)
    assert [[x.text for x in best] for best in found] == [["a", "a"], [], ["b", "b"]]
