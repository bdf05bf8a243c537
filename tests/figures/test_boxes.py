"""The boxes of figure 1: what stands beside each other belongs together, by the formulas of the layers."""

from itertools import pairwise

import numpy as np
import pytest
from drawn_models import random_model

from minitransformer.figures.boxes import boxes_of, steps_of, sublayers_of
from minitransformer.figures.recording import record

SOURCE, TARGET_IN, TARGET_OUT = [3, 8, 5, 9, 3, 2], [1, 6, 7, 8], [6, 7, 8, 2]
NORMS = pytest.mark.parametrize("norm", ["post", "pre"])


def drawn(norm, layers=(0, 1)):
    recording = record(random_model(3, norm=norm), SOURCE, TARGET_IN, TARGET_OUT)
    boxes = {box.path: box for box in boxes_of(recording, list(layers), [2, 6, 7])}
    return recording, boxes


def pairs(box):
    return {pair.name: pair for pair in box.pairs}


def assert_near(got, expected):
    """The largest difference is rounding, relative to the largest entry."""
    assert got.shape == expected.shape and abs(expected).max() > 0
    assert abs(got - expected).max() <= 1e-12 * abs(expected).max()


@NORMS
def test_the_boxes_are_those_of_figure_1(norm):
    _, boxes = drawn(norm, [1])
    encoder, decoder = "encoder.layers.1.", "decoder.layers.1."
    if norm == "post":
        encoder_layer = "self_attention add_norm_1 feed_forward add_norm_2"
        decoder_layer = "self_attention add_norm_1 cross_attention add_norm_2 feed_forward add_norm_3"
    else:
        encoder_layer = "norm_1 self_attention add_1 norm_2 feed_forward add_2"
        decoder_layer = "norm_1 self_attention add_1 norm_2 cross_attention add_2 norm_3 feed_forward add_3"
    last = norm == "pre"
    assert list(boxes) == [
        *("src_embedding.embedding", "src_embedding.positions"),
        *(encoder + name for name in encoder_layer.split()),
        *(["encoder.norm"] * last),
        *("tgt_embedding.embedding", "tgt_embedding.positions"),
        *(decoder + name for name in decoder_layer.split()),
        *(["decoder.norm"] * last),
        "output",
    ]
    assert {box.layer for box in boxes.values()} == {None, 1}


@NORMS
def test_every_gradient_has_the_shape_of_its_matrix(norm):
    _, boxes = drawn(norm)
    lengths = {"source": 6, "target": 4, "vocabulary": 3}
    for box in boxes.values():
        for pair in box.pairs:
            assert pair.backward is None or pair.backward.shape == pair.forward.shape, (box.path, pair.name)
            assert pair.forward.shape[-2] == lengths[pair.rows], (box.path, pair.name)
            if pair.columns:
                assert pair.forward.shape[-1] == lengths[pair.columns], (box.path, pair.name)
            assert (pair.forward.ndim == 3) == (
                pair.name in ("Q", "K", "V", "scores", "weights", "context") and box.kind == "attention"
            )


@NORMS
def test_dscores_reproduce_dQ_and_dK_and_the_steps_of_equation_1_follow_from_each_other(norm):
    _, boxes = drawn(norm)
    attentions = [box for box in boxes.values() if box.kind == "attention"]
    assert len(attentions) == 6
    for box in attentions:
        p = pairs(box)
        Q, K, V, weights = (p[name].forward for name in ("Q", "K", "V", "weights"))
        dscores, dweights, dcontext = (p[name].backward for name in ("scores", "weights", "context"))
        scale = 1 / np.sqrt(Q.shape[-1])
        assert_near(p["scores"].forward, scale * Q @ K.swapaxes(1, 2))
        exps = np.exp(p["scores"].forward) * p["mask"].forward
        assert_near(weights, exps / exps.sum(-1, keepdims=True))
        assert_near(p["context"].forward, weights @ V)
        assert_near(dweights, dcontext @ V.swapaxes(1, 2))
        assert_near(dscores, weights * (dweights - (dweights * weights).sum(-1, keepdims=True)))
        assert_near(p["Q"].backward, scale * dscores @ K)
        assert_near(p["K"].backward, scale * dscores.swapaxes(1, 2) @ Q)
        assert_near(p["V"].backward, weights.swapaxes(1, 2) @ dcontext)


@NORMS
def test_the_matrices_give_the_gradients_of_the_parameters(norm):
    """W_Q.grad = xᵀ dQ, W_1.grad = xᵀ dpre, and so on: of what is shown, and of the model's own backward."""
    recording, boxes = drawn(norm)
    grads = {name: p.grad for name, p in recording.model.parameters().items()}

    def beside(x):
        return x.transpose(1, 0, 2).reshape(x.shape[1], -1)

    for box in boxes.values():
        p = pairs(box)
        if box.kind == "attention":
            memory = p.get("memory", p["x"]).forward
            assert_near(p["x"].forward.T @ beside(p["Q"].backward), grads[f"{box.path}.W_Q"])
            assert_near(memory.T @ beside(p["K"].backward), grads[f"{box.path}.W_K"])
            assert_near(memory.T @ beside(p["V"].backward), grads[f"{box.path}.W_V"])
            assert_near(beside(p["context"].forward).T @ p["out"].backward, grads[f"{box.path}.W_O"])
        if box.kind == "feed":
            assert_near(p["x"].forward.T @ p["pre"].backward, grads[f"{box.path}.W_1"])
            assert_near(p["hidden"].forward.T @ p["out"].backward, grads[f"{box.path}.W_2"])
        if box.kind in ("norm", "add_norm"):
            norm_path = f"{box.path}.norm" if box.kind == "add_norm" else box.path
            assert_near(p["norm"].backward.sum(0), grads[f"{norm_path}.beta"])
        if box.kind in ("add", "add_norm"):
            assert_near(p["x"].forward + p["sublayer"].forward, p["residual"].forward)


