"""Subwords: every text comes back, every size is kept, and nothing depends on the day."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import message_of

import minitransformer as mt
from minitransformer.tasks import BOS, EOS, PAD, Subwords
from minitransformer.tasks.subwords import UNKNOWN, sentencepiece

pytest.importorskip("sentencepiece")

TEXT = ["der rote hund schläft", "die rote katze schläft nicht", "ein hund , 3 katzen"] * 5
ALPHABET = sorted(set("".join(TEXT)) - {" "})
SUBWORDS = Subwords.learn(TEXT, 40)


@given(words=st.lists(st.text(ALPHABET, min_size=1, max_size=9), min_size=1, max_size=5))
def test_a_text_of_known_characters_comes_back(words):
    text = " ".join(words)
    ids = SUBWORDS.encode(text)
    assert all(UNKNOWN < i < len(SUBWORDS) for i in ids)
    assert SUBWORDS.decode(ids) == text
    assert SUBWORDS.encode_all([text, "", text]) == [ids, [], ids]
    assert "".join(SUBWORDS.symbols[i] for i in ids).replace("▁", " ").strip() == text


def test_pieces_are_shorter_than_characters_and_longer_than_words():
    text = "die rote katze schläft"
    assert len(text.split()) <= len(SUBWORDS.encode(text)) < len(text)
    assert len(Subwords.learn(TEXT, 30).encode(text)) > len(Subwords.learn(TEXT, 50).encode(text))


def test_an_unknown_character_is_one_unknown_symbol():
    ids = SUBWORDS.encode("hund 犬")
    known = SUBWORDS.encode("hund")
    assert ids.count(UNKNOWN) == 1 and ids[: len(known)] == known
    assert SUBWORDS.decode(ids).startswith("hund")


def test_the_vocabulary_has_the_size_asked_for_and_begins_with_the_special_symbols():
    for size in (30, 41, 60):
        assert len(Subwords.learn(TEXT, size)) == len(Subwords.learn(TEXT, size).symbols) == size
    assert (PAD, BOS, EOS, UNKNOWN) == (0, 1, 2, 3)
    assert len(set(SUBWORDS.symbols)) == len(SUBWORDS)
    for text in TEXT:
        assert min(SUBWORDS.encode(text)) > UNKNOWN
    assert not {PAD, BOS, EOS} & set(SUBWORDS.encode("<pad> </s> <s>"))  # no text writes them


def test_what_is_learned_depends_on_the_text_alone():
    again = Subwords.learn(iter(TEXT), 40)
    assert again.proto == SUBWORDS.proto
    assert Subwords(again.proto).symbols == SUBWORDS.symbols
    assert Subwords.learn(TEXT[1:2] * 9, 30).symbols != Subwords.learn(TEXT, 30).symbols


@pytest.mark.parametrize("size", [5, 100_000])
def test_a_size_that_the_text_does_not_allow_is_refused(size):
    with pytest.raises(mt.ConfigError, match=f"vocab_size.*{size}") as raised:
        Subwords.learn(TEXT, size)
    assert "\n" not in str(raised.value)


def test_decode_stops_at_the_end_and_refuses_what_is_no_id():
    ids = SUBWORDS.encode("der hund")
    assert SUBWORDS.decode([*ids, EOS, *ids]) == "der hund"
    for bad in (len(SUBWORDS), -1, 1.5, "7"):
        with pytest.raises(mt.InputError, match=f"0 … {len(SUBWORDS) - 1}"):
            SUBWORDS.decode([*ids, bad])


@pytest.mark.parametrize("text", ["", " \t", None, 3])
def test_a_text_without_words_is_refused(text):
    with pytest.raises(mt.InputError, match="expected a text"):
        SUBWORDS.encode(text)


@pytest.mark.parametrize("proto", [b"", b"half", SUBWORDS.proto[:50]], ids=["empty", "other", "cut short"])
def test_a_damaged_file_is_told(proto):
    with pytest.raises(mt.CheckpointError, match="SentencePiece"):
        Subwords(proto)


def test_blanks_of_any_kind_separate_words():
    assert SUBWORDS.encode(" der\thund\u3000schläft\n") == SUBWORDS.encode("der hund schläft")


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(mt.InputError, match="UTF-8"):
        SUBWORDS.encode("hund \udcff")


def test_a_line_of_any_length_is_learned_from():
    assert UNKNOWN not in Subwords.learn([*TEXT, "der hund " * 1000 + "Q"], 41).encode("Q")


@pytest.mark.parametrize(
    "word", ["\ufb01n", "\uff28\uff55\uff4e\uff44", "\u2460", "\u00bd", "e\u0301", "\u212b"]
)
def test_a_word_comes_back_in_the_characters_that_it_was_written_in(word):
    """A ligature, full-width letters, a number in a circle, a fraction, an accent of its own, the sign for ångström."""
    subwords = Subwords.learn([*TEXT, f"{word} hund"], 50)
    ids = subwords.encode(f"der {word}")
    assert UNKNOWN not in ids and subwords.decode(ids) == f"der {word}"


# ---- messages, whole


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (5, "is smaller than required_chars. 5 vs 24"),
        (999, "too high (999). Please set it to a value <= 97."),
    ],
)
def test_a_size_is_refused_in_the_words_of_sentencepiece_without_its_lines_of_code(size, reason):
    expected = f"vocab_size: cannot learn {size} subwords from this text (Vocabulary size {reason})"
    assert message_of(mt.ConfigError, Subwords.learn, TEXT, size) == expected


def test_learning_prints_nothing():
    """In a process of its own: SentencePiece is silent for ever, once it has been told to be."""
    code = f"from minitransformer.tasks import Subwords; print(len(Subwords.learn({TEXT}, 40)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{len(Subwords.learn(TEXT, 40))}\n", "")


def test_learning_silences_no_errors_of_sentencepiece():
    code = f"""
