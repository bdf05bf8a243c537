"""Parallel files: what is read, and how a line that cannot be used is told."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minitransformer as mt
from minitransformer.tasks.parallel_text import BadLine, first_of, read_parallel

WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=4)
SENTENCES = st.lists(WORDS, min_size=1, max_size=4)
GOOD = b"ein haus", b"a house"


def write(folder, src, tgt):
    """Two files of these lines (bytes), the second gzipped; their paths."""
    (folder / "src").write_bytes(src)
    with gzip.open(folder / "tgt.gz", "wb") as file:
        file.write(tgt)
    return str(folder / "src"), str(folder / "tgt.gz")


@given(
    pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6), end=st.sampled_from(["", "\n"])
)
def test_what_was_written_is_read(tmp_path_factory, pairs, end):
    src, tgt = ("\n".join(" ".join(pair[i]) for pair in pairs) + end for i in range(2))
    paths = write(tmp_path_factory.mktemp("data"), src.encode(), tgt.encode())
    read, bad = read_parallel(*paths)
    assert read == [(n, " ".join(s), " ".join(t)) for n, (s, t) in enumerate(pairs, 1)] and bad == []


def test_blanks_and_line_ends_are_no_part_of_a_sentence(tmp_path):
    paths = write(tmp_path, b"\xef\xbb\xbf a\t b \r\n\xc2\xa0c\xe3\x80\x80d\n", b"x y\nz\r\n")
    assert read_parallel(*paths) == ([(1, "a b", "x y"), (2, "c d", "z")], [])


@pytest.mark.parametrize(
    ("src", "tgt", "kept", "told"),
    [
        (b"", b"b", [1, 3], [("src", 2, "empty")]),
        (b"a", b" \t\r", [1, 3], [("tgt.gz", 2, "empty")]),
        (b"a\xff", b"b", [1, 3], [("src", 2, "not UTF-8 (byte 2 of the line)")]),
        (b"a", "ä".encode("latin-1"), [1, 3], [("tgt.gz", 2, "not UTF-8 (byte 1 of the line)")]),
        (b"\xc3", b"", [1, 3], [("src", 2, "not UTF-8 (byte 1 of the line)"), ("tgt.gz", 2, "empty")]),
        (b"\0a\0", b"b", [1, 3], [("src", 2, "a NUL in it, as UTF-16 has; save the file as UTF-8")]),
        (
            b"a",
            "b ▁".encode(),
            [1, 3],
            [("tgt.gz", 2, "a ▁ (U+2581) in it, which stands for a blank in subwords")],
        ),
        (b"a\nb", b"c", [1, 2, 3], [("tgt.gz", 4, "missing, though the other file has this line")]),
        (b"a", b"c\nd", [1, 2, 3], [("src", 4, "missing, though the other file has this line")]),
    ],
    ids=[
        "empty",
        "blanks only",
        "not UTF-8",
        "Latin-1",
        "both",
        "NUL",
        "U+2581",
        "longer source",
        "longer target",
    ],
)
def test_a_bad_line_is_told_with_its_file_and_number(tmp_path, src, tgt, kept, told):
    """The line in the middle of three is bad; the others are kept with their numbers."""
    paths = write(
        tmp_path,
        *(b"\n".join([good, line, good]) + b"\n" for good, line in zip(GOOD, (src, tgt), strict=True)),
    )
    pairs, bad = read_parallel(*paths)
    assert [pair.number for pair in pairs] == kept
    assert bad == [(str(tmp_path / name), number, fault) for name, number, fault in told]


def test_a_message_names_the_first_few_and_counts_the_rest():
    bad = [BadLine("a.en", n, "empty") for n in range(1, 1009)]
    assert first_of(bad[:2]) == "a.en:1: empty; a.en:2: empty"
    assert first_of(bad[:5]).count("empty") == 5 and "more" not in first_of(bad[:5])
    assert first_of(bad).endswith("a.en:5: empty; and 1,003 more")


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        (None, "no.en", "no.en: cannot be read.*No such file"),
        (b"plain text", "plain.en.gz", "plain.en.gz: damaged, or not gzipped"),
        ("text\n".encode("utf-16"), "16.txt", "16.txt: expected UTF-8, got UTF-16; save it as UTF-8"),
        (gzip.compress("text\n".encode("utf-16")), "16.gz", "16.gz: expected UTF-8, got UTF-16"),
        (gzip.compress(b"text\n" * 99)[:-9], "cut.gz", "cut.gz: damaged, or not gzipped"),
        (gzip.compress(b"text\n" * 99)[:12] + b"\0" * 40, "torn.gz", "torn.gz: damaged, or not gzipped"),
    ],
    ids=["missing", "plain", "UTF-16", "UTF-16, gzipped", "cut short", "overwritten"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, name, what):
    (tmp_path / "good").write_bytes(b"text\n" * 99)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for paths in ((tmp_path / name, tmp_path / "good"), (tmp_path / "good", tmp_path / name)):
        with pytest.raises(mt.InputError, match=what):
            read_parallel(*map(str, paths))


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(mt.InputError, match=r"'a\\x00b': cannot be read \("):
        read_parallel("a\0b", "a\0b")


def test_empty_files_are_refused(tmp_path):
    with pytest.raises(mt.InputError, match="two empty files"):
        read_parallel(*write(tmp_path, b"", b""))
