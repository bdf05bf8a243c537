"""`minitransformer decode`, one sentence, and `translate`, a file, line by line."""

import contextlib
import io
import json
import subprocess
import sys

import pytest
from command_line import assert_refused, call, the_object

import minitransformer as mt
from minitransformer import cli
from minitransformer.commands import translate as command
from minitransformer.inference.lines import Translation


def test_decode_translates(capsys, run):
    model = mt.load_model(mt.RunFolder(run))
    vocabulary = mt.RunFolder(run).settings().task.vocabulary
    expected = vocabulary.decode(mt.translate(model, [vocabulary.encode("3 1 4")])[0])
    assert call("decode", run, "3 1 4", "--json") == 0
    assert the_object(capsys) == {"input": "3 1 4", "output": expected}
    assert call("decode", run, "3 1 4") == 0
    assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("   ", ["empty"]),
        ("3 99 4", ["'99'"]),
        ("3,4", ["'3,4'"]),
        ("<pad> 3", ["'<pad>'"]),
        ("-1", ["-1"]),
        (" ".join(["3"] * 40), ["max_len", "16", "41"]),
    ],
)
def test_what_decode_cannot_use_is_refused(capsys, run, tmp_path, text, parts):
    assert_refused(capsys, tmp_path, ["decode", run, "--", text], *parts)


LINES = ["the house falls", "", "a dog sleeps", "  ", "the small red house does not fall"]


@pytest.fixture
def translate(translate_run, capsys, monkeypatch):
    """Exit status, output and errors of the command, for some input (bytes)."""

    def call(data, *options):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsys.readouterr()
        status = cli.main(["translate", str(translate_run), *options])
        return status, *capsys.readouterr()

    return call


def searched(translate_run, line, beam, alpha=0.6):
    """What beam search finds for one line by itself: score and text."""
    vocabulary, model = mt.RunFolder(translate_run).settings().task.vocabulary, mt.load_model(translate_run)
    source = [*vocabulary.encode(line), mt.tasks.EOS]
    found = mt.beam_search(model, [source], beam, alpha, max_len=min(16, len(source) + 50))[0]
    return [(score, vocabulary.decode(ids)) for ids, score in found]


@pytest.mark.parametrize(("beam", "alpha"), [(4, 0.6), (1, 0.6), (3, 0.0)])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=repr)
def test_every_line_is_answered_in_its_place(translate_run, translate, beam, alpha, end):
    data = ("\r\n" if end == "\r\n" else "\n").join(LINES) + end
    status, out, err = translate(data.encode(), "--beam", str(beam), "--alpha", str(alpha))
    expected = [searched(translate_run, line, beam, alpha)[0][1] if line.strip() else "" for line in LINES]
    assert (status, out, err) == (0, "".join(f"{line}\n" for line in expected), "")


def test_many_lines_come_out_in_parts_as_they_went_in(translate_run, translate, monkeypatch):
    parts = command._parts_of
    monkeypatch.setattr(command, "_parts_of", lambda file: parts(file, 2))
    status, out, _ = translate("\n".join(LINES * 3).encode())
    expected = [searched(translate_run, line, 4)[0][1] if line.strip() else "" for line in LINES]
    assert status == 0 and out.split("\n")[:-1] == expected * 3


def test_a_terminal_is_told_how_far_a_file_has_come(translate, monkeypatch):
    parts = command._parts_of
    monkeypatch.setattr(command, "_parts_of", lambda file: parts(file, 2))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, out, err = translate("\n".join(LINES).encode())
    assert len(out.splitlines()) == 5
    assert err.splitlines() == [f"{n} lines translated" for n in (2, 4, 5)]


def test_the_n_best_have_their_line_and_their_score(translate_run, translate):
    status, out, _ = translate("\n".join(LINES).encode(), "--n-best", "2", "--beam", "3")
    found = [line.split("\t") for line in out.splitlines()]
    expected = [
        [str(number), f"{score:.4f}", text]
        for number, line in enumerate(LINES, 1)
        if line.strip()
        for score, text in searched(translate_run, line, 3)[:2]
    ]
    assert status == 0 and found == expected and len(found) == 6
    assert float(found[0][1]) > float(found[1][1])


def test_json_is_one_object(translate_run, translate):
    status, out, err = translate("\n".join(LINES).encode(), "--json", "--n-best", "2")
    answer = json.loads(out)
    assert (status, err, answer["run"]) == (0, "", str(translate_run))
    expected = [searched(translate_run, line, 4)[:2] if line.strip() else [] for line in LINES]
    assert [[(x["score"], x["text"]) for x in best] for best in answer["lines"]] == [
        [(pytest.approx(score), text) for score, text in best] for best in expected
    ]
    assert json.loads(translate(b"", "--json")[1])["lines"] == []


def test_a_byte_order_mark_and_other_blanks_are_no_words(translate_run, translate):
    assert (
        translate("\ufeffthe\thouse falls".encode())[1]
        == searched(translate_run, "the house falls", 4)[0][1] + "\n"
    )


