"""The solutions to the exercises of chapter 9 solve them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from support import randomise

import minitransformer as mt

PATH = Path(__file__).parents[2] / "docs" / "textbook" / "solutions" / "09_architecture.py"
spec = importlib.util.spec_from_file_location("solutions_09", PATH)
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)

CONFIG = mt.TransformerConfig(
    src_vocab_size=11, tgt_vocab_size=11, n_layers=3, d_model=6, n_heads=2, d_ff=7, dropout=0.2, max_len=8
)


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_formula_counts_the_parameters(heads):
    config = mt.TransformerConfig(23, 23, n_layers=4, d_model=12, n_heads=heads, d_ff=20)
    assert solutions.n_parameters(12, 20, 4, 23) == mt.Transformer(config).n_parameters()


@pytest.mark.parametrize("method", ["complex", "central"])
def test_one_layer_for_all_has_the_right_gradient(method):
    rng = np.random.default_rng(0)
    encoder = randomise(solutions.one_layer_for_all(CONFIG, 0, "float64"), rng)
    assert encoder.n_parameters() == mt.models.EncoderLayer(CONFIG).n_parameters()
    assert len(encoder.layers) == CONFIG.n_layers
    report = mt.gradcheck(encoder, rng.normal(size=(2, 5, 6)), method=method, dropout_seed=1)
    assert report.ok, report
