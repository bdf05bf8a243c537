"""What is recorded: the numbers of the library's own passes, for the paper's order and for pre-norm."""

import math
import re

import numpy as np
import pytest
from drawn_models import random_model

import minitransformer as mt
from minitransformer.figures.recording import layers_of, record

SOURCE, TARGET_IN, TARGET_OUT = [3, 8, 5, 9, 3, 2], [1, 6, 7, 8], [6, 7, 8, 2]
MODELS = pytest.mark.parametrize(
    "changes",
    [
        {"norm": "post"},
        {"norm": "pre"},
        {"norm": "pre", "norm_layer": "rms", "positions": "learned"},
        {"norm": "pre", "positions": "rotary", "count_source_from": "both", "d_k": 4},
    ],
    ids=["post", "pre", "pre, RMSNorm, learned positions", "rotary"],
)


def recorded(changes):
    model = random_model(3, **changes)
    return model, record(model, SOURCE, TARGET_IN, TARGET_OUT)


def assert_near(got, expected):
    """The largest difference is rounding, relative to the largest entry."""
    assert got.shape == expected.shape and abs(expected).max() > 0
    assert abs(got - expected).max() <= 1e-12 * abs(expected).max()


@MODELS
def test_the_gradients_are_those_of_an_ordinary_backward(changes):
    model, recording = recorded(changes)
    loss_fn = mt.LabelSmoothedCrossEntropy(0.0)
    logits, cache = model.forward([SOURCE], [TARGET_IN])
    loss, loss_cache = loss_fn.forward(logits, [TARGET_OUT])
    model.backward(loss_fn.backward(loss_cache), cache)
    assert recording.loss == pytest.approx(float(loss), rel=1e-12)
    expected = model.parameters()
    got = recording.model.parameters()
    assert list(got) == list(expected)
    for name, parameter in expected.items():
        assert_near(got[name].grad, parameter.grad)


@MODELS
def test_every_layer_is_recorded_once_both_ways(changes):
    _, recording = recorded(changes)
    assert list(recording.calls) == [path for path, _ in layers_of(recording.model)]
    rotary = ".attention" * (changes.get("positions") == "rotary")
    assert f"decoder.layers.1.cross_attention.attention{rotary}.dropout" in recording.calls
    for path, calls in recording.calls.items():
        of_a_layer = changes["norm"] == "pre" and re.fullmatch(
            r"(encoder|decoder)\.layers\.\d\.dropout", path
        )
        assert len(calls) == ({"encoder": 2, "decoder": 3}[of_a_layer[1]] if of_a_layer else 1), path
        for call in calls:
            assert call.output is not None and call.dy is not None, path


def test_what_a_layer_was_given_is_what_the_layer_below_returned():
    _, recording = recorded({"norm": "post"})
    attention = recording.call("decoder.layers.0.cross_attention")
    assert attention.inputs[0] is recording.call("decoder.layers.0.add_norm_1").output
    assert attention.inputs[1] is recording.call("encoder").output
    assert attention.output is recording.call("decoder.layers.0.add_norm_2").inputs[1]
    assert attention.dy is recording.call("decoder.layers.0.add_norm_2").dinputs[1]


def test_the_probabilities_are_those_of_the_loss():
    _, recording = recorded({})
    p = np.exp(recording.log_p[0])
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    losses = [-math.log(p[t, i]) for t, i in enumerate(TARGET_OUT)]
    assert recording.loss == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    one_hot = np.eye(10)[TARGET_OUT]
    np.testing.assert_allclose(recording.dlogits[0], (p - one_hot) / len(TARGET_OUT), rtol=0, atol=1e-15)


def test_the_model_is_left_alone():
    model = random_model(5, norm="pre")
    before = model.flatten().data.copy(), model.flatten().grad.copy()
    keys = {path: set(vars(layer)) for path, layer in layers_of(model)}
    record(model, SOURCE, TARGET_IN, TARGET_OUT)
    np.testing.assert_array_equal(model.flatten().data, before[0])
    np.testing.assert_array_equal(model.flatten().grad, before[1])
    assert {path: set(vars(layer)) for path, layer in layers_of(model)} == keys
    assert isinstance(model.encoder.layers[0].self_attention.attention, mt.layers.AttentionInBlocks)
