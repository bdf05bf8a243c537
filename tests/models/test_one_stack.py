"""What models of one stack share: their sum of embeddings, their heads, their dropout; the same in torch.nn."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from dropout_masks import masks_drawn
from one_stack_cases import MAX_LEN, V, random_model, random_prompts
from support import randomise

FAMILIES = ("encoder-only", "decoder-only")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("embedding_norm", [True, False])
def test_the_stack_reads_the_sum_of_embedding_position_and_segment(family, scaled, embedding_norm):
    segmented = family == "encoder-only"
    model = random_model(
        family,
        3,
        scale_embedding=scaled,
        embedding_norm=embedding_norm,
        positions="learned",
        n_segments=2 * segmented,
    )
    layer, ids = model.embedding, random_prompts(3, [6, 4])
    segments = np.random.default_rng(3).integers(0, 2, ids.shape)
    w = {name: p.data for name, p in layer.parameters().items()}
    x = w["embedding.E"][ids] * (np.sqrt(12) if scaled else 1) + w["positions.P"][:6]
    if segmented:
        x = x + w["segments.E"][segments]
    if embedding_norm:
        x = x - x.mean(-1, keepdims=True)
        x = w["norm.gamma"] * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + w["norm.beta"]
    got, _ = layer.forward(ids, segments if segmented else None)
    np.testing.assert_allclose(got, x, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_head_for_masked_words_is_a_layer_a_norm_and_a_bias_before_the_matrix(family, tied):
    model = random_model(family, 4, head="masked-lm", activation="gelu_tanh", tie_embeddings=tied)
    head, x = model.output, np.random.default_rng(4).normal(size=(2, 3, 12))
    assert (head.projection.E is model.embedding.embedding.E) == tied
    h = x @ head.linear.W.data + head.linear.b.data
    h = h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h * h * h))) / 2
    h = h - h.mean(-1, keepdims=True)
    h = head.norm.gamma.data * h / np.sqrt((h * h).mean(-1, keepdims=True) + 1e-5) + head.norm.beta.data
    got, _ = head.forward(x)
    np.testing.assert_allclose(got, h @ head.projection.E.data.T + head.b_V.data, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tied_matrix_is_one_parameter_with_the_gradients_of_both_its_uses(family):
    model, free = (random_model(family, 5, tie_embeddings=tie) for tie in (True, False))
    assert [sum(name.endswith(".E") for name in m.parameters()) for m in (model, free)] == [1, 2]
    weights = model.state_dict()
    free.load_state_dict({**weights, "output.E": weights["embedding.embedding.E"]})
    ids, dlogits = random_prompts(5, [4, 2]), np.random.default_rng(5).normal(size=(2, 4, V))
    for m in (model, free):
        m.zero_grad()
        m.backward(dlogits, m.forward(ids)[1])
    uses = free.embedding.embedding.E.grad, free.output.E.grad
    assert all(dE.any() for dE in uses)
    np.testing.assert_allclose(model.embedding.embedding.E.grad, sum(uses), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("keep", ["caches", "inputs"])
def test_dropout_draws_from_the_generator_alone_and_the_same_when_recomputed(family, keep):
    model = random_model(family, 6, dropout=0.4, dropout_on=("embedding", "residual", "attention", "relu"))
    ids = random_prompts(6, [5, 7])
    logits, cache = model.forward(ids, rng=np.random.default_rng(1), keep=keep)
    again, _ = model.forward(ids, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(logits, again)
    assert (logits != model.forward(ids)[0]).any()
    assert masks_drawn(model.forward(ids)[1]) == {}
    grads = []
    for how in ("caches", keep):
        model.flatten().grad[...] = 0
        logits, cache = model.forward(ids, rng=np.random.default_rng(1), keep=how)
        model.backward(logits, cache)
        grads.append(model.flatten().grad.copy())
    assert grads[0].any()
    np.testing.assert_array_equal(*grads)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("changes", [{"random_start": 5}, {"random_gaps": 4}], ids=str)
@pytest.mark.parametrize("positions", ["learned", "rotary", "sinusoidal"])
def test_random_places_are_for_training_only(family, changes, positions):
    model = random_model(family, 7, positions=positions, dropout=0.0, **changes)
    plain = random_model(family, 7, positions=positions)
    if positions == "learned":
        plain.embedding.positions.P.data[...] = model.embedding.positions.P.data[:MAX_LEN]
        assert len(model.embedding.positions.P.data) > MAX_LEN
    weights = {n: x for n, x in model.state_dict().items() if n != "embedding.positions.P"}
    plain.load_state_dict(plain.state_dict() | weights)
    ids = random_prompts(7, [9, 6])
    np.testing.assert_array_equal(model.forward(ids)[0], plain.forward(ids)[0])
    drawn = [model.forward(ids, rng=np.random.default_rng(s))[0] for s in range(3)]
    moved = [abs(x - drawn[0]).max() > 1e-3 for x in drawn[1:]]
    # where only distances matter, a shift of all alike changes nothing
    assert any(moved) != (positions == "rotary" and "random_start" in changes)


# ---- the same model in torch.nn


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(("activation", "positions"), [("relu", "learned"), ("gelu", "sinusoidal")])
@pytest.mark.parametrize("family", ["decoder-only", "encoder-only"])
def test_logits_and_every_gradient_are_those_of_torch(family, norm, activation, positions):
    """In float64; torch.nn's own encoder layers, here under a causal mask, there under one of padding."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    changes = {"norm": norm, "activation": activation, "positions": positions}
    model = random_model(
        family, 2, attention_bias=True, d_model=18, scale_embedding=False, dropout=0.0, **changes
    )
    randomise(model, np.random.default_rng(3))
    ids = random_prompts(4, [7, 3, 5])
    dlogits = np.random.default_rng(5).normal(size=(*ids.shape, V))
    dlogits[ids == 0] = 0  # torch's layers say something else, or NaN, where padding asks
    model.flatten().grad[...] = 0
    logits, cache = model.forward(ids)
    model.backward(dlogits, cache)
    theirs, weights = logits_of_torch(torch, model, ids)
    theirs.backward(torch.tensor(dlogits))
    close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)
    close(logits[ids != 0], theirs.detach().numpy()[ids != 0])
    assert weights.keys() == model.parameters().keys()
    for name, p in model.parameters().items():
        assert np.abs(p.grad).max() > 1e-3 or name.endswith("b_K")  # no shift of all keys matters
        close(p.grad, weights[name].grad.numpy(), atol=1e-12 * max(1, np.abs(p.grad).max()), err_msg=name)