def test_output_is_utf_8_where_the_terminal_lacks_a_letter(translate_run, monkeypatch):
    words = "la casa pequeña"
    ids = mt.RunFolder(translate_run).settings().task.vocabulary.encode(words)
    monkeypatch.setattr(command, "translate", lambda *arguments: [ids])
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert cli.main(["decode", str(translate_run), "the house"]) == 0
    assert sys.stdout.buffer.getvalue() == f"{words}\n".encode()


def test_output_is_utf_8_whatever_the_terminal_says(translate, monkeypatch):
    said = [[Translation("la casa pequeña", -1.0)]]
    monkeypatch.setattr(command, "translate_lines", lambda *arguments: (said, {}))
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with contextlib.suppress(ValueError):  # of capsys, which looks for its own
        translate(b"the small house\n")
    assert sys.stdout.buffer.getvalue() == "la casa pequeña\n".encode()


@pytest.mark.parametrize("how", ["--n-best 4", "--json"])
def test_a_reader_that_has_seen_enough_is_no_error(translate_run, tmp_path, how):
    """As `head` does: the pipe is closed while there is more to say."""
    command = f"{sys.executable} -m minitransformer translate {translate_run} {how} 2> {tmp_path}/err"
    data = b"the house falls\n" * 3000
    whole = ["bash", "-c", f"({command}; echo $? > {tmp_path}/rc) | head -c 5"]
    subprocess.run(whole, input=data, capture_output=True, check=True)
    assert (tmp_path / "err").read_text() == "" and (tmp_path / "rc").read_text() == "0\n"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"the house falls\na \xff b\n", "line 2: not UTF-8"),
        (b"\n\nthe houze falls\n", "line 3: unknown symbol 'houze'"),
        (b"the " * 17, "line 1: expected at most 15 symbols (by the model's max_len), got 17"),
    ],
    ids=["not UTF-8", "unknown", "too long"],
)
def test_a_line_that_cannot_be_read_is_named(translate, data, what):
    """The lines before it are answered, and those after it, if it may be left out."""
    bad, data = int(what.split()[1].strip(":")), data.rstrip(b"\n") + b"\nthe house falls\n"
    answer = translate(b"the house falls")[1]
    expected = [answer if line == b"the house falls" else "\n" for line in data.splitlines()]
    status, out, err = translate(data)
    assert (status, out) == (2, "".join(expected[: bad - 1])) and what in err and err.count("\n") == 1
    status, out, err = translate(data, "--bad-lines", "skip")
    assert (status, out, err.count("\n")) == (0, "".join(expected), 1) and f"left out, {what}" in err


def test_json_says_what_was_left_out(translate):
    status, out, _ = translate(b"the house falls\nthe houze\na dog\n", "--json", "--bad-lines", "skip")
    answer = json.loads(out)
    assert status == 0 and [len(best) for best in answer["lines"]] == [1, 0, 1]
    assert list(answer["left_out"]) == ["2"] and "'houze'" in answer["left_out"]["2"]


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_called_so(translate_run, translate, encoding, end):
    data = f"\ufeffthe house falls{end}".encode(encoding)
    status, out, err = translate(data)
    assert (status, out) == (2, "") and "expected UTF-8, got UTF-16; save it as UTF-8" in err


def test_lines_that_come_slowly_are_answered_at_once(translate_run):
    """Each answer comes while the pipe is open; the rest, written at once, and a last line without an end, too."""
    command = [sys.executable, "-m", "minitransformer", "translate", str(translate_run), "--beam", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        answers = []
        for line in (b"the house falls\n", b"a dog sleeps\n"):
            process.stdin.write(line)
            process.stdin.flush()
            answers.append(process.stdout.readline())  # for ever, if it waited for more lines
        out, _ = process.communicate(b"the house falls\n" * 1500 + b"a dog sleeps", timeout=60)
    assert out.splitlines(keepends=True) == answers[:1] * 1500 + answers[1:] and process.returncode == 0


def test_what_is_there_is_taken_together_up_to_a_number():
    class Pipe(io.BytesIO):
        """What was written to it, a piece a read."""

        def __init__(self, *pieces):
            left = iter(pieces)
            self.read1 = lambda n: next(left, b"")

    parts = list(command._parts_of(Pipe(b"\xef\xbb\xbfa\nb\nc", b"\nd\r\ne\nf\n", b"\n", b"\xffg"), 2))
    assert parts == [["a", "b"], ["c", "d"], ["e", "f"], [""], ["\udcffg"]]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--beam", "0"], "beam"),
        (["--alpha", "-1"], "alpha"),
        (["--n-best", "0"], "n-best"),
        (["--n-best", "9"], "n-best"),
    ],
)
def test_options_that_cannot_be_are_refused(translate, options, what):
    status, _, err = translate(b"the house falls\n", *options)
    assert status == 2 and what in err and err.count("\n") == 1
