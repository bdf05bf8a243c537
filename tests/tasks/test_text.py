"""Task text: from two files to a run folder that translates without them."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer import cli
from minitransformer.backend import generator
from minitransformer.commands.chosen_settings import settings_of
from minitransformer.commands.evaluate import summary
from minitransformer.runs.progress import Progress
from minitransformer.tasks import EOS, Text, Translate
from minitransformer.tasks.subwords import UNKNOWN

pytest.importorskip("sentencepiece")
sacrebleu = pytest.importorskip("sacrebleu")

TINY = "n_layers=1 d_model=8 d_ff=12 n_heads=2 max_len=99 vocab_size=70 batch_tokens=200 accumulate=1 processes=1"


def sentences(n, seed):
    """Pairs of the built-in task, as text."""
    task = Translate(epoch_size=n)
    return [tuple(map(task.vocabulary.decode, pair)) for pair in task.training_pairs(generator(seed))]


def write(folder, **sets):
    """Files NAME.en and NAME.es of each set of pairs; the settings that name them."""
    settings = {}
    for name, pairs in sets.items():
        for side, ending, i in (("src", "en", 0), ("tgt", "es", 1)):
            path = folder / f"{name}.{ending}"
            path.write_text("".join(f"{pair[i]}\n" for pair in pairs), encoding="utf-8")
            settings[f"{name}_{side}"] = str(path)
    return settings


@pytest.fixture
def files(tmp_path):
    return write(tmp_path, train=sentences(60, 1), valid=sentences(7, 2), test=sentences(5, 3))


def assignments(settings):
    return [f"{name}={value}" for name, value in settings.items()]


# --- what it reads --------------------------------------------------------------------------------------


def test_an_epoch_has_every_pair_once_in_an_order_of_its_own(files):
    task = Text(**files, vocab_size=70)
    pairs = [task.training_pairs(generator(seed)) for seed in (1, 1, 2)]
    assert pairs[0] == pairs[1] != pairs[2]
    decode = task.vocabulary.decode
    for drawn in pairs:
        assert sorted((decode(s), decode(t)) for s, t in drawn) == sorted(sentences(60, 1))


def test_held_out_sets_are_the_files_in_their_order(files):
    task = Text(**files, vocab_size=70)
    decode = task.vocabulary.decode
    sets = {
        name: [(decode(s), decode(t)) for s, t in pairs]
        for name, pairs in task.evaluation_sets(generator(0)).items()
    }
    assert sets == {"valid": sentences(7, 2), "test": sentences(5, 3)}
    only_valid = {name: path for name, path in files.items() if not name.startswith("test")}
    assert list(Text(**only_valid, vocab_size=70).evaluation_sets(generator(0))) == ["valid"]


def spoil(path, number, line):
    """Replace a line of a file, counted from 1; None cuts the file off before it."""
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    lines[number - 1 :] = [] if line is None else [line, *lines[number:]]
    with open(path, "wb") as file:
        file.write(b"".join(line + b"\n" for line in lines))


FAULTS = {
    "empty": (b"  ", "7: empty"),
    "not UTF-8": (b"la casa\xe9", r"7: not UTF-8"),
    "too long": (b"la casa cae y " * 30, r"7: \d+ subwords, more than max_length=90"),
    "missing": (None, "7: missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_line_is_refused_or_left_out_as_the_user_chose(files, fault):
    line, told = FAULTS[fault]
    spoil(files["train_tgt"], 7, line)
    settings = {**files, "vocab_size": 70, "max_length": 90}
    with pytest.raises(mt.InputError, match=rf"train\.es:{told}.*bad_lines=skip"):
        Text(**settings).training_pairs(generator(0))
    task = Text(**settings, bad_lines="skip")
    n_left_out = 54 if fault == "missing" else 1
    assert len(task.training_pairs(generator(0))) == 60 - n_left_out
    (remark,) = task.remarks()
    assert f"train.es:{told.split(':')[0]}:" in remark and remark.startswith(f"left out, {n_left_out} line")
    assert Text(**{**settings, "train_tgt": files["train_src"]}).remarks() == []


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["valid", "test"])
def test_a_held_out_line_is_never_left_out(files, name, fault):
    """Else a figure would be that of fewer, and shorter, sentences."""
    line, told = FAULTS[fault]
    spoil(files[f"{name}_tgt"], 5 if name == "test" else 7, line)
    task = Text(**files, vocab_size=70, max_length=90, bad_lines="skip")
    with pytest.raises(mt.InputError, match=rf"{name}\.es:{told.replace('7:', '[57]:')}"):
        task.evaluation_sets(generator(0))


def test_nothing_but_bad_lines_is_refused(files):
    for number in range(1, 61):
        spoil(files["train_src"], number, b"")
    with pytest.raises(mt.InputError, match="only bad ones"):
        Text(**files, vocab_size=70, bad_lines="skip").training_pairs(generator(0))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train_src": ""}, "train_src.*path of a file"),
        ({"valid_tgt": ""}, "valid_tgt.*path of a file"),
        ({"test_tgt": ""}, "test_src, test_tgt.*both"),
        ({"vocab_size": 0}, "vocab_size.*0"),
        ({"vocab_size": 5000}, "vocab_size.*5000"),
        ({"max_length": -1}, "max_length.*-1"),
        ({"bad_lines": "skipp"}, "'skipp'.*'skip'"),
        ({"bleu_tokenize": "13b"}, "'13b'.*'13a'"),
        ({"train_srcs": "x"}, "'train_srcs'.*'train_src'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_in_a_line(files, tmp_path, capsys, changes, what):
    command = ["train", "text", "--out", str(tmp_path / "run"), "--set", *TINY.split()]
    assert cli.main([*command, *assignments({**files, **changes})]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(mt.ConfigError, match=what):
        raise mt.ConfigError(error)
    assert not (tmp_path / "run").exists()


def test_a_line_too_long_for_the_model_is_refused_before_the_run_begins(files, tmp_path, capsys):
    command = ["train", "text", "--out", str(tmp_path / "run"), "--set", *TINY.split(), *assignments(files)]
    assert cli.main([*command, "max_len=9"]) == 2
    assert "max_len: expected at least" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- BLEU -----------------------------------------------------------------------------------------------


def test_bleu_is_sacrebleus_of_the_texts(files):
    task = Text(**files, vocab_size=70)
    references = [target for _, target in sentences(7, 2)]
    right = [[*task.vocabulary.encode(text), EOS] for text in references]
    assert task.figures("valid", right) == {"bleu": pytest.approx(100)}
    halves = [ids[: len(ids) // 2] for ids in right[:3]] + right[3:]
    texts = [task.vocabulary.decode(ids) for ids in halves]
    bleu = sacrebleu.corpus_bleu(texts, [references]).score
    assert 20 < bleu < 95
    assert task.figures("valid", halves) == {"bleu": pytest.approx(bleu, rel=1e-12)}


def test_an_unknown_character_in_a_reference_is_not_matched_by_the_unknown_symbol(files):
    spoil(files["valid_tgt"], 1, "Ω Ω Ω Ω Ω".encode())
    task = Text(**files, vocab_size=70)
    answers = [list(target) for _, target in task.evaluation_sets(generator(0))["valid"]]
    assert UNKNOWN in answers[0]
    assert task.figures("valid", answers)["bleu"] < 99


@pytest.mark.parametrize(("tokenize", "equal"), [("13a", True), ("none", False)])
def test_bleu_splits_words_as_it_was_told(files, tokenize, equal):
    """13a separates the full stop, none leaves it with the word."""
    for number in range(1, 8):
        spoil(files["valid_tgt"], number, b"la casa roja no cae .")
    task = Text(**files, vocab_size=71, bleu_tokenize=tokenize, max_length=99)
    task.__dict__["vocabulary"] = mt.tasks.Vocabulary(["la", "casa", "roja", "no", "cae", "cae.", "."])
    answers = [task.vocabulary.encode("la casa roja no cae.")] * 7
    assert (task.figures("valid", answers)["bleu"] > 99) == equal


# --- a run ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of a few steps whose files are gone; and its result."""
    data = tmp_path_factory.mktemp("data")
    files = write(data, train=sentences(60, 1), valid=sentences(7, 2), test=sentences(5, 3))
    path = tmp_path_factory.mktemp("text") / "run"
    settings = f"{TINY} steps=30 warmup_steps=4 evaluate_every=6 keep_checkpoints=4 log_every=5".split()
    command = ["train", "text", "--json", "--out", str(path), "--set", *settings, *assignments(files)]
    assert cli.main(command) == 0
    shutil.rmtree(data)
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, somewhere else."""
    return shutil.copytree(trained, tmp_path / "elsewhere" / "run")


def test_a_run_says_how_good_it_is(run):
    result = json.loads((run / "result.json").read_text())
    valid = [record["valid"] for record in mt.RunFolder(run).metrics() if "valid" in record]
    assert len(valid) == 5
    for figures in [*valid, result, result["sets"]["test"]]:
        assert 0 <= figures["bleu"] <= 100 and 0 < figures["loss"] < 10
    assert valid[-1]["loss"] < valid[0]["loss"]
    assert result["best"]["value"] == max(figures["bleu"] for figures in valid)


def test_a_run_translates_without_the_files_it_learned_from(run, capsys, monkeypatch):
    vocabulary, model = mt.RunFolder(run).settings().task.vocabulary, mt.load_model(run)
    lines = ["the house falls", "", "a dog", "the small red house does not fall Ω"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
    assert cli.main(["translate", str(run)]) == 0
    out, err = capsys.readouterr()
    ids = mt.translate(model, [vocabulary.encode(line) for line in lines if line], beam=4)
    expected = iter(map(vocabulary.decode, ids))
    assert out == "".join(f"{next(expected) if line else ''}\n" for line in lines) and err == ""
    assert cli.main(["decode", str(run), lines[0]]) == 0
    assert (
        capsys.readouterr().out
        == vocabulary.decode(mt.translate(model, [vocabulary.encode(lines[0])])[0]) + "\n"
    )


def test_what_needs_the_files_says_so(run, capsys):
    for command in (["evaluate", str(run)], ["train", "text", "--resume", "--out", str(run)]):
        assert cli.main(command) == 2
        assert "cannot be read" in capsys.readouterr().err


def test_a_run_without_its_subwords_learns_them_again(files, tmp_path):
    settings = mt.RunSettings.of(Text(**files, vocab_size=70), {"d_model": 8, "n_heads": 2}, 1)
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(settings)
    before = (tmp_path / "run" / "subwords.model").read_bytes()
    (tmp_path / "run" / "subwords.model").unlink()  # killed between the two files
    assert folder.settings().task.vocabulary.proto == before


def test_no_bit_of_the_subwords_flips_unnoticed(run):
    """Of a thousand flips some two hundred change the ids, and SentencePiece takes them for a model."""
    path = run / "subwords.model"
    whole = path.read_bytes()
    for i in range(0, len(whole), 41):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(mt.CheckpointError, match="damaged"):
            mt.RunFolder(run).settings()
    path.write_bytes(whole)
    mt.RunFolder(run).settings()


def test_a_resumed_run_writes_the_subwords_that_a_kill_has_left_out(files, tmp_path):
    """tests/adversarial/kill.py found that they stayed away, and the run could not be used without its text."""
    settings = {
        "d_model": 8,
        "n_heads": 2,
        "n_layers": 1,
        "steps": 1,
        "warmup_steps": 1,
        "max_len": 100,
        "processes": 1,
    }
    folder = mt.RunFolder(tmp_path / "run")
    folder.create(mt.RunSettings.of(Text(**files, vocab_size=70), settings, 1))
    path = tmp_path / "run" / "subwords.model"
    before = path.read_bytes()
    path.unlink()
    trainer = mt.Trainer(folder.settings(), folder)
    trainer.resume()
    trainer.run(Progress(1, quiet=True))
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"other"])
def test_damaged_subwords_are_told(run, capsys, content):
    (run / "subwords.model").write_bytes(content)
    assert cli.main(["decode", str(run), "the house"]) == 2
    error = capsys.readouterr().err
    assert "damaged" in error and error.count("\n") == 1


def test_other_subwords_are_told(run, capsys):
    (run / "subwords.model").write_bytes(mt.tasks.Subwords.learn(["ab ba"] * 9, 9).proto)
    assert cli.main(["decode", str(run), "the house"]) == 2
    assert "subwords.model: damaged" in capsys.readouterr().err


def test_paths_do_not_depend_on_where_the_run_was_begun(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = {name: str(path).removeprefix(f"{tmp_path}/") for name, path in files.items()}
    assert relative["train_src"] == "train.en"
    assert Text(**relative, vocab_size=70) == Text(**files, vocab_size=70)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Text(**{**files, "train_src": "~/train.en"}) == Text(**files)
    with pytest.raises(mt.ConfigError, match="train_src: ~nobody-here/x: "):
        Text(**{**files, "train_src": "~nobody-here/x"})


def test_settings_that_are_text_are_taken_as_they_are(files, tmp_path):
    """bleu_tokenize=none is no None, and a file may be called 1, or have a comma in its name."""
    shutil.copy(files["valid_src"], tmp_path / "a,b")
    settings = assignments({**files, "valid_src": tmp_path / "a,b", "bleu_tokenize": "none"})
    arguments = cli.parser().parse_args(
        ["train", "text", "--set", *settings, "vocab_size=70", "clip_norm=none"]
    )
    chosen = settings_of(arguments)
    assert (chosen.task.bleu_tokenize, chosen.task.valid_src) == ("none", str(tmp_path / "a,b"))
    assert chosen.training.clip_norm is None


def test_a_run_goes_on_to_other_files_with_the_subwords_of_the_first(files, run, tmp_path, capsys):
    for side in ("src", "tgt"):
        (tmp_path / side).write_text("the casa ξ\n" * 8, encoding="utf-8")
        files[f"train_{side}"] = str(tmp_path / side)
    new = [*assignments(files), "steps=2", "warmup_steps=1"]
    arguments = ["train", "text", "--json", "--init", str(run), "--out", str(tmp_path / "new"), "--set", *new]
    assert cli.main(arguments) == 0
    capsys.readouterr()
    assert (tmp_path / "new/subwords.model").read_bytes() == (run / "subwords.model").read_bytes()
    assert mt.RunFolder(tmp_path / "new").settings().task.max_length == 100
    assert cli.main([*arguments, "vocab_size=60"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "a task with the vocabulary of that run; leave out" in err


def test_a_missing_library_is_told_before_the_training(files, tmp_path, capsys, monkeypatch):
    for name in ("sacrebleu", "sentencepiece"):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, name, None)
            patch.setitem(__import__("sys").modules, f"{name}.metrics", None)
            command = ["train", "text", "--out", str(tmp_path / name), "--set", *TINY.split()]
            assert cli.main([*command, *assignments(files)]) == 2
        assert "minitransformer[text]" in capsys.readouterr().err
        assert not (tmp_path / name).exists()


def test_a_run_that_diverged_still_says_how_good_it_is():
    figures = {"bleu": 0.0, "loss": 1e6, "n": 3, "exact_match_by_length": {"4": 0.0}}
    assert summary({"test": figures}).startswith("test     BLEU 0.00   perplexity 1014232")


def test_subwords_label_the_attention(run):
    pytest.importorskip("matplotlib")
    from minitransformer import figures

    vocabulary = mt.RunFolder(run).settings().task.vocabulary
    figure = figures.attention_figure(mt.load_model(run), vocabulary, "the house falls", ["cross"])
    labels = [
        label.get_text() for label in figure.axes[-1].get_xticklabels()
    ]  # of each head, below the last layer
    read = [*(vocabulary.symbols[i] for i in vocabulary.encode("the house falls")), "</s>"]
    assert labels == read * mt.load_model(run).config.n_heads
    assert (
        figures.training_figure("text", mt.RunFolder(run).metrics()).axes[3].get_ylabel().startswith("BLEU")
    )


def test_a_run_that_was_stopped_continues_bit_for_bit(files, tmp_path):
    text = Text(**files, vocab_size=70)
    settings = mt.RunSettings.of(
        text,
        {"n_layers": 1, "d_model": 8, "d_ff": 12, "n_heads": 2, "batch_tokens": 200, "accumulate": 2}
        | {"steps": 12, "warmup_steps": 3, "evaluate_every": 4, "processes": 1, "max_len": 60},
    )
    trainers = [mt.Trainer(settings, mt.RunFolder(tmp_path / name)) for name in ("whole", "cut")]
    trainers[0].run()
    steps = iter(range(100))
    with pytest.raises(mt.runs.Interrupted):
        trainers[1].run(stop_requested=lambda: next(steps) == 6)
    folder = mt.RunFolder(tmp_path / "cut")
    again = mt.Trainer(folder.settings(), folder)
    again.resume()
    assert 0 < again.step < 12
    again.run()
    np.testing.assert_array_equal(again.model.flatten().data, trainers[0].model.flatten().data)


def test_it_learns_to_translate(tmp_path):
    """A small English to Spanish, from its subwords: from nothing to most words in their places."""
    files = write(tmp_path, train=sentences(3000, 1), valid=sentences(100, 2))
    settings = mt.RunSettings.of(
        Text(**files, vocab_size=200),
        {"n_layers": 2, "d_model": 48, "d_ff": 96, "n_heads": 2, "dropout": 0.0, "norm": "pre", "max_len": 64}
        | {"steps": 200, "batch_tokens": 512, "accumulate": 2, "warmup_steps": 40, "learning_rate": 1e-2}
        | {"evaluate_every": 100},
    )
    trainer = mt.Trainer(settings)
    result = trainer.run()
    assert result["bleu"] > 60
    assert result["sets"].keys() == {"valid"}  # there was no test set


def test_what_is_wrong_with_the_subwords_is_said_with_their_path_and_what_to_do(files, tmp_path):
    folder, path = mt.RunFolder(tmp_path / "run"), tmp_path / "run" / "subwords.model"
    folder.create(mt.RunSettings.of(Text(**files, vocab_size=70), {"d_model": 8, "n_heads": 2}, 1))
    path.write_bytes(b"xx")
    with pytest.raises(
        mt.CheckpointError, match=r"run/subwords\.model: the subwords are damaged.*; restore it"
    ):
        folder.settings()
    path.unlink()
    Path(files["train_src"]).unlink()
    with pytest.raises(
        mt.CheckpointError, match=r"run/subwords\.model is missing, and cannot be made again: .*cannot"
    ):
        folder.settings()
    path.mkdir()
    with pytest.raises(
        mt.CheckpointError, match=r"run/subwords\.model: cannot be read \(not a file, but a folder"
    ):
        folder.settings()


def test_a_line_of_max_length_is_not_too_long(files):
    pairs = Text(**files, vocab_size=70).training_pairs(generator(0))
    longest = max(len(side) for pair in pairs for side in pair)
    assert len(Text(**files, vocab_size=70, max_length=longest).training_pairs(generator(0))) == len(pairs)
    with pytest.raises(mt.InputError, match=f"{longest} subwords, more than max_length={longest - 1}"):
        Text(**files, vocab_size=70, max_length=longest - 1).training_pairs(generator(0))


def test_the_best_weights_are_those_of_the_best_bleu(files, monkeypatch):
    told = iter([10.0, 30.0, 20.0, 0.0])
    monkeypatch.setattr(Text, "figures", lambda *given: {"bleu": next(told)})
    settings = dict(pair.split("=") for pair in TINY.split() if not pair.startswith("vocab_size"))
    settings = {name: int(x) for name, x in settings.items()}
    more = {"steps": 3, "warmup_steps": 1, "evaluate_every": 1}
    trainer = mt.Trainer(mt.RunSettings.of(Text(**files, vocab_size=70), settings | more, 1))
    trainer.run()
    assert (trainer.state.best["step"], trainer.state.best["value"]) == (2, 30.0)
