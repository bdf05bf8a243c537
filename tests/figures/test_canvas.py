"""What all figures are drawn on."""

import pytest
from drawn_models import TASK, model_that_ends, size_of_png

pytest.importorskip("matplotlib")

from minitransformer import figures
from minitransformer.figures.canvas import new_figure


def test_a_dollar_is_no_formula(tmp_path):
    """Text of a user's own is drawn as it is written."""
    model = model_that_ends("3 1")
    vocabulary = TASK.vocabulary
    vocabulary.symbols = tuple("$^^" if s == "3" else s for s in vocabulary.symbols)
    vocabulary._id_of = {s: i for i, s in enumerate(vocabulary.symbols)}
    figure = figures.attention_figure(model, vocabulary, "$^^ $^^ 1", ["cross"])
    assert min(size_of_png(figures.save(figure, tmp_path / "attention.png"))) > 100


def labelled(symbol):
    """A figure that is labelled with a symbol."""
    figure = new_figure(2, 2)
    figure.subplots().set_xticks([0], [f"a{symbol}"])
    return figure


def test_a_symbol_that_the_usual_font_lacks_is_drawn_in_another(tmp_path, capsys, monkeypatch):
    """With a usual font that has few symbols: which others there are, differs from machine to machine."""
    from matplotlib import rcParams

    monkeypatch.setitem(rcParams, "font.family", ["DejaVu Sans Display"])  # it comes with matplotlib
    figure = labelled("ß→")
    figures.save(figure, tmp_path / "x.png")
    assert capsys.readouterr().err == ""
    (label,) = figure.axes[0].get_xticklabels()
    assert label.get_fontfamily()[0] == "DejaVu Sans Display" and len(label.get_fontfamily()) > 1


def test_a_symbol_that_no_font_has_is_said_in_one_line(tmp_path, capsys):
    """(Warnings are errors here.)"""
    figures.save(labelled("\U000f1234\U000f1235"), tmp_path / "x.png")
    path = tmp_path / "x.png"
    assert (
        capsys.readouterr().err == f"{path}: no font here has \U000f1234 \U000f1235; boxes stand for them\n"
    )
    assert min(size_of_png(path)) > 100
