"""Task chars: which characters are learned and which held out, the vocabulary in the run folder, and bad texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import message_of

import minitransformer as mt
from minitransformer.runs.evaluation import held_out
from minitransformer.tasks.chars import CHARACTERS, TEXT, Chars
from minitransformer.training.batching import aligned_batch


@pytest.fixture
def text_file(tmp_path):
    def write(content, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def the_text(task, pairs):
    """The blocks of the pairs, as text, and the same one character later."""
    decode = task.vocabulary.decode
    return [(decode(source.tolist()), decode(target.tolist())) for source, target in pairs]


@given(block=st.integers(1, 9), more=st.integers(0, 60), seed=st.integers(0, 9))
def test_blocks_are_from_the_first_nine_tenths_and_what_is_held_out_from_the_last(
    tmp_path_factory, block, more, seed
):
    """Every character is another one, so that each says where it comes from."""
    n = 10 * block + 1 + more
    text = "".join(chr(0x4E00 + i) for i in range(n))
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_text(text, encoding="utf-8")
    task = Chars(str(path), block, epoch_size=4000)
    cut = n * 9 // 10
    sources, targets = np.array(task.training_pairs(np.random.default_rng(seed))).transpose(1, 0, 2) - 3
    assert sources.shape == (4000, block)
    np.testing.assert_array_equal(sources, sources[:, :1] + np.arange(block))
    np.testing.assert_array_equal(targets, sources + 1)
    assert sorted(set(sources[:, 0])) == list(range(cut - block))  # from anywhere, up to the last tenth
    sets = task.evaluation_sets(np.random.default_rng(seed))
    assert list(sets) == ["valid"]
    held = the_text(task, sets["valid"])
    assert held and all(len(source) == len(target) == block for source, target in held)
    assert (
        "".join(source for source, _ in held) == text[cut : cut + block * len(held)]
    )  # in order, none twice
    assert "".join(target for _, target in held) == text[cut + 1 : cut + 1 + block * len(held)]
    assert n - cut - 1 - block * len(held) < block  # no block more would fit


def test_a_batch_says_at_each_character_which_one_is_next(text_file):
    task = Chars(text_file("abcdefghij" * 9), block=4, epoch_size=6)
    batch = aligned_batch(task.training_pairs(np.random.default_rng(1)))
    assert batch.ids.shape == batch.answers.shape == (6, 4) and batch.n_tokens == 24
    np.testing.assert_array_equal(batch.answers[:, :-1], batch.ids[:, 1:])
    np.testing.assert_array_equal(batch.answers - 3, (batch.ids - 3 + 1) % 10)


def test_line_ends_and_other_scripts_are_characters_like_others(text_file):
    content = "ab\r\nü\u2028\U0001f600\t\n" * 30
    task = Chars(text_file(content), block=5)
    assert task.vocabulary.symbols[3:] == tuple(sorted(set(content)))
    assert task.vocabulary.decode(task.vocabulary.encode(content)) == content
    assert task.files() == {CHARACTERS: "".join(sorted(set(content))).encode()}


def test_the_default_text_is_the_source_of_this_package():
    task = Chars(epoch_size=3)
    text = "\n".join(path.read_text("utf-8") for path in sorted(Path(mt.__file__).parent.rglob("*.py")))
    assert len(text) > 300_000 and task.vocabulary.symbols[3:] == tuple(sorted(set(text)))
    (source, target), *_ = the_text(task, task.training_pairs(np.random.default_rng(1)))
    assert len(source) == 64 and source in text and target in text and source[1:] == target[:-1]
    assert sum(len(source) for source, _ in held_out(task)["valid"]) > 0.099 * len(text)


def test_a_run_keeps_the_source_that_it_learns_from(tmp_path):
    """That of another version of this package is another text."""
    (task := Chars()).load(tmp_path)
    assert task.files()[TEXT].decode() == task._read()
    older = "the source of an older version\r\n" * 60
    (tmp_path / CHARACTERS).write_text("".join(sorted(set(older))), newline="")
    (tmp_path / TEXT).write_text(older, newline="")
    (task := Chars(epoch_size=3)).load(tmp_path)
    assert task._read() == older and task.files()[TEXT].decode() == older
    assert all(source in older for source, _ in the_text(task, task.training_pairs(np.random.default_rng(1))))


def test_a_text_is_named_by_its_full_path_from_wherever_one_is(text_file, tmp_path, monkeypatch):
    path = text_file("abc" * 40)
    monkeypatch.chdir(tmp_path)
    assert Chars("text.txt").text == Chars(path).text == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Chars("~/text.txt").text == path
    assert Chars().text == ""
    with pytest.raises(mt.ConfigError, match=r"text: ~nobody-has-this-name/text\.txt: "):
        Chars("~nobody-has-this-name/text.txt")


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", mt.InputError, "{path}: expected a text, got an empty file"),
        (b"abc\xff" * 99, mt.InputError, "{path}: not UTF-8, at byte 3"),
        ("\ufeff".encode("utf-16"), mt.InputError, "{path}: expected UTF-8, got UTF-16; save it as UTF-8"),
        (b"ab" * 25, mt.ConfigError, "text: expected at least 51 characters, for block=5, got 50"),
        ("ü".encode() * 50, mt.ConfigError, "text: expected at least 51 characters, for block=5, got 50"),
    ],
)
def test_a_text_that_cannot_be_learned_is_refused(text_file, content, error, message):
    path = text_file(content)
    task = Chars(path, block=5)
    assert message_of(error, lambda: task.evaluation_sets(None)) == message.format(path=path)
    assert message_of(error, lambda: task.training_pairs(np.random.default_rng(1))) == message.format(
        path=path
    )


def test_the_shortest_text_has_one_block_to_validate_with(text_file):
    task = Chars(text_file("0123456789" * 5 + "!"), block=5)
    assert the_text(task, held_out(task)["valid"]) == [("56789", "6789!")]


def test_a_text_that_is_not_there_is_named(tmp_path):
    with pytest.raises(mt.InputError, match=r"none\.txt: cannot be read \(No such file"):
        Chars(str(tmp_path / "none.txt")).vocabulary  # noqa: B018
    with pytest.raises(mt.InputError, match=r"cannot be read .*folder"):
        Chars(str(tmp_path)).vocabulary  # noqa: B018


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block": 0}, "block: expected at least 1, got 0"),
        ({"block": 2.5}, "block: expected int, got 2.5"),
        ({"epoch_size": 0}, "epoch_size: expected at least 1, got 0"),
        ({"text": 3}, "text: expected str, got 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    assert message_of(mt.ConfigError, lambda: Chars(**settings)) == message


def test_the_vocabulary_of_a_run_is_the_one_in_its_folder(text_file, tmp_path):
    """Also where the text has gone, or has other characters now."""
    path = text_file("hello\r\nworld" * 9)
    for name, content in Chars(path).files().items():
        (tmp_path / name).write_bytes(content)
    expected = Chars(path).vocabulary.symbols
    Path(path).unlink()
    task = Chars(path)
    task.load(tmp_path)
    assert task.vocabulary.symbols == expected
    text_file("other text")
    again = Chars(path)
    again.load(tmp_path)
    assert again.vocabulary.symbols == expected
    message = "unknown character 't'; the text that was learned has none"
    assert message_of(mt.InputError, lambda: again.evaluation_sets(None)) == message
    again.load(tmp_path / "no such folder")  # nothing to load


def test_a_vocabulary_that_is_damaged_is_refused(tmp_path):
    (tmp_path / CHARACTERS).write_bytes(b"ab\xff")
    expected = f"{tmp_path / CHARACTERS}: damaged: expected characters in UTF-8"
    assert message_of(mt.CheckpointError, Chars().load, tmp_path) == expected
