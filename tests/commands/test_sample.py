"""`minitransformer sample`: a text goes on, character by character; the same by the same seed; what it refuses."""

import itertools
import json
import os
import shlex
import subprocess

import numpy as np
import pytest
from command_line import PROGRAM, TINY_CHARS, assert_refused, call, contents, the_object

import minitransformer as mt
from minitransformer.cli import main
from minitransformer.commands import sample as command

pytestmark = pytest.mark.usefixtures("signal_handlers")
PROMPT = "ab\r\ncd é"


def written(capsys, *arguments):
    """What is on standard output, which is all there is."""
    capsys.readouterr()
    assert call("sample", *arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_text_goes_on_after_the_prompt(capsys, chars_run):
    before = contents(chars_run)
    out = written(capsys, chars_run, PROMPT, "--length", 40)
    assert out.startswith(PROMPT) and out.endswith("\n") and len(out) == len(PROMPT) + 40 + 1
    assert set(out) <= set("ab cd\r\nefé\n")
    assert len(written(capsys, chars_run, "a")) == 1 + 500 + 1  # longer than max_len, many times
    long = "ab cd\r\n" * 10
    assert len(long) > 4 * 16 and written(capsys, chars_run, long, "--length", 3)[:-4] == long
    assert contents(chars_run) == before


@pytest.mark.parametrize("length", [0, 1, 9, 100])
def test_with_json_it_is_one_object_with_the_same_text(capsys, chars_run, length):
    out = written(capsys, chars_run, PROMPT, "--length", length)
    assert call("sample", chars_run, PROMPT, "--length", length, "--json") == 0
    answer = the_object(capsys)
    assert answer == {"prompt": PROMPT, "text": out.removesuffix("\n")}
    assert len(answer["text"]) == len(PROMPT) + length


def test_the_seed_decides(capsys, chars_run):
    texts = [
        written(capsys, chars_run, "ab", "--length", 60, *seed) for seed in ([], ["--seed", 0], ["--seed", 1])
    ]
    assert texts[0] == texts[1] != texts[2]
    # a longer text begins as a shorter one
    assert written(capsys, chars_run, "ab", "--length", 30) == texts[0][:32] + "\n"


def test_each_option_has_its_effect(capsys, chars_run):
    """The likeliest character, by three ways; and other texts by other settings."""
    common = chars_run, "ab cd", "--length", 50
    likeliest = [
        written(capsys, *common, *option)
        for option in (
            ["--top-k", 1],
            ["--top-p", 1e-9],
            ["--temperature", 1e-9],
            ["--top-k", 1, "--seed", 3],
        )
    ]
    assert len(set(likeliest)) == 1
    model, vocabulary = mt.load_model(chars_run), mt.RunFolder(chars_run).settings().task.vocabulary
    logits = model.forward([vocabulary.encode("ab cd")])[0][0, -1]
    assert likeliest[0][5] == vocabulary.symbols[3 + logits[3:].argmax()]
    options = ([], ["--temperature", 30], ["--temperature", 0.3], ["--top-k", 2], ["--top-p", 0.3])
    assert len({written(capsys, *common, *option) for option in options}) == 5


def test_no_special_is_ever_written(capsys, chars_run, monkeypatch):
    """Not even by a model that finds them likeliest."""
    load = command.load_model

    def changed(*arguments):
        model = load(*arguments)
        E = model.embedding.embedding.E.data
        E[:3] = 50 * E[3]
        return model

    monkeypatch.setattr(command, "load_model", changed)
    assert set(written(capsys, chars_run, "ab", "--length", 50)) <= set("ab cd\r\nefé\n")


def test_the_weights_can_be_chosen(capsys, chars_run):
    assert call("average", chars_run) == 0
    texts = [
        written(capsys, chars_run, "ab", "--length", 80, "--weights", w) for w in ("last", "best", "average")
    ]
    assert texts[0] != texts[2]
    assert_refused(capsys, chars_run.parent, ["sample", chars_run, "ab", "--weights", "first"], "first")


def test_each_character_is_written_as_soon_as_it_is_drawn(chars_run, monkeypatch):
    events = []
    draw = command.sampler

    def noted(*arguments):
        choose = draw(*arguments)
        return lambda logits: events.append("draw") or choose(logits)

    monkeypatch.setattr(command, "sampler", noted)
    monkeypatch.setattr(command, "write", lambda text, end: events.append(text))
    assert call("sample", chars_run, "ab", "--length", 3) == 0
    assert events[0] == "ab" and events[1::2] == ["draw"] * 3 and all(len(text) == 1 for text in events[2::2])


def test_the_text_need_not_be_there_any_more(capsys, trained_on_text, chars_run, monkeypatch):
    """The characters lie in the run folder."""
    out = written(capsys, chars_run, "ab", "--length", 9)
    config = json.loads((chars_run / "config.json").read_text())
    config["task_settings"]["text"] = str(chars_run / "none.txt")
    (chars_run / "config.json").write_text(json.dumps(config))
    assert written(capsys, chars_run, "ab", "--length", 9) == out
    assert_refused(capsys, chars_run.parent, ["evaluate", chars_run], "none.txt")


def test_as_a_pipe_is_closed_it_ends_without_a_word(chars_run, tmp_path):
    """As `head` does."""
    program = [*PROGRAM, "sample", str(chars_run), "ab cd", "--length", "1000000"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    assert process.stdout.read(12).startswith(b"ab cd")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["abx"], ["unknown character 'x'"]),
        ([""], ["expected a text, got ''"]),
        (["ab\n\tcd"], [r"unknown character '\t'"]),
        (["ab", "--length", "-1"], ["length: expected a number of characters, 0 or more, got -1"]),
        (["ab", "--length", "two"], ["--length", "'two'"]),
        (["ab", "--temperature", "0"], ["temperature: expected a number above 0"]),
        (["ab", "--temperature", "nan"], ["temperature: expected a number above 0"]),
        (["ab", "--top-k", "0"], ["top_k: expected 1 or more, or None, got 0"]),
        (["ab", "--top-p", "1.5"], ["top_p: expected a probability 0 < p <= 1"]),
        (["ab", "--seed", "-1"], ["seed: expected a whole number, 0 or more, got -1"]),
        (["ab", "--device", "gpu"], ["device: expected 'cpu' or 'cuda', got 'gpu'"]),
        ([], ["PROMPT"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_what_sample_cannot_use_is_refused(capsys, chars_run, tmp_path, arguments, parts, json_too):
    assert_refused(capsys, tmp_path, ["sample", chars_run, *arguments, *json_too], *parts)


def test_a_run_of_another_task_is_refused(capsys, run, tmp_path):
    assert_refused(
        capsys, tmp_path, ["sample", run, "3 1"], "expected a run of task chars, got copy; try decode"
    )
    assert_refused(capsys, tmp_path, ["sample", tmp_path / "none", "ab"], "none", "no config.json")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"abc", "expected the file that this run began with, got another one, or a damaged one"),
        (b"\xff\xfe", "damaged: expected characters in UTF-8"),
        (b"", "expected the file that this run began with"),
    ],
)
def test_a_vocabulary_that_is_damaged_is_refused(capsys, chars_run, tmp_path, content, part):
    (chars_run / "characters.txt").write_bytes(content)
    for name in (
        ["sample", chars_run, "ab"],
        ["evaluate", chars_run],
        ["train", "chars", "--out", chars_run, "--resume"],
    ):
        assert_refused(capsys, tmp_path, name, "characters.txt", part)


