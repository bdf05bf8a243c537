"""Symbols and ids: three specials that no symbol can be mistaken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.tasks import BOS, EOS, PAD, Vocabulary
from minitransformer.tasks.vocabulary import Characters

SYMBOLS = st.lists(
    st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=4),
    min_size=2,
    max_size=20,
    unique=True,
)


@given(SYMBOLS, st.data())
def test_decode_undoes_encode(symbols, data):
    vocabulary = Vocabulary(symbols)
    words = data.draw(st.lists(st.sampled_from(symbols), min_size=1))
    ids = vocabulary.encode("  ".join(words) + "\n")
    assert ids == [symbols.index(word) + 3 for word in words]
    assert vocabulary.decode(ids) == " ".join(words)
    assert vocabulary.decode([*ids, EOS, *ids, PAD]) == " ".join(words)
    assert len(vocabulary) == len(symbols) + 3


def test_the_specials_are_three_ids_that_no_text_encodes_to():
    assert len({PAD, BOS, EOS}) == 3
    vocabulary = Vocabulary("abc")
    assert not {PAD, BOS, EOS} & set(vocabulary.encode("a b c"))
    for special in vocabulary.symbols[:3]:
        with pytest.raises(mt.InputError, match="unknown symbol"):
            vocabulary.encode(f"a {special} b")


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(mt.InputError, match="empty"):
        Vocabulary("abc").encode(text)


def test_an_unknown_symbol_is_named_with_the_nearest():
    vocabulary = Vocabulary(["apple", "banana", "cherry"])
    with pytest.raises(mt.InputError, match=r"'banan'.*'banana'"):
        vocabulary.encode("apple banan")
    with pytest.raises(mt.InputError, match=r"'7'.*apple banana cherry"):
        vocabulary.encode("7")


def test_several_symbols_that_are_near_are_all_named_the_nearest_first():
    with pytest.raises(mt.InputError, match=r"'hous' \(did you mean 'house' or 'houses' or 'mouse'\?\)"):
        Vocabulary(["mouse", "houses", "tree", "house"]).encode("hous")


@given(st.text("ab <>\n\r\té☃\u2028😀", min_size=1, max_size=30))
def test_characters_are_each_an_id(text):
    """Line ends and blanks, too, which Vocabulary takes for separators."""
    vocabulary = Characters(sorted(set(text)))
    ids = vocabulary.encode(text)
    assert len(ids) == len(text) and vocabulary.decode(ids) == text and min(ids) >= 3
    assert vocabulary.decode([*ids, EOS, *ids]) == text
    assert [vocabulary.symbols[i] for i in ids] == list(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a text, got ''"),
        (None, "expected a text, got None"),
        (["a"], "expected a text, got ['a']"),
        ("abda", "unknown character 'd'; the text that was learned has none"),
        ("a\n", r"unknown character '\n'; the text that was learned has none"),
        ("a\udcff", r"unknown character '\udcff'; the text that was learned has none"),
    ],
)
def test_messages_of_characters(text, message):
    with pytest.raises(mt.InputError) as raised:
        Characters("abc").encode(text)
    assert str(raised.value) == message


def test_the_specials_are_no_characters():
    """Nor can they be written: a text that says <s> is three characters."""
    vocabulary = Characters("<>s")
    assert vocabulary.encode("<s>") == [3, 5, 4]