import sentencepiece
from minitransformer.tasks import Subwords
Subwords.learn({TEXT}, 40)
sentencepiece.SentencePieceProcessor().get_piece_size()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Model is not initialized" in done.stderr


def test_a_line_that_utf8_cannot_write_is_refused():
    """SentencePiece's message is then one without a line of code in front."""
    with pytest.raises(
        mt.ConfigError, match=r"^vocab_size: cannot learn 40 subwords from this text \(Unable to"
    ):
        Subwords.learn([*TEXT, "hund \udcff"], 40)


def test_what_goes_wrong_in_reading_the_lines_is_not_the_sizes_fault():
    def lines():
        yield from TEXT
        raise RuntimeError("[line 16] unreadable")

    assert message_of(RuntimeError, Subwords.learn, lines(), 40) == "[line 16] unreadable"


def test_an_empty_file_is_told_so():
    expected = "the subwords are damaged: no SentencePiece model (nothing in it)"
    assert message_of(mt.CheckpointError, Subwords, b"") == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: SUBWORDS.encode(3), "expected a text, got 3"),
        (lambda: SUBWORDS.encode(" "), "expected a text, got ' '"),
        (
            lambda: SUBWORDS.encode("hund \udcff"),
            r"expected a text that UTF-8 can write, got 'hund \udcff'",
        ),
        (lambda: SUBWORDS.decode([3, 40]), "ids: expected ids 0 … 39, got 40"),
        (lambda: SUBWORDS.decode([-1]), "ids: expected ids 0 … 39, got -1"),
        (lambda: SUBWORDS.decode(3), "ids: expected a list of ids 0 … 39, got 3"),
    ],
)
def test_what_cannot_be_encoded_or_decoded_is_named(call, expected):
    assert message_of(mt.InputError, call) == expected


def test_padding_is_a_symbol_that_writes_nothing():
    assert SUBWORDS.decode([PAD, *SUBWORDS.encode("der hund"), PAD]) == "der hund"


def test_the_last_symbol_is_decoded():
    last = len(SUBWORDS) - 1
    assert SUBWORDS.decode([last]) == SUBWORDS.symbols[last].replace("▁", " ").strip() != ""


def test_without_sentencepiece_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # import raises ImportError
    expected = "task 'text' needs SentencePiece: pip install 'minitransformer[text]'"
    assert message_of(mt.ConfigError, sentencepiece) == expected