@NORMS
def test_the_gradient_arrives_at_each_step_as_the_step_above_left_it(norm):
    recording, boxes = drawn(norm)
    for stack, embedding in (("decoder", "tgt_embedding"), ("encoder", "src_embedding")):
        steps = list(steps_of(recording, stack))
        assert [step.path.split(".")[2] for step in steps] == ["1"] * (len(steps) // 2) + ["0"] * (
            len(steps) // 2
        )
        for above, below in pairwise(steps):
            arrived = above.skip + above.branch
            layer, name = below.path.rsplit(".", 1)
            k = sublayers_of(stack).index(name) + 1
            add = boxes[f"{layer}.add_{k}" if norm == "pre" else f"{layer}.add_norm_{k}"]
            assert_near(add.pairs[-1].backward[None], arrived)
            assert_near(pairs(add)["x"].backward[None], below.skip)
        assert_near(steps[-1].skip + steps[-1].branch, recording.call(embedding).dy)
    memories = [pairs(box)["memory"].backward for box in boxes.values() if "memory" in pairs(box)]
    assert len(memories) == 2
    assert_near(sum(memories)[None], recording.call("encoder").dy)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_positions_from_both_ends_stand_beside_their_halves(positions):
    model = random_model(3, positions=positions, count_source_from="both")
    recording = record(model, SOURCE, TARGET_IN, TARGET_OUT)
    for box in boxes_of(recording, [], [2]):
        if box.kind == "position":
            p = pairs(box)
            assert_near(p["x"].forward, p["embedding"].forward + p["positions"].forward)


def test_rotary_positions_add_nothing_and_what_is_shown_is_what_meets():
    model = random_model(3, positions="rotary", count_source_from="both", d_k=4)
    recording = record(model, SOURCE, TARGET_IN, TARGET_OUT)
    boxes = list(boxes_of(recording, [0, 1], [2]))
    assert all("positions" not in pairs(box) for box in boxes)
    for box in boxes:
        if box.kind == "attention":
            p = pairs(box)
            Q, K = p["Q"].forward, p["K"].forward
            assert_near(p["scores"].forward, Q @ K.swapaxes(1, 2) / np.sqrt(Q.shape[-1]))


# ---- every pair of forward and backward, against the formula


SHOWN = [2, 6, 7]


def with_pairs(norm, **more):
    """A recording, its weights, and each box of it with its pairs by name."""
    recording = record(random_model(3, norm=norm, **more), SOURCE, TARGET_IN, TARGET_OUT)
    boxes = [(box, pairs(box)) for box in boxes_of(recording, [0, 1], SHOWN)]
    return recording, recording.model.parameters(), boxes


def beside(x):
    """Heads side by side: (h, T, d) -> (T, h · d)."""
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


@NORMS
def test_the_box_of_the_logits(norm):
    recording, _, boxes = with_pairs(norm)
    (of,) = (of for box, of in boxes if box.kind == "linear")
    E = recording.model.output.E.data
    assert_near(of["logits"].forward, of["x"].forward @ E[SHOWN].T)
    assert_near(of["logits"].backward, recording.dlogits[0][:, SHOWN])
    assert_near(of["p"].forward, np.exp(recording.log_p[0][:, SHOWN]))
    assert_near(of["x"].backward, recording.dlogits[0] @ E)


@NORMS
def test_the_boxes_of_feed_forward_and_attention(norm):
    _, weights, boxes = with_pairs(norm)
    for box, of in boxes:
        if box.kind == "feed":
            assert_near(of["hidden"].backward, of["out"].backward @ weights[f"{box.path}.W_2"].data.T)
            assert_near(of["x"].backward, of["pre"].backward @ weights[f"{box.path}.W_1"].data.T)
        if box.kind == "attention":
            dx, *others = (beside(of[n].backward) @ weights[f"{box.path}.W_{n}"].data.T for n in "QKV")
            assert_near(of["x"].backward, dx if "memory" in of else dx + sum(others))


def test_the_boxes_of_residual_connections_and_norms():
    for box, of in with_pairs("post")[2]:
        if box.kind == "add_norm":
            assert_near(of["sublayer"].backward, of["x"].backward)
            assert_near(of["residual"].backward, of["x"].backward)
    for box, of in with_pairs("pre")[2]:
        if box.kind == "norm":  # nothing changes if all features of a token grow by the same
            sums = abs(of["residual"].backward.sum(-1))
            assert sums.max() < 1e-12 * abs(of["norm"].backward).max()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_the_boxes_of_positions(positions):
    _, weights, boxes = with_pairs("post", positions=positions)
    for box, of in boxes:
        if box.kind == "position":
            found = of["positions"].backward
            if positions == "learned":
                assert_near(found, weights[f"{box.path}.P"].grad[: len(found)])
            else:
                assert found is None
