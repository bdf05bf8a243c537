"""Attention weights, and their picture: drawn from the numbers it claims to show."""

import math

import numpy as np
import pytest
from drawn_models import TASK, model_that_ends, random_model, size_of_png

import minitransformer as mt

pytest.importorskip("matplotlib")

from minitransformer import figures
from minitransformer.figures.attention import KINDS, attention_weights
from minitransformer.tasks import EOS


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_attention_weights_are_distributions_that_keep_the_masks(norm):
    model = random_model(1, norm=norm)
    weights = attention_weights(model, [3, 4, 5, 9, 3], [6, 7, 8])
    assert tuple(weights) == KINDS == ("encoder", "decoder", "cross")
    assert [w.shape for w in weights.values()] == [(2, 3, 6, 6), (2, 3, 4, 4), (2, 3, 4, 6)]
    for w in weights.values():
        assert (w >= 0).all()
        np.testing.assert_allclose(w.sum(-1), 1, rtol=1e-12)
        assert np.ptp(w, axis=0).max() > 1e-3 and np.ptp(w, axis=1).max() > 1e-3  # layers, heads differ
    future = np.triu(np.ones((4, 4), bool), 1)
    assert (weights["decoder"][..., future] == 0).all()
    assert (weights["decoder"][..., ~future] > 0).all()


def test_the_first_layers_weights_are_equation_1():
    """softmax(Q Kᵀ / sqrt(d_k)) of the first encoder layer, by hand from the model's parameters."""
    model = random_model(2)
    source = [3, 8, 5, 9]
    p = {name: parameter.data for name, parameter in model.parameters().items()}
    ids = [*source, EOS]
    x = p["src_embedding.embedding.E"][ids] * math.sqrt(12)
    for position in range(len(ids)):
        for i in range(6):
            angle = position / 10000 ** (2 * i / 12)
            x[position, 2 * i] += math.sin(angle)
            x[position, 2 * i + 1] += math.cos(angle)
    got = attention_weights(model, source, [4])["encoder"][0]
    for head in range(3):
        columns = slice(5 * head, 5 * head + 5)
        Q = x @ p["encoder.layers.0.self_attention.W_Q"][:, columns]
        K = x @ p["encoder.layers.0.self_attention.W_K"][:, columns]
        expected = np.exp(Q @ K.T / math.sqrt(5))
        np.testing.assert_allclose(got[head], expected / expected.sum(-1, keepdims=True), rtol=1e-10)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_attention_figure_has_a_panel_for_every_layer_and_head(tmp_path, norm):
    model = model_that_ends("3 1 4", norm=norm)
    figure = figures.attention_figure(model, TASK.vocabulary, "3 1 4")
    assert min(size_of_png(figures.save(figure, tmp_path / "attention.png"))) > 100
    source = TASK.vocabulary.encode("3 1 4")
    target = mt.translate(model, [source])[0]
    weights = attention_weights(model, source, target)
    rows = iter(figure.axes)
    assert len(figure.axes) == 3 * 2
    read, written = ["3", "1", "4", "</s>"], ["<s>", *TASK.vocabulary.decode(target).split()]
    for kind in KINDS:
        for layer in range(2):
            row = next(rows)
            assert_heads(row, weights[kind][layer])
            assert row.images[0].get_clim() == (0, 1) and row.get_ylabel() == f"layer {layer + 1}"
            assert [label.get_text() for label in row.get_yticklabels()] == (
                read if kind == KINDS[0] else written
            )
            keys = [label.get_text() for label in row.get_xticklabels()]
            assert keys == [[], 3 * (written if kind == KINDS[1] else read)][layer]  # below the last row
            places = row.get_xticks().tolist()
            T_k = weights[kind].shape[-1]
            assert places == [[], [h * (T_k + 1) + k for h in range(3) for k in range(T_k)]][layer]


def assert_heads(row, weights):
    """The row's image has these weights (h, T_q, T_k), the heads side by side with an empty column between them."""
    picture = row.images[0].get_array().filled(np.nan)
    h, T_q, T_k = weights.shape
    assert picture.shape == (T_q, h * (T_k + 1) - 1)
    for head in range(h):
        start = head * (T_k + 1)
        np.testing.assert_array_equal(picture[:, start : start + T_k], weights[head])
        assert np.isnan(picture[:, start + T_k : start + T_k + 1]).all()


def test_the_attention_figure_may_show_some_kinds_layers_and_heads_only():
    model = model_that_ends("3 1 4")
    source = TASK.vocabulary.encode("3 1 4")
    weights = attention_weights(model, source, mt.translate(model, [source])[0])["cross"]
    figure = figures.attention_figure(model, TASK.vocabulary, "3 1 4", ["cross"])
    for row, expected in zip(figure.axes, weights, strict=True):
        assert_heads(row, expected)
    figure = figures.attention_figure(model, TASK.vocabulary, "3 1 4", ["cross"], layers=[2], heads=[3, 1])
    (row,) = figure.axes
    assert_heads(row, weights[1, [0, 2]])
    assert row.get_ylabel() == "layer 2"
    assert [text.get_text() for text in row.texts] == ["cross-attention", "head 1", "head 3"]


@pytest.mark.parametrize(
    ("chosen", "what"),
    [
        ({"layers": [3]}, "layers, 1 … 2, got 3"),
        ({"heads": [0]}, "heads, 1 … 3, got 0"),
        ({"heads": []}, "got none"),
        ({"layers": 1}, "got 1"),
    ],
)
def test_a_layer_or_a_head_that_is_not_there_is_refused(chosen, what):
    with pytest.raises(mt.InputError, match=what):
        figures.attention_figure(model_that_ends("3 1 4"), TASK.vocabulary, "3 1 4", **chosen)


@pytest.mark.parametrize("kinds", [["foo"], [], ["encoder", 3]])
def test_a_kind_that_is_none_is_refused(kinds):
    with pytest.raises(mt.ConfigError, match="kind"):
        figures.attention_figure(random_model(1), TASK.vocabulary, "3 1 4", kinds)


def test_many_panels_have_few_things_to_draw():
    """What takes the time is axes and labels: one axes for a row, and keys below the last row of a kind alone."""
    model = random_model(0, n_layers=6, n_heads=4, d_model=8)
    figure = figures.attention_figure(model, TASK.vocabulary, "3 1 4")
    labels = [label for row in figure.axes for label in (*row.get_xticklabels(), *row.get_yticklabels())]
    n_written = len(figure.axes[6].get_yticklabels())
    assert len(figure.axes) == 18
    assert len(labels) == 4 * (2 * 4 + n_written) + 6 * (4 + 2 * n_written)


def test_the_attention_figure_of_an_input_that_does_not_fit_is_refused():
    for text in ("3 99", "", " ".join("1" * 13)):
        with pytest.raises(mt.InputError):
            figures.attention_figure(random_model(4), TASK.vocabulary, text)


def test_an_answer_of_the_greatest_length_can_be_drawn(tmp_path):
    """A model that never ends writes max_len tokens; with BOS before them they are one more than it reads."""
    for seed in range(40):
        model = random_model(seed)
        if len(mt.translate(model, [[3, 4]])[0]) == 13:
            break
    else:
        pytest.fail("no such model")
    figure = figures.attention_figure(model, TASK.vocabulary, "0 1")
    assert min(size_of_png(figures.save(figure, tmp_path / "attention.png"))) > 100


def test_drawing_leaves_the_model_alone():
    model = model_that_ends("3 1")
    before = model.flatten().data.copy(), model.flatten().grad.copy()
    figures.attention_figure(model, TASK.vocabulary, "3 1")
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
