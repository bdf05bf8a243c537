"""What all figures are drawn on."""

import pytest
from drawn_models import TASK, model_that_ends, size_of_png

pytest.importorskip("matplotlib")

from minitransformer import figures


def test_a_dollar_is_no_formula(tmp_path):
    """Text of a user's own is drawn as it is written."""
    model = model_that_ends("3 1")
    vocabulary = TASK.vocabulary
    vocabulary.symbols = tuple("$^^" if s == "3" else s for s in vocabulary.symbols)
    vocabulary._id_of = {s: i for i, s in enumerate(vocabulary.symbols)}
    figure = figures.attention_figure(model, vocabulary, "$^^ $^^ 1", ["cross"])
    assert min(size_of_png(figures.save(figure, tmp_path / "attention.png"))) > 100
