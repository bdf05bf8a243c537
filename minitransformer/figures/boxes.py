"""The boxes of figure 1, each with the matrices that went through it, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from minitransformer.backend import Array, array_module
from minitransformer.figures.recording import Call, Recording
from minitransformer.layers.activations import softmax_backward
from minitransformer.layers.attention import attention_scores
from minitransformer.layers.positional_encoding import rows_at

SIDES = {"encoder": ("src_embedding", "source"), "decoder": ("tgt_embedding", "target")}


class Pair(NamedTuple):
    """A matrix of the forward pass and its gradient, which has the same shape."""

    name: str  # of the matrix; "d" and the name is its gradient's
    forward: Array  # (rows, columns), or (h, rows, columns) with a matrix for each head
    backward: Array | None
    rows: str  # the tokens on its rows, "source" or "target"
    columns: str = ""  # and on its columns; "" if these are features, "vocabulary" if they are likely tokens


class Box(NamedTuple):
    """A box of figure 1."""

    path: str  # of the layer in the model
    kind: str
    stack: str  # "encoder" or "decoder"
    layer: int | None  # its number, from 0 on; None outside the layers
    sublayer: int  # its number in the layer, from 1 on
    pairs: list[Pair]
    call: Call | None  # whose cache is kept for backward


class Step(NamedTuple):
    """The gradient on its way down past a sub-layer, as norms: along the skip path, and through the branch."""

    path: str  # of the sub-layer
    skip: Array
    branch: Array


def sublayers_of(stack: str) -> tuple[str, ...]:
    """The names of the sub-layers in a layer of the encoder or the decoder."""
    cross = ("cross_attention",) * (stack == "decoder")
    return "self_attention", *cross, "feed_forward"


def boxes_of(recording: Recording, layers: list[int], tokens: list[int]) -> Iterator[Box]:
    """The boxes of figure 1, from the inputs on; of the layers only those with these numbers.

    `tokens` are the columns of the logits to show.
    """
    for stack in SIDES:
        yield from embedding_boxes(recording, stack)
        for i in layers:
            yield from layer_boxes(recording, stack, i)
        if recording.model.config.norm == "pre":
            yield norm_box(recording, f"{stack}.norm", stack, None, 0)
    yield output_box(recording, tokens)


def embedding_boxes(recording: Recording, stack: str) -> Iterator[Box]:
    """The embedding, and the positions that are added to it."""
    path, rows = SIDES[stack]
    embedding, whole = recording.call(f"{path}.embedding"), recording.call(path)
    layer: Any = getattr(recording.model, path).positions
    table, learned = (layer.P, True) if hasattr(layer, "P") else (layer.PE, False)
    embedded = Pair("embedding", embedding.output[0], embedding.dy[0], rows)
    at = whole.inputs[2]
    added = rows_at(table.data, at)[0]
    positions = [Pair("positions", added, whole.dy[0] if learned else None, rows)]
    if recording.model.config.positions == "rotary":  # which are not added here
        positions = []
    total = Pair("x", whole.output[0], whole.dy[0], rows)
    yield Box(f"{path}.embedding", "embedding", stack, None, 0, [embedded], embedding)
    yield Box(f"{path}.positions", "position", stack, None, 0, [embedded, *positions, total], None)


def layer_boxes(recording: Recording, stack: str, i: int) -> Iterator[Box]:
    """The boxes of the i-th layer of a stack, from the bottom up."""
    path, post = f"{stack}.layers.{i}", recording.model.config.norm == "post"
    for k, name in enumerate(sublayers_of(stack), 1):
        if not post:
            yield norm_box(recording, f"{path}.norm_{k}", stack, i, k)
        block = feed_forward_pairs if name == "feed_forward" else attention_pairs
        kind = "feed" if name == "feed_forward" else "attention"
        at = f"{path}.{name}"
        yield Box(at, kind, stack, i, k, block(recording, at, stack), recording.call(at))
        yield (add_norm_box if post else add_box)(recording, path, stack, i, k)


def attention_pairs(recording: Recording, path: str, stack: str) -> list[Pair]:
    """The matrices of multi-head attention: its inputs, then the steps of equation 1, a matrix for each head.

    The layer keeps neither scores nor dscores: they are what its own functions return for what was recorded.
    """
    plain = f"{path}.attention" + ".attention" * (recording.model.config.positions == "rotary")
    whole, inner = recording.call(path), recording.call(plain)
    queries = SIDES[stack][1]
    cross = path.endswith("cross_attention")
    keys = "source" if cross else queries
    (Q, K, V, mask, *_), (dQ, dK, dV), weights = inner.inputs, inner.dinputs, inner.cache.weights
    dweights = recording.call(f"{plain}.dropout").dinputs
    dscores = softmax_backward(dweights, weights)
    T_q_T_k = weights.shape[-2:]
    dx, dmemory = block_gradients(whole, path)
    return [
        Pair("x", whole.inputs[0][0], dx[0], queries),
        *([Pair("memory", whole.inputs[1][0], dmemory[0], keys)] if dmemory is not None else []),
        Pair("Q", Q[0], dQ[0], queries),
        Pair("K", K[0], dK[0], keys),
        Pair("V", V[0], dV[0], keys),
        Pair("scores", attention_scores(Q, K)[0], dscores[0], queries, keys),
        Pair("mask", array_module(Q).broadcast_to(mask[0, 0], T_q_T_k), None, queries, keys),
        Pair("weights", weights[0], dweights[0], queries, keys),
        Pair("context", inner.output[0], inner.dy[0], queries),
        Pair("out", whole.output[0], whole.dy[0], queries),
    ]


def feed_forward_pairs(recording: Recording, path: str, stack: str) -> list[Pair]:
    """The matrices of the feed-forward network (equation 2)."""
    whole, inner, rows = recording.call(path), recording.call(f"{path}.activation"), SIDES[stack][1]
    return [
        Pair("x", whole.inputs[0][0], whole.dinputs[0], rows),
        Pair("pre", inner.inputs[0][0], inner.dinputs[0], rows),
        Pair("hidden", inner.output[0], inner.dy[0], rows),
        Pair("out", whole.output[0], whole.dy[0], rows),
    ]


def add_norm_box(recording: Recording, path: str, stack: str, i: int, k: int) -> Box:
    """The post-norm residual step, "Add & Norm"."""
    at, rows = f"{path}.add_norm_{k}", SIDES[stack][1]
    whole, norm = recording.call(at), recording.call(f"{at}.norm")
    pairs = [
        Pair("x", whole.inputs[0][0], whole.dinputs[0][0], rows),
        Pair("sublayer", whole.inputs[1][0], whole.dinputs[1][0], rows),
        Pair("residual", norm.inputs[0][0], norm.dinputs[0], rows),
        Pair("norm", norm.output[0], norm.dy[0], rows),
    ]
    return Box(at, "add_norm", stack, i, k, pairs, whole)


def norm_box(recording: Recording, path: str, stack: str, i: int | None, k: int) -> Box:
    """A norm by itself, as pre-norm has it."""
    norm, rows = recording.call(path), SIDES[stack][1]
    pairs = [
        Pair("residual", norm.inputs[0][0], norm.dinputs[0], rows),
        Pair("norm", norm.output[0], norm.dy[0], rows),
    ]
    return Box(path, "norm", stack, i, k, pairs, norm)


def add_box(recording: Recording, path: str, stack: str, i: int, k: int) -> Box:
    """The pre-norm residual step: the sum is what the next norm of the layer reads, or else the layer's output."""
    x, dropout = recording.call(f"{path}.norm_{k}").inputs[0], recording.call(f"{path}.dropout", k - 1)
    last = k == len(sublayers_of(stack))
    total = recording.call(path).output if last else recording.call(f"{path}.norm_{k + 1}").inputs[0]
    rows = SIDES[stack][1]
    pairs = [
        Pair("x", x[0], dropout.dy[0], rows),
        Pair("sublayer", dropout.output[0], dropout.dy[0], rows),
        Pair("residual", total[0], dropout.dy[0], rows),
    ]
    return Box(f"{path}.add_{k}", "add", stack, i, k, pairs, dropout)


