"""Names and weights of others, said in this package's."""

from __future__ import annotations

import numpy as np
import pytest

import minitransformer as mt
from minitransformer.published.layout import Layout, layer_norm, linear, numbers, supported

LAYOUT = Layout(
    config=lambda settings: None,  # type: ignore[arg-type, return-value]
    prefix="their.",
    names={
        **linear("block.*.fused", "layers.*.{0}_Q layers.*.{0}_K"),
        **linear("block.*.plain", "layers.*.{0}_1"),
        **layer_norm("norm", "norm"),
        "head.weight": "norm.gamma",
        "unused": "",
    },
    transposed=False,
)
X = np.arange(12.0).reshape(2, 6)


def test_a_fused_weight_is_split_by_columns_and_layers_keep_their_numbers():
    state = LAYOUT.state({"their.block.10.fused.weight": X, "block.0.fused.bias": X[0], "unused": X})
    assert state.keys() == {"layers.10.W_Q", "layers.10.W_K", "layers.0.b_Q", "layers.0.b_K"}
    np.testing.assert_array_equal(state["layers.10.W_Q"], X[:, :3])
    np.testing.assert_array_equal(state["layers.10.W_K"], X[:, 3:])
    np.testing.assert_array_equal(state["layers.0.b_K"], X[0, 3:])


def test_weights_are_transposed_if_they_are_the_other_way_round_and_vectors_are_not():
    state = LAYOUT._replace(transposed=True).state({"block.1.plain.weight": X, "norm.weight": X})
    np.testing.assert_array_equal(state["layers.1.W_1"], X.T)
    np.testing.assert_array_equal(state["norm.gamma"], X)


def test_older_names_of_a_norm():
    assert LAYOUT.state({"norm.gamma": X, "norm.beta": X}).keys() == {"norm.gamma", "norm.beta"}


@pytest.mark.parametrize(
    "name", ["other", "block.x.plain.weight", "block.1.plain", "their.their.norm.weight", "unused.1"]
)
def test_a_name_that_the_layout_lacks_is_refused(name):
    with pytest.raises(mt.CheckpointError, match="expected the weights of a supported model, got"):
        LAYOUT.state({name: X})


def test_a_tied_weight_may_be_there_twice_but_not_differ():
    assert LAYOUT.state({"norm.weight": X, "head.weight": X.copy()}).keys() == {"norm.gamma"}
    for twin in (X + 1, X[:1]):
        with pytest.raises(mt.CheckpointError, match=r"'head.weight': expected the numbers of its tied"):
            LAYOUT.state({"norm.weight": X, "head.weight": twin})


@pytest.mark.parametrize("x", [np.float32(1.0), np.ones(5), np.ones((1, 2, 7)), np.ones((2, 0))])
def test_shapes_are_not_checked_here_but_none_is_an_error(x):
    assert LAYOUT.state({"block.1.fused.weight": np.asarray(x)}).keys() == {"layers.1.W_Q", "layers.1.W_K"}


def test_settings():
    assert (
        supported({}, "act", "gelu", "relu") == "gelu"
        and supported({"act": "relu"}, "act", "gelu", "relu") == "relu"
    )
    for value in ("silu", None, ["gelu"], {}):
        with pytest.raises(
            mt.ConfigError, match=r"act: expected 'gelu', 'relu' \(others are not supported\), got"
        ):
            supported({"act": value}, "act", "gelu", "relu")
    assert numbers({"n": 3, "eps": 0.5, "other": "x"}, {"n": "n_layers", "eps": "eps"}) == {
        "n_layers": 3,
        "eps": 0.5,
    }
    for settings in ({}, {"n": None}, {"n": "3"}, {"n": True}, {"n": [3]}):
        with pytest.raises(mt.ConfigError, match="n: expected a number, got"):
            numbers(settings, {"n": "n_layers"})