def test_a_vocabulary_that_has_gone_is_made_again_from_the_text(capsys, chars_run):
    out = written(capsys, chars_run, "ab", "--length", 9)
    (chars_run / "characters.txt").unlink()
    assert written(capsys, chars_run, "ab", "--length", 9) == out


# ---- what the other commands do with such a run


def test_training_on_a_text_says_how_to_write_it_on(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("ab cd\nef\n" * 30)
    assert call("train", "chars", "--set", "text=text.txt", *TINY_CHARS) == 0
    out, err = capsys.readouterr()
    assert "nats a token" in out and "exact" not in out + err
    assert out.splitlines()[-1].endswith(f" sample {os.path.join('runs', 'chars')} ab")
    assert len(written(capsys, "runs/chars", "ab", "--length", 7)) == 2 + 7 + 1
    assert set(contents(tmp_path / "runs" / "chars")) >= {"characters.txt", "best.npz", "result.json"}


@pytest.mark.parametrize("content", ["12 345\n", "  ", "!$\\"], ids=repr)
def test_a_text_without_words_has_a_command_to_try_too(capsys, tmp_path, content):
    (tmp_path / "text.txt").write_text(content * 99)
    text = f"text={tmp_path / 'text.txt'}"
    assert call("train", "chars", "--out", tmp_path / "run", "--set", text, *TINY_CHARS) == 0
    prompt = shlex.split(capsys.readouterr().out.splitlines()[-1])[-1]
    assert written(capsys, tmp_path / "run", prompt, "--length", 3).startswith(prompt)


def test_evaluate_tells_the_loss_and_the_perplexity(capsys, chars_run):
    assert call("evaluate", chars_run, "--json") == 0
    valid = the_object(capsys)["sets"]["valid"]
    assert valid == mt.RunFolder(chars_run).metrics()[-1]["valid"] and valid.keys() == {"loss", "n"}
    assert call("evaluate", chars_run) == 0
    out = capsys.readouterr().out
    assert f"loss {valid['loss']:.4f} nats a token   perplexity {np.exp(valid['loss']):.2f}" in out


@pytest.mark.parametrize(
    "arguments",
    [["decode", "RUN", "ab"], ["translate", "RUN"], ["translate", "RUN", "--beam", "1", "--json"]],
    ids=str,
)
def test_answers_of_a_task_that_has_none_are_refused(capsys, chars_run, tmp_path, arguments):
    arguments = [chars_run if word == "RUN" else word for word in arguments]
    assert_refused(capsys, tmp_path, arguments, "task chars has no answers; see minitransformer sample")


@pytest.mark.parametrize(
    "arguments",
    [["explain"], ["explain", "--input", "ab"], ["plot", "--input", "ab"], ["plot", "--attention", "cross"]],
    ids=str,
)
def test_pictures_of_an_encoder_decoder_are_refused(capsys, chars_run, tmp_path, arguments):
    if arguments[0] == "plot":
        pytest.importorskip("matplotlib")
    expected = "expected a run of an encoder-decoder, got one of family=decoder-only"
    assert_refused(capsys, tmp_path, [arguments[0], chars_run, *arguments[1:]], expected)


def test_plot_draws_the_training_alone(capsys, chars_run):
    pytest.importorskip("matplotlib")
    assert call("plot", chars_run, "--json") == 0
    assert the_object(capsys) == {"training": str(chars_run / "training.png")}
    assert (chars_run / "training.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not (chars_run / "attention.png").exists()


@pytest.mark.parametrize(
    ("content", "settings", "parts"),
    [
        (b"", [], ["text.txt: expected a text, got an empty file"]),
        (b"abc\xff" * 99, [], ["text.txt: not UTF-8, at byte 3"]),
        (b"ab" * 40, [], ["text: expected at least 81 characters, for block=8, got 80"]),
        (b"ab" * 99, ["max_len=7"], ["max_len: expected at least 8 for the sequences of this task, got 7"]),
        (b"ab" * 99, ["block=0"], ["block: expected at least 1, got 0"]),
        (
            b"ab" * 99,
            ["family=encoder-only"],
            ["family: expected decoder-only, for task chars, got 'encoder-only'"],
        ),
        (b"ab" * 99, ["solved_at=1"], ["solved_at: expected None: task chars has no exact match, got 1"]),
        (b"ab" * 99, ["text="], ["--set: expected KEY=VALUE"]),
        (None, [], ["text.txt", "No such file"]),
    ],
    ids=str,
)
def test_a_text_that_cannot_be_learned_is_refused(capsys, tmp_path, content, settings, parts):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    settings = [
        f"text={tmp_path / 'text.txt'}",
        *TINY_CHARS,
        *(["nothing"] if settings == ["text="] else settings),
    ]
    assert_refused(
        capsys, tmp_path, ["train", "chars", "--out", tmp_path / "run", "--set", *settings], *parts
    )


# ---- runs of one stack with answers


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
def test_a_task_with_answers_answers_in_each_family(capsys, tmp_path, monkeypatch, family):
    import io

    from command_line import TINY

    settings = [x for x in TINY if not x.startswith("d_ff")] + ["d_ff=10", f"family={family}"]
    run = tmp_path / "run"
    assert call("train", "sort", "--out", run, "--set", *settings) == 0
    assert "decode" in capsys.readouterr().out.splitlines()[-1]
    model, vocabulary = mt.load_model(run), mt.RunFolder(run).settings().task.vocabulary
    for beam, line in itertools.product(("1", "3"), ("3 1 4", "5 5")):
        expected = vocabulary.decode(mt.translate(model, [vocabulary.encode(line)], int(beam))[0])
        assert call("decode", run, line, "--beam", beam) == 0
        assert capsys.readouterr().out == f"{expected}\n"
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{line}\n\n{line}\n".encode())))
        assert main(["translate", str(run), "--beam", beam]) == 0
        assert capsys.readouterr().out == f"{expected}\n\n{expected}\n"
    assert_refused(
        capsys, tmp_path, ["decode", run, " ".join(["3"] * 17)], "17" if family[0] == "e" else "at most 14"
    )
    assert_refused(capsys, tmp_path, ["explain", run], f"got one of family={family}")
    assert_refused(
        capsys, tmp_path, ["sample", run, "3 1"], "expected a run of task chars, got sort; try decode"
    )