def logits_of_torch(torch: Any, model: Any, ids: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """The logits by torch.nn.functional with our weights as leaves, under our names."""
    c, F = model.config, torch.nn.functional
    w = {name: torch.tensor(p.data, requires_grad=True) for name, p in model.parameters().items()}
    tokens = torch.tensor(ids)
    x = w["embedding.embedding.E"][tokens]
    if c.positions == "learned":
        x = x + w["embedding.positions.P"][: ids.shape[1]]
    else:
        x = x + torch.tensor(model.embedding.positions.PE.data[: ids.shape[1]])
    for i in range(c.n_layers):
        x = layer_of_torch(
            torch, c, {n.removeprefix(f"stack.layers.{i}."): t for n, t in w.items()}, x, tokens
        )
    if c.norm == "pre":
        x = F.layer_norm(x, (c.d_model,), w["stack.norm.gamma"], w["stack.norm.beta"], c.eps)
    return x @ w["embedding.embedding.E"].T, w


def layer_of_torch(torch: Any, c: Any, w: dict[str, Any], x: Any, tokens: Any) -> Any:
    """One nn.TransformerEncoderLayer, called with tensors made of our weights, so that gradients reach these."""
    pre = c.norm == "pre"
    layer = torch.nn.TransformerEncoderLayer(
        c.d_model,
        c.n_heads,
        c.d_ff,
        0.0,
        c.activation,
        c.eps,
        batch_first=True,
        norm_first=pre,
        dtype=torch.float64,
    )
    norms = ("norm_1", "norm_2") if pre else ("add_norm_1.norm", "add_norm_2.norm")
    a, f = "self_attention.", "feed_forward."
    theirs = {
        "self_attn.in_proj_weight": torch.cat([w[f"{a}W_{n}"].T for n in "QKV"]),
        "self_attn.in_proj_bias": torch.cat([w[f"{a}b_{n}"] for n in "QKV"]),
        "self_attn.out_proj.weight": w[f"{a}W_O"].T,
        "self_attn.out_proj.bias": w[f"{a}b_O"],
        **{f"linear{i}.weight": w[f"{f}W_{i}"].T for i in (1, 2)},
        **{f"linear{i}.bias": w[f"{f}b_{i}"] for i in (1, 2)},
        **{f"norm{i}.weight": w[f"{name}.gamma"] for i, name in enumerate(norms, 1)},
        **{f"norm{i}.bias": w[f"{name}.beta"] for i, name in enumerate(norms, 1)},
    }
    assert theirs.keys() == dict(layer.named_parameters()).keys()
    if c.family == "decoder-only":
        T = tokens.shape[1]
        options = {"src_mask": torch.ones(T, T, dtype=torch.bool).triu(1)}
    else:
        options = {"src_key_padding_mask": tokens == c.pad_id}
    return torch.func.functional_call(layer, theirs, (x,), options)


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
@pytest.mark.parametrize("embedding_norm", [True, False])
def test_dropout_is_on_what_the_stack_reads(family, embedding_norm):
    model = random_model(family, 3, embedding_norm=embedding_norm, dropout=0.5, dropout_on=("embedding",))
    ids = random_prompts(3, [6, 4])
    y, cache = model.embedding.forward(ids, rng=np.random.default_rng(1))
    np.testing.assert_allclose(y, cache.dropout.kept * model.embedding.forward(ids)[0] / 0.5, rtol=1e-12)


N_MASKS = {"embedding": 1, "residual": 4, "attention": 2, "relu": 2}


@pytest.mark.parametrize("family", ["encoder-only", "decoder-only"])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("place", N_MASKS)
def test_dropout_acts_where_the_config_says_and_nowhere_else(family, norm, place):
    model = random_model(family, 6, dropout=0.4, dropout_on=(place,), norm=norm)
    masks = masks_drawn(model.forward(random_prompts(6, [5, 7]), rng=np.random.default_rng(1))[1])
    assert len(masks) == N_MASKS[place]
    assert ("embedding.dropout" in masks) == (place == "embedding")