def output_box(recording: Recording, tokens: list[int]) -> Box:
    """The last linear map, and the softmax, at the columns `tokens`."""
    call, p = recording.call("output"), array_module(recording.log_p).exp(recording.log_p)
    pairs = [
        Pair("x", call.inputs[0][0], call.dinputs[0], "target"),
        Pair("logits", call.output[0][:, tokens], call.dy[0][:, tokens], "target", "vocabulary"),
        Pair("p", p[0][:, tokens], None, "target", "vocabulary"),
    ]
    return Box("output", "linear", "decoder", None, 0, pairs, call)


def steps_of(recording: Recording, stack: str) -> Iterator[Step]:
    """The gradient's way down a stack, past one sub-layer after the other."""
    for i in reversed(range(recording.model.config.n_layers)):
        path = f"{stack}.layers.{i}"
        for k, name in reversed(list(enumerate(sublayers_of(stack), 1))):
            at = f"{path}.{name}"
            if recording.model.config.norm == "post":
                dx, _ = block_gradients(recording.call(at), at)
                yield Step(at, recording.call(f"{path}.add_norm_{k}").dinputs[0], dx)
            else:
                skip = recording.call(f"{path}.dropout", k - 1).dy
                yield Step(at, skip, recording.call(f"{path}.norm_{k}").dinputs)


def block_gradients(call: Call, path: str) -> tuple[Array, Array | None]:
    """(dx, dmemory) of a sub-layer; only cross-attention reads the memory, as its keys and values."""
    if path.endswith("feed_forward"):
        return call.dinputs, None
    dquery, dkey, dvalue = call.dinputs
    if path.endswith("cross_attention"):
        return dquery, dkey + dvalue
    return dquery + dkey + dvalue, None
