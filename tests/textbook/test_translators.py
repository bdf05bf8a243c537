"""The trained models that the book shows load, and are as good as their README says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.runs.evaluation import held_out

DOCS = Path(__file__).parents[2] / "docs"
WEIGHTS = DOCS / "textbook" / "weights"


@pytest.fixture
def translator(monkeypatch):
    for package in ("matplotlib", "IPython"):
        pytest.importorskip(package, reason=f"book.py needs {package}: pip install '.[docs]'")
    monkeypatch.syspath_prepend(str(DOCS))
    import book

    yield book.translator
    del sys.modules["book"]


@pytest.mark.parametrize("seed", range(3))
def test_a_translator_translates_all_held_out_sentences(translator, seed):
    task = mt.tasks.Translate()
    model = translator(seed)
    assert model.n_parameters() == 40_000
    pairs = held_out(task)["test"]
    assert len(pairs) == 1000
    assert mt.evaluate(model, pairs)["exact_match"] == 1
    source = task.vocabulary.encode("the small red house does not fall")
    (answer,) = mt.inference.translate(model, [source])
    assert task.vocabulary.decode(answer) == "la casa roja pequeña no cae"


def test_the_weights_are_small_and_differ_from_seed_to_seed():
    files = sorted(WEIGHTS.glob("translator-*.npz"))
    assert [file.name for file in files] == [f"translator-{seed}.npz" for seed in range(3)]
    assert sum(file.stat().st_size for file in WEIGHTS.glob("*.npz")) < 500_000
    rows = [np.load(file)["src_embedding.embedding.E"] for file in files]
    assert rows[0].dtype == "float16"
    assert not (rows[0] == rows[1]).all() and not (rows[1] == rows[2]).all()


def test_the_script_that_made_them_says_what_the_book_loads(translator):
    source = (WEIGHTS / "train.py").read_text(encoding="utf-8")
    settings = source[source.index("{") : source.index("}") + 1].replace(",\n}", "\n}")
    config = mt.RunSettings.of(mt.tasks.Translate(), json.loads(settings)).model
    assert translator(0).config == config
