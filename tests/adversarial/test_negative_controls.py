"""Negative controls: faults of the kinds that hand-written Transformers have had are planted, and must be caught.

FAULTS is the list. A row says what is wrong, where it is planted (the attribute of the package that is replaced, and
with what), and which checks catch it. A check is a function without arguments that answers yes or no: the gradient
checker on the cases of minitransformer/checks, or a law. The test runs the very same check twice, on the healthy
package, where it must say yes, and on the sabotaged one, where it must say no. A fault that merely crashes is not
caught: no check swallows an exception. RIGHT holds some of these replacements without the fault, which nothing may
notice.

Where the design of this package stands in a fault's way, it is planted all the same:

- Hidden state on a layer: caches are explicit, so `LastMask` brings its own (one Dropout object, the last mask).
- Cross-attention with values from the decoder: a shape error unless T_src = T_tgt, so this law takes them equal.
- A mask of -1e9 in a type that cannot hold it: models refuse float16 at the door, the attention layer takes it.
- Adam's count per tensor, tied weights stepped twice: there is one flat buffer and one count, so the faulty steps are
  written around the right one.
- Warm-up that runs too fast: the trainer counts its steps itself; the fault is planted where it comes from, in Adam.

Not here is what is no fault of this code: checks without power (ones as
upstream gradient, T = 1, initial parameters: tests/helpers/support.py avoids them), dead data links, slow decoding and
long training (no right or wrong), and NumPy code that meets CuPy (that takes a GPU).
"""

from __future__ import annotations

import math
from collections import UserList
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from gradient_cases import CASES, Case
from support import D_K, D_MODEL, D_V, T_K, T_Q, V_SRC, B, H, random_ids, randomise, tiny_config

import minitransformer as mt
from minitransformer import layers as L
from minitransformer import models
from minitransformer.checks.wrapped import Loss, Softmax, TiedEmbedding, TransformerWithLoss
from minitransformer.layers.attention_in_blocks import n_keys, softmax_without_maximum
from minitransformer.layers.dropout import DropoutCache
from minitransformer.layers.normalization import LayerNormCache
from minitransformer.module import Constant, Module
from minitransformer.runs import trainer
from minitransformer.tasks import BOS, EOS, PAD
from minitransformer.testing import arrays_in, assert_accumulates, assert_pure, assert_reentrant
from minitransformer.training import batching

Check = Callable[[], bool]


def x(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape)


# ---- what catches: the gradient checker


def gradients(cases: type[Module] | list[Case], method: str = "complex", directional: bool = False) -> bool:
    """The gradient checker finds nothing wrong in any of the cases (of a Module, or given)."""
    cases = cases if isinstance(cases, list) else CASES[cases]
    return all(gradcheck_of(case, method, directional) for case in cases)


def seeded(layer: Module, rng: np.random.Generator) -> Module:
    """The layer in float64, with parameters from `rng` alone: the same in every run, none of them near 0."""
    for p in randomise(layer, rng).parameters().values():
        p.data = rng.uniform(0.2, 1.0, p.shape) * rng.choice([-1.0, 1.0], p.shape)
    return layer


def gradcheck_of(case: Case, method: str, directional: bool) -> bool:
    rng = np.random.default_rng(3)
    layer, inputs = case(rng)
    report = mt.gradcheck(
        seeded(layer, rng), *inputs, method=method, directional=directional, dropout_seed=5, seed=7
    )
    return report.ok


def elementwise(cases: type[Module] | list[Case]) -> list[Check]:
    """Every number by itself, with both methods."""
    return [partial(gradients, cases, method) for method in ("complex", "central")]


def every_way(cases: type[Module] | list[Case]) -> list[Check]:
    """Both methods, elementwise and along one direction."""
    return elementwise(cases) + [partial(gradients, cases, method, True) for method in ("complex", "central")]


# the one place where two axes are equal: elsewhere a transposed dW is a shape error
SQUARE: list[Case] = [lambda r: (L.Linear(D_MODEL, D_MODEL), (x(r, B, T_Q, D_MODEL),))]
TWO_LAYERS = CASES[models.Decoder][:1]


# ---- what catches: the laws of a layer


def built(cls: type[Module], case: int = 0) -> tuple[Module, tuple[Any, ...], np.random.Generator]:
    rng = np.random.default_rng(11)
    layer, inputs = CASES[cls][case](rng)
    return seeded(layer, rng), inputs, rng


def same(a: Any, b: Any) -> bool:
    return all(np.array_equal(i, j) for i, j in zip(arrays_in(a), arrays_in(b), strict=True))


def close(a: Any, b: Any) -> bool:
    return bool(np.allclose(a, b, rtol=1e-10, atol=1e-12))  # NaN is close to nothing


def holds(law: Callable[..., None], cls: type[Module]) -> bool:
    """A law of minitransformer.testing holds for the first case of a Module."""
    layer, inputs, _ = built(cls)
    try:
        law(layer, *([inputs, inputs] if law is assert_reentrant else inputs), dropout_seed=1)
    except AssertionError:
        return False
    return True


def float32_stays_float32(cls: type[Module]) -> bool:
    rng = np.random.default_rng(12)
    layer, inputs = CASES[cls][0](rng)  # built in float32, the default
    inputs = tuple(i.astype(np.float32) if i.dtype.kind == "f" else i for i in inputs)
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(1))
    dxs = layer.backward(np.ones_like(y), cache)
    return {a.dtype for a in arrays_in([y, cache, dxs]) if a.dtype.kind == "f"} == {np.dtype(np.float32)}


def layer_norm_is_the_formula() -> bool:
    rng = np.random.default_rng(13)
    layer = seeded(L.LayerNorm(D_MODEL, eps=0.5), rng)
    row = rng.normal(size=D_MODEL)
    mean = math.fsum(row) / D_MODEL
    var = math.fsum((v - mean) ** 2 for v in row) / D_MODEL
    expected = [(v - mean) / math.sqrt(var + 0.5) for v in row] * layer.gamma.data + layer.beta.data
    return close(layer.forward(row[None])[0][0], expected)


def layer_norm_of_a_constant_row_is_finite() -> bool:
    layer, _, rng = built(L.LayerNorm)
    y, cache = layer.forward(np.full((B, T_Q, D_MODEL), 4.0))
    dx = layer.backward(rng.normal(size=y.shape), cache)
    return close(y, layer.beta.data) and bool(np.isfinite(dx).all())


def a_batch_norm_remembers_nothing() -> bool:
    layer, (inputs,), rng = built(L.BatchNorm)
    before, _ = layer.forward(inputs)
    layer.forward(inputs + 1, rng)
    return same(layer.forward(inputs)[0], before)


def add_norm_is_the_norm_of_the_sum() -> bool:
    layer, (residual, s), _ = built(L.AddNorm)
    z = residual + s
    z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + layer.norm.eps)
    return close(layer.forward(residual, s)[0], layer.norm.gamma.data * z + layer.norm.beta.data)


def dropout_keeps_the_mean_of_evaluation() -> bool:
    ones, p = np.ones((500, 401)), 0.3
    trained, _ = L.Dropout(p).forward(ones, np.random.default_rng(14))
    evaluated, _ = L.Dropout(p).forward(ones)
    sigma = math.sqrt(p / (1 - p) / ones.size)
    return abs(trained.mean() - evaluated.mean()) < 5 * sigma


def dropout_is_a_function_of_the_generator() -> bool:
    ones, layer = np.ones((B, T_Q, D_MODEL)), L.Dropout(0.3)
    trained = [layer.forward(ones, np.random.default_rng(15))[0] for _ in range(2)]
    evaluated = [layer.forward(ones)[0] for _ in range(2)]
    return same(*trained) and same(*evaluated)


def positions_are_the_formula() -> bool:
    layer = L.SinusoidalPositions(19, D_MODEL, dtype="float64")
    PE, _ = layer.forward(np.zeros((1, 19, D_MODEL)))
    wave = (math.sin, math.cos)
    angle = [[pos / 10000 ** (2 * (c // 2) / D_MODEL) for c in range(D_MODEL)] for pos in range(19)]
    return close(PE[0], [[wave[c % 2](row[c]) for c in range(D_MODEL)] for row in angle])


def a_query_without_keys_gets_zeros() -> bool:
    rng = np.random.default_rng(16)
    Q, K, V = x(rng, B, H, T_Q, D_K), x(rng, B, H, T_K, D_K), x(rng, B, H, T_K, D_V)
    mask = np.ones((B, 1, T_Q, T_K), bool)
    mask[1, 0, 2] = False
    layer = L.ScaledDotProductAttention()
    context, cache = layer.forward(Q, K, V, mask)
    dQKV = layer.backward(rng.normal(size=context.shape), cache)
    return bool((context[1, :, 2] == 0).all()) and all(np.isfinite(d).all() for d in dQKV)


def hidden_keys_weigh_nothing(dtype: str, size: float) -> bool:
    """Weights are 0 where the mask says so and add up to 1 elsewhere, for scores of any size that `dtype` holds."""
    rng = np.random.default_rng(17)
    shapes = (B, H, T_Q, D_K), (B, H, T_K, D_K), (B, H, T_K, D_V)
    Q, K, V = ((size * rng.normal(size=shape)).astype(dtype) for shape in shapes)
    mask = rng.random((B, 1, T_Q, T_K)) > 0.4
    mask[..., 0] = True
    _, cache = L.ScaledDotProductAttention().forward(Q, K, V, mask)
    weights = cache.weights.astype(float)
    hidden = ~np.broadcast_to(mask, weights.shape)
    return bool((weights[hidden] == 0).all() and (abs(weights.sum(-1) - 1) < 1e-2).all())


def blocks_are_the_plain_version(size: float, rows: int) -> bool:
    """Forward and backward, for scores of about `size`, under a mask that hides the last keys of the first queries."""
    rng = np.random.default_rng(18)
    Q, K, V = x(rng, B, H, T_Q, D_K) * size, x(rng, B, H, T_K, D_K), x(rng, B, H, T_K, D_V)
    mask = np.tri(T_Q, T_K, dtype=bool)[None, None]
    plain, blocks = L.ScaledDotProductAttention(), L.AttentionInBlocks(rows=rows)
    (expected, cache_plain), (context, cache) = plain.forward(Q, K, V, mask), blocks.forward(Q, K, V, mask)
    dcontext = rng.normal(size=context.shape)
    gradients = zip(plain.backward(dcontext, cache_plain), blocks.backward(dcontext, cache), strict=True)
    return close(context, expected) and all(close(a, b) for a, b in gradients)


# ---- what catches: the laws of the model


def model_and_ids(T_tgt: int = T_Q, **changes: Any) -> tuple[mt.Transformer, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(21)
    model = mt.Transformer(tiny_config(**changes), dtype="float64")
    randomise(model, rng, spread=0.3)
    src_ids = random_ids(rng, B, T_K, V_SRC)
    return model, src_ids, rng.integers(1, model.config.tgt_vocab_size, (B, T_tgt))


def a_later_token_changes_no_earlier_output() -> bool:
    model, src_ids, tgt_in = model_and_ids(T_tgt=T_K)
    changed = tgt_in.copy()
    changed[:, 3] = tgt_in[:, 3] % (model.config.tgt_vocab_size - 1) + 1
    before, after = model.forward(src_ids, tgt_in)[0], model.forward(src_ids, changed)[0]
    return same(before[:, :3], after[:, :3]) and not same(before[:, 3:], after[:, 3:])


def more_padding_changes_nothing() -> bool:
    model, *ids = model_and_ids()
    longer = [np.pad(i, ((0, 0), (0, 3))) for i in ids]
    return close(model.forward(*longer)[0][:, :T_Q], model.forward(*ids)[0])


def a_step_at_a_time_equals_the_whole() -> bool:
    model, src_ids, tgt_in = model_and_ids()
    state = model.start_decoding(src_ids, max_len=T_Q)
    steps = [model.decode_step(tgt_in[:, position], state) for position in range(T_Q)]
    return close(np.stack(steps, 1), model.forward(src_ids, tgt_in)[0])


def recomputed_activations_equal_stored_ones() -> bool:
    model, *ids = model_and_ids()
    grads = []
    for keep in ("caches", "inputs"):
        model.zero_grad()
        logits, cache = model.forward(*ids, np.random.default_rng(1), keep=keep)
        model.backward(np.cos(logits), cache)
        grads.append(model.flatten().grad.copy())
    return same(*grads)


def a_negative_id_is_refused() -> bool:
    model, src_ids, tgt_in = model_and_ids()
    tgt_in[1, 2] = -1
    try:
        model.forward(src_ids, tgt_in)
    except mt.InputError as error:  # at the model's door; behind it, the embedding has one of its own
        return str(error).startswith("tgt_in: ")
    return False


# ---- what catches: the laws of training


def loss_case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(31)
    return 3 * rng.normal(size=(B, T_Q, 7)), random_ids(rng, B, T_Q, 7)


def loss_is_the_formula() -> bool:
    logits, tgt_out = loss_case()
    V, eps_ls, terms = 7, 0.1, []
    for scores, target in zip(logits.reshape(-1, V), tgt_out.ravel(), strict=True):
        if target != PAD:
            log_z = math.log(math.fsum(math.exp(s) for s in scores))
            q = [eps_ls / V + (1 - eps_ls) * (v == target) for v in range(V)]
            terms.append(math.fsum(q_v * (log_z - s) for q_v, s in zip(q, scores, strict=True)))
    loss, _ = mt.LabelSmoothedCrossEntropy(eps_ls, PAD).forward(logits, tgt_out)
    return close(loss, math.fsum(terms) / len(terms))


def loss_and_gradient_ignore_padding() -> bool:
    logits, tgt_out = loss_case()
    loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
    loss, cache = loss_fn.forward(logits, tgt_out)
    more_logits, more_tgt = np.pad(logits, ((0, 0), (0, 3), (0, 0))), np.pad(tgt_out, ((0, 0), (0, 3)))
    longer, longer_cache = loss_fn.forward(more_logits, more_tgt)
    return close(loss, longer) and close(loss_fn.backward(cache), loss_fn.backward(longer_cache)[:, :T_Q])


class Weights(Module):
    def __init__(self, rng: np.random.Generator) -> None:
        self.weights = [mt.Parameter(rng.normal(size=size)) for size in ((3, 5), (7,), (2, 2))]


def adam_is_the_textbooks() -> bool:
    """Algorithm 1 of Kingma and Ba (2015), three steps."""
    rng = np.random.default_rng(32)
    model, (beta1, beta2), lr = Weights(rng), (0.9, 0.98), 0.1
    p, m, v = model.flatten().data.copy(), 0.0, 0.0
    optimizer = mt.Adam(model, (beta1, beta2), 1e-9)
    for t in (1, 2, 3):
        g = rng.normal(size=p.shape)
        model.flatten().grad[...] = g
        optimizer.step(lr)
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        p = p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + 1e-9)
    return close(model.flatten().data, p)


def adam_counts_its_steps() -> bool:
    optimizer = mt.Adam(Weights(np.random.default_rng(33)))
    for _ in range(3):
        optimizer.step(0.1)
    return optimizer.t == 3


def uses(node: Any) -> Iterator[mt.Parameter]:
    """Every Parameter that can be reached from `node` by any way, once for each use: not Module's own walk."""
    if isinstance(node, mt.Parameter):
        yield node
    elif isinstance(node, Module):
        for name, child in vars(node).items():
            yield from uses(child) if not name.startswith("_") else ()
    elif isinstance(node, list | tuple | UserList):
        for child in node:
            yield from uses(child)


def every_parameter_is_stepped_once() -> bool:
    """The first step of Adam moves every number by lr, against the sign of its gradient."""
    rng = np.random.default_rng(34)
    model = mt.Transformer(tiny_config(tgt_vocab_size=V_SRC, tie_embeddings=True), dtype="float64")
    optimizer, parameters = mt.Adam(model), list({id(p): p for p in uses(model)}.values())
    before = [p.data.copy() for p in parameters]
    for p in parameters:
        p.grad = rng.choice([-1.0, 1.0], p.shape) * rng.uniform(0.5, 2, p.shape)
    optimizer.step(0.01)
    moved = [(p.data - b, -0.01 * np.sign(p.grad)) for p, b in zip(parameters, before, strict=True)]
    return all(np.allclose(actual, expected, rtol=1e-6, atol=0) for actual, expected in moved)


def pairs(n: int) -> list[Any]:
    """Sentences of very different lengths, the short ones first."""
    rng = np.random.default_rng(35)
    return [(rng.integers(3, 11, 1 + i).tolist(), rng.integers(3, 11, 1 + 2 * i).tolist()) for i in range(n)]


def trained(parts: list[slice], steps: int = 1) -> mt.Transformer:
    """A model with one E after `steps` updates, each from all the parts of a batch."""
    model, *_ = model_and_ids(tgt_vocab_size=V_SRC, tie_embeddings=True)
    optimizer = mt.Adam(model, adam_eps=1e-3)  # large: rounding in a gradient near 0 must not decide a sign
    batches = [batching.make_batch(pairs(5)[part]) for part in parts]
    for _ in range(steps):
        loss_fn = mt.LabelSmoothedCrossEntropy(0.1, PAD)
        trainer.train_step(mt.Replicas(model), loss_fn, optimizer, batches, lr=0.01)
    return model


def accumulation_equals_the_big_batch() -> bool:
    in_parts, at_once = trained([slice(0, 3), slice(3, 5)]), trained([slice(0, 5)])
    return close(in_parts.flatten().data, at_once.flatten().data)


def a_step_knows_nothing_of_the_gradient_before() -> bool:
    model = trained([slice(0, 5)])
    replicas, batch, grads = mt.Replicas(model), batching.make_batch(pairs(5)), []
    for _ in range(2):
        replicas.loss_and_gradients(mt.LabelSmoothedCrossEntropy(0.1, PAD), [batch], [None])
        grads.append(model.flatten().grad.copy())
    return same(*grads)


def tied_weights_stay_one() -> bool:
    model = trained([slice(0, 5)], steps=2)
    E = model.src_embedding.embedding.E.data
    return same(model.tgt_embedding.embedding.E.data, E) and same(model.output.E.data, E)


def targets_are_shifted_by_one() -> bool:
    batch = batching.make_batch(pairs(4))
    following, words = batch.tgt_in[:, 1:], batch.tgt_in[:, 1:] != PAD
    return same(batch.tgt_out[:, :-1][words], following[words]) and bool((batch.tgt_in[:, 0] == BOS).all())


def the_start_is_not_padding() -> bool:
    batch = batching.make_batch(pairs(4))
    return len({PAD, BOS, EOS}) == 3 and np.count_nonzero(batch.tgt_in != PAD) == batch.n_tokens


# ---- the faults, where a line is too short for them


def gamma_outside_the_means(self, dy, cache):
    x_hat, rstd = cache
    self.gamma.grad += (dy * x_hat).sum((0, 1)) if dy.ndim == 3 else (dy * x_hat).sum(0)
    self.beta.grad += dy.sum((0, 1)) if dy.ndim == 3 else dy.sum(0)
    mean, projection = dy.mean(-1, keepdims=True), (dy * x_hat).mean(-1, keepdims=True)
    return self.gamma.data * rstd * (dy - mean - x_hat * projection)


def layer_norm_with(rstd_of):
    def forward(self, x, rng=None):
        centred = x - x.mean(-1, keepdims=True)
        rstd = rstd_of(centred, self.eps)
        return self.gamma.data * centred * rstd + self.beta.data, LayerNormCache(centred * rstd, rstd)

    return forward


def sublayer_normalised_alone(self, x, s, rng=None):  # pre-norm's place of the norm, or nearly
    _, cache = ADD_NORM(self, x, s, rng)
    return x + self.norm.forward(self.dropout.forward(s, rng)[0])[0], cache


def sum_written_into_x(self, x, s, rng=None):
    y, cache = ADD_NORM(self, x, s, rng)
    x += s
    return y, cache


def means_over(axes):
    """normalize_backward, the means over these axes, whatever the forward did."""
    return lambda dx_hat, cache, _: NORMALIZE_BACKWARD(dx_hat, cache, axes)


def without_projection(dx_hat, cache, axes):
    return (dx_hat - dx_hat.mean(axes, keepdims=True)) * cache.rstd


def rms_norm_with_mean(self, dy, cache):  # LayerNorm's backward, which RMSNorm's is not
    dx_hat = dy * self.gamma.data
    self.gamma.grad += (dy * cache.x_hat).reshape(-1, dy.shape[-1]).sum(0)
    return (dx_hat - mean_square(dx_hat) - cache.x_hat * mean_square(dx_hat * cache.x_hat)) * cache.rrms


def rms_norm_gamma_outside(self, dy, cache):
    self.gamma.grad += (dy * cache.x_hat).reshape(-1, dy.shape[-1]).sum(0)
    return self.gamma.data * cache.rrms * (dy - cache.x_hat * mean_square(dy * cache.x_hat))


def running_averages(self, x, rng=None):
    """State on the layer: evaluation takes what the last training forwards have left there."""
    if rng is not None:
        self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * x.mean((0, 1))
    y, cache = BATCH_NORM(self, x, rng)
    return (y if rng is not None else y - getattr(self, "mean", 0.0)), cache


class LastMask(L.Dropout):
    """State on the layer: backward takes the mask of the last forward, whichever that was."""

    def forward(self, x, rng=None):
        y, self.last = super().forward(x, rng)
        return y, self.last

    def backward(self, dy, cache):
        return super().backward(dy, self.last)


def scales_at_evaluation(self, x, rng=None):
    return (x * (1 - self.p), DropoutCache(None)) if rng is None else DROPOUT(self, x, rng)


def drops_at_evaluation(self, x, rng=None):
    return DROPOUT(self, x, rng or np.random.default_rng())


def other_dropout_in_backward(self, dcontext, cache, backward=L.AttentionInBlocks.backward):
    seeds = cache.seeds and tuple(seed + 1 for seed in cache.seeds)
    return backward(self, dcontext, cache._replace(seeds=seeds))


def in_place(self, dy, cache):
    dy *= cache.kept / (1 - self.p)
    return dy


def scales_nowhere(self, x, rng=None):
    y, cache = DROPOUT(self, x, rng)
    return (y if rng is None else y * (1 - self.p)), cache


def on_top_of_the_last(self, *arguments):
    """Gradients that are not zeroed before a step."""
    grad = self.models[0].flatten().grad
    before = grad.copy()
    loss = LOSS_AND_GRADIENTS(self, *arguments)
    grad += before
    return loss


def sinusoids_with(base, interleaved):
    def sinusoids(max_len, d_model):
        angle = np.arange(max_len)[:, None] / base ** (2 * np.arange(d_model // 2) / d_model)
        halves = np.sin(angle), np.cos(angle)
        return np.stack(halves, -1).reshape(max_len, d_model) if interleaved else np.concatenate(halves, -1)

    return sinusoids


def softmax_with(masked):
    def softmax(scores, mask=None):
        scores = scores if mask is None else masked(scores, mask)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    return softmax


def values_from_the_decoder(self, x, memory, tgt_mask=None, src_mask=None, rng=None):
    real = self.cross_attention.forward
    self.cross_attention.forward = lambda query, key, value, *rest: real(query, key, query, *rest)
    try:
        return DECODER_LAYER(self, x, memory, tgt_mask, src_mask, rng)
    finally:
        del self.cross_attention.forward


def cause_or_next(ids):
    return np.tri(ids.shape[1], k=1, dtype=bool)[None, None]


def last_layers_dmemory(self, dy, cache):
    dmemory = None
    for layer, kept in zip(reversed(self.layers), reversed(cache.layers), strict=True):
        dy, dmemory = layer.backward(dy, kept)  # lost: the dmemory of the layers above
    return dy, dmemory


def residual_without_its_gradient(self, dy, cache):
    return np.zeros_like(dy), ADD_NORM_BACKWARD(self, dy, cache)[1]


def dkey_and_dvalue_swapped(self, dy, cache):
    dquery, dkey, dvalue = MULTI_HEAD_BACKWARD(self, dy, cache)
    return dquery, dvalue, dkey


def keeps_the_last_duplicate(target, ids, rows):
    target[ids] += rows


def linear_backward_with(dW=lambda dW: dW, overwrite=False):
    def backward(dy, x, W, b):
        d_in, d_out = W.shape
        gradient = dW(x.reshape(-1, d_in).T @ dy.reshape(-1, d_out))
        W.grad = gradient if overwrite else W.grad + gradient
        if b is not None:
            b.grad += dy.reshape(-1, d_out).sum(0)
        return dy @ W.data.T

    return backward


def smooths_over_v_minus_2(self, logits, tgt_out, n_tokens=None):
    _, cache = LOSS(self, logits, tgt_out, n_tokens)
    words, V = tgt_out != self.pad_id, logits.shape[-1]
    log_p = L.log_softmax(logits)
    q = np.full_like(log_p, self.eps_ls / (V - 2))  # forgotten: q[..., pad_id] = 0
    np.put_along_axis(q, tgt_out[..., None], 1 - self.eps_ls, -1)
    weight = words[..., None] / words.sum()
    return -(q * log_p * weight).sum(), type(cache)((np.exp(log_p) - q) * weight)


def second_moment_with_beta1(self, lr):
    right, self.betas = self.betas, (self.betas[0], self.betas[0])
    ADAM(self, lr)
    self.betas = right


def counts_every_tensor(self, lr):
    ADAM(self, lr)
    self.t += len(self.model.parameters()) - 1


def steps_every_use(self, lr):
    before = {id(p): p.data.copy() for p in uses(self.model)}
    ADAM(self, lr)
    step = {id(p): p.data - before[id(p)] for p in uses(self.model)}
    for p in uses(self.model):
        p.data = before[id(p)]
    for p in uses(self.model):
        p.data += step[id(p)]


def skips_vectors(self, lr):
    skipped = [(p, p.data.copy()) for p in self.model.parameters().values() if len(p.shape) == 1]
    ADAM(self, lr)
    for p, data in skipped:
        p.data = data


class LayersUnseen(models.Encoder):
    """Keeps its layers in a container that the walk over parameters does not open."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.layers = UserList(self.layers)


def steps_after_each_part(replicas, loss_fn, optimizer, batches, lr, clip_norm=None, rngs=None):
    for batch in batches:
        result = TRAIN_STEP(replicas, loss_fn, optimizer, [batch], lr, clip_norm)
    return result


def mean_of_the_means(self, loss_fn, batches, rngs):
    loss, grad = 0.0, 0.0
    for batch, rng in zip(batches, rngs, strict=True):
        loss += LOSS_AND_GRADIENTS(self, loss_fn, [batch], [rng]) / len(batches)
        grad = grad + self.models[0].flatten().grad / len(batches)
    self.models[0].flatten().grad[...] = grad
    return loss


def not_shifted(pairs):
    batch = MAKE_BATCH(pairs)
    return batch._replace(tgt_in=batch.tgt_out)


def linear_with(dW=lambda dW: dW, db=lambda db: db, dx=lambda dx: dx):
    """Linear.backward, with its gradients changed: what the checker itself must not miss."""

    def backward(self, dy, cache):
        result = LINEAR(self, dy, cache)
        self.W.grad = dW(self.W.grad.copy())
        if self.b is not None:
            self.b.grad = db(self.b.grad.copy())
        return dx(result)

    return backward


def one_entry(change):
    def changed(gradient):
        gradient[(1,) * gradient.ndim] = change(gradient[(1,) * gradient.ndim])
        return gradient

    return changed


# the right ones, of which the wrong ones are made
ADD_NORM, ADD_NORM_BACKWARD = L.AddNorm.forward, L.AddNorm.backward
BATCH_NORM, NORMALIZE_BACKWARD = L.BatchNorm.forward, L.other_norms.normalize_backward
DROPOUT, LINEAR, EMBEDDING = L.Dropout.forward, L.Linear.backward, L.Embedding.backward
MULTI_HEAD_BACKWARD, DECODER_LAYER = L.MultiHeadAttention.backward, models.DecoderLayer.forward
LOSS_AND_GRADIENTS = mt.Replicas.loss_and_gradients
LOSS, ADAM, TRAIN_STEP = mt.LabelSmoothedCrossEntropy.forward, mt.Adam.step, mt.train_step
MAKE_BATCH, LOSS_AND_GRADIENTS = batching.make_batch, mt.Replicas.loss_and_gradients


# ---- the table


class Fault(NamedTuple):
    words: str
    place: str  # the attribute of the package that is replaced,
    by: Any  # and its replacement
    caught_by: list[Check]  # each of which must notice


mean_square = partial(np.mean, axis=-1, keepdims=True)

FAULTS = [
    # -- LayerNorm, Add & Norm
    Fault("LayerNorm: gamma outside the two means", "layers.normalization.LayerNorm.backward",
          gamma_outside_the_means, elementwise(L.LayerNorm)),
    Fault("LayerNorm: no eps", "layers.normalization.LayerNorm.forward",
          layer_norm_with(lambda c, eps: 1 / np.sqrt(mean_square(c * c))),
          [layer_norm_of_a_constant_row_is_finite, layer_norm_is_the_formula]),
    Fault("LayerNorm: eps outside the root", "layers.normalization.LayerNorm.forward",
          layer_norm_with(lambda c, eps: 1 / (np.sqrt(mean_square(c * c)) + eps)), [layer_norm_is_the_formula]),
    Fault("LayerNorm: the unbiased deviation", "layers.normalization.LayerNorm.forward",
          layer_norm_with(lambda c, eps: 1 / np.sqrt((c * c).sum(-1, keepdims=True) / (D_MODEL - 1) + eps)),
          [layer_norm_is_the_formula, *elementwise(L.LayerNorm)]),
    # -- the other norms
    Fault("RMSNorm: a backward with the mean", "layers.normalization.RMSNorm.backward",
          rms_norm_with_mean, elementwise(L.RMSNorm)),
    Fault("RMSNorm: gamma outside the mean", "layers.normalization.RMSNorm.backward",
          rms_norm_gamma_outside, elementwise(L.RMSNorm)),
    Fault("BatchNorm: the means of backward over the batch alone", "layers.other_norms.normalize_backward",
          means_over((0,)), elementwise(L.BatchNorm)),
    Fault("BatchNorm: the means of backward over the features", "layers.other_norms.normalize_backward",
          means_over((2,)), elementwise(L.BatchNorm)),
    Fault("InstanceNorm: the means of backward over the batch too", "layers.other_norms.normalize_backward",
          means_over((0, 1)), elementwise(L.InstanceNorm)),
    Fault("GroupNorm: the means of backward over positions alone", "layers.other_norms.normalize_backward",
          means_over((1,)), elementwise(L.GroupNorm)),
    Fault("batch, instance and group norm: the deviation taken for a constant", "layers.other_norms.normalize_backward",
          without_projection, [*elementwise(L.BatchNorm), *elementwise(L.InstanceNorm), *elementwise(L.GroupNorm)]),
    Fault("BatchNorm: running averages written in forward", "layers.other_norms.BatchNorm.forward",
          running_averages, [a_batch_norm_remembers_nothing]),
    Fault("pre-norm code under post-norm text", "layers.add_norm.AddNorm.forward",
          sublayer_normalised_alone, [add_norm_is_the_norm_of_the_sum]),
    Fault("the residual sum written into x", "layers.add_norm.AddNorm.forward",
          sum_written_into_x, [partial(holds, assert_pure, L.AddNorm)]),
    # -- dropout
    Fault("one Dropout object used twice, backward with the last mask", "models.pre_norm.Dropout",
          LastMask, [*every_way(models.PreNormEncoderLayer)[2:],
                     partial(holds, assert_reentrant, models.PreNormEncoderLayer)]),
    Fault("dropout: scales at evaluation too", "layers.dropout.Dropout.forward",
          scales_at_evaluation, [dropout_keeps_the_mean_of_evaluation]),
    Fault("dropout: scales nowhere", "layers.dropout.Dropout.forward",
          scales_nowhere, [dropout_keeps_the_mean_of_evaluation]),
    Fault("dropout: drops at evaluation", "layers.dropout.Dropout.forward",
          drops_at_evaluation, [dropout_is_a_function_of_the_generator]),
    Fault("dropout: draws from the global random state", "layers.dropout.keep_mask",
          lambda rng, p, x: np.random.random(x.shape) >= p,  # noqa: NPY002 (that is the fault)
          [dropout_is_a_function_of_the_generator]),
    Fault("dropout: backward ignores the mask", "layers.dropout.Dropout.backward",
          lambda self, dy, cache: dy, [*elementwise(L.Dropout), *elementwise(L.AddNorm)]),
    Fault("dropout: backward forgets the scale", "layers.dropout.Dropout.backward",
          lambda self, dy, cache: dy * cache.kept, elementwise(L.Dropout)),
    Fault("dropout: backward writes into dy", "layers.dropout.Dropout.backward",
          in_place, [*elementwise(L.AddNorm), partial(holds, assert_pure, L.Dropout)]),
    Fault("activations recomputed with other dropout masks", "models.recompute.snapshot",
          lambda rng: rng, [recomputed_activations_equal_stored_ones]),
    # -- softmax and masks
    Fault("softmax: gradient divided by the batch size", "layers.attention.softmax_backward",
          lambda dw, w: L.softmax_backward(dw, w) / B, elementwise(L.ScaledDotProductAttention)),
    Fault("softmax: gradient without its Jacobian", "layers.attention.softmax_backward",
          lambda dw, w: dw, elementwise(L.ScaledDotProductAttention)),
    Fault("softmax: the Jacobian's diagonal only", "layers.softmax_backward",
          lambda dw, w: dw * w * (1 - w), elementwise(Softmax)),
    Fault("mask of -inf: NaN for a fully masked row", "layers.attention.softmax",
          softmax_with(lambda scores, mask: np.where(mask, scores, -np.inf)), [a_query_without_keys_gets_zeros]),
    Fault("mask of -1e9: a fully masked row attends to all", "layers.attention.softmax",
          softmax_with(lambda scores, mask: np.where(mask, scores, -1e9)), [a_query_without_keys_gets_zeros]),
    Fault("mask of -1e9 added to scores that are larger", "layers.attention.softmax",
          softmax_with(lambda scores, mask: scores + np.where(mask, 0, np.float32(-1e9))),
          [partial(hidden_keys_weigh_nothing, "float32", 1e6)]),
    Fault("mask of -1e9 in a type that cannot hold it", "layers.attention.softmax",
          softmax_with(lambda scores, mask: scores + (1 - mask).astype(scores.dtype) * scores.dtype.type(-1e9)),
          [partial(hidden_keys_weigh_nothing, "float16", 1.0)]),
    Fault("no maximum subtracted, however large the scores", "layers.attention_in_blocks.softmax_without_maximum",
          lambda scores, mask: (softmax_without_maximum(scores, mask)[0], np.False_),
          [partial(blocks_are_the_plain_version, 1e4, 2)]),
    Fault("attention in blocks: one key too few", "layers.attention_in_blocks.n_keys",
          lambda mask, T_k: max(n_keys(mask, T_k) - 1, 1), [partial(blocks_are_the_plain_version, 1.0, 2)]),
    Fault("attention in blocks: other dropout in backward", "layers.AttentionInBlocks.backward",
          other_dropout_in_backward, elementwise(L.AttentionInBlocks)[:1]),  # central differences see it too, in 10 s
    Fault("causal mask one too generous", "models.transformer.causal_mask",
          cause_or_next, [a_later_token_changes_no_earlier_output]),
    Fault("source padding attended to", "models.transformer.padding_mask",
          lambda ids, pad_id: np.ones((len(ids), 1, 1, ids.shape[1]), bool), [more_padding_changes_nothing]),
    # -- attention and the stacks
    Fault("cross-attention with values from the decoder", "models.decoder.DecoderLayer.forward",
          values_from_the_decoder, [a_later_token_changes_no_earlier_output]),
    Fault("attention: dkey and dvalue swapped", "layers.multi_head_attention.MultiHeadAttention.backward",
          dkey_and_dvalue_swapped, elementwise(L.MultiHeadAttention)),
    Fault("a missing term: the residual's gradient", "layers.add_norm.AddNorm.backward",
          residual_without_its_gradient, [*elementwise(L.AddNorm), partial(gradients, models.EncoderLayer)]),
    Fault("a missing term: dmemory of all layers but one", "models.decoder.Decoder.backward",
          last_layers_dmemory, every_way(TWO_LAYERS)[2:]),
    Fault("ReLU: backward ignores the sign", "layers.activations.ReLU.backward",
          lambda self, dy, cache: dy, [*elementwise(L.ReLU), *elementwise(L.FeedForward)]),
    # -- embeddings and positions
    Fault("embedding: gradient drops duplicate ids", "layers.embedding.add_rows",
          keeps_the_last_duplicate, elementwise(L.Embedding)),
    Fault("tied weights: the embedding overwrites the projection's gradient", "layers.embedding.Embedding.backward",
          lambda self, dy, cache: (self.E.grad.fill(0), EMBEDDING(self, dy, cache))[1], elementwise(TiedEmbedding)),
    Fault("tied weights: not tied at all", "models.transformer.OutputProjection",
          lambda *args, E=None, **kwargs: L.OutputProjection(*args, **kwargs), [tied_weights_stay_one]),
    Fault("positions: base 100000", "layers.positional_encoding.sinusoids",
          sinusoids_with(100000, interleaved=True), [positions_are_the_formula]),
    Fault("positions: sin and cos halves side by side", "layers.positional_encoding.sinusoids",
          sinusoids_with(10000, interleaved=False), [positions_are_the_formula]),
    Fault("positions: each decoded token is the first", "layers.positional_encoding.FixedPositions.forward",
          lambda self, x, rng=None, at=0: (x + self.PE.data[: x.shape[1]], None),
          [a_step_at_a_time_equals_the_whole]),
    # -- the loss
    Fault("mean over the batch applied twice: in the loss", "training.loss.LabelSmoothedCrossEntropy.backward",
          lambda self, cache: cache.dlogits / len(cache.dlogits),
          [*elementwise(Loss), partial(gradients, TransformerWithLoss, "complex", True)]),
    Fault("mean over the batch applied twice: in the weights", "layers.linear.linear_backward",
          linear_backward_with(dW=lambda dW: dW / B), elementwise(L.Linear)),
    Fault("mean over B where the loss averages B·T", "training.loss.LabelSmoothedCrossEntropy.backward",
          lambda self, cache: cache.dlogits * cache.dlogits.any(-1).sum() / len(cache.dlogits), elementwise(Loss)),
    Fault("loss averaged over padding", "training.loss.LabelSmoothedCrossEntropy.forward",
          lambda self, logits, tgt_out, n_tokens=None: LOSS(self, logits, tgt_out, tgt_out.size),
          [loss_is_the_formula, loss_and_gradient_ignore_padding]),
    Fault("label smoothing over V - 2 that forgets pad", "training.loss.LabelSmoothedCrossEntropy.forward",
          smooths_over_v_minus_2, elementwise(Loss)),
    # -- the optimiser
    Fault("Adam: the second moment with beta1", "training.optimizer.Adam.step",
          second_moment_with_beta1, [adam_is_the_textbooks]),
    Fault("Adam: counts a step for every tensor", "training.optimizer.Adam.step",
          counts_every_tensor, [adam_counts_its_steps, adam_is_the_textbooks]),
    Fault("tied weights stepped once for each use", "training.optimizer.Adam.step",
          steps_every_use, [every_parameter_is_stepped_once]),
    Fault("optimiser skips biases, gamma and beta", "training.optimizer.Adam.step",
          skips_vectors, [every_parameter_is_stepped_once, adam_is_the_textbooks]),
    Fault("optimiser skips the layers of a stack", "models.transformer.Encoder",
          LayersUnseen, [every_parameter_is_stepped_once]),
    # -- the training loop and its batches
    Fault("accumulation steps after the first micro-batch", "runs.trainer.train_step",
          steps_after_each_part, [accumulation_equals_the_big_batch]),
    Fault("accumulation takes the mean of the means", "parallel.replicas.Replicas.loss_and_gradients",
          mean_of_the_means, [accumulation_equals_the_big_batch]),
    Fault("gradients overwritten, not added", "layers.linear.linear_backward",
          linear_backward_with(overwrite=True), [partial(holds, assert_accumulates, L.Linear)]),
    Fault("gradients not zeroed before a step", "parallel.replicas.Replicas.loss_and_gradients",
          on_top_of_the_last, [a_step_knows_nothing_of_the_gradient_before]),
    Fault("targets not shifted", "training.batching.make_batch", not_shifted, [targets_are_shifted_by_one]),
    Fault("start symbol equal to pad", "training.batching.BOS",
          PAD, [the_start_is_not_padding, targets_are_shifted_by_one]),
    Fault("a negative id wraps around", "validation.layers.extremes",
          lambda ids: (0, int(ids.max())), [a_negative_id_is_refused]),
    # -- float64 constants that silently upcast float32
    Fault("float64: np.sqrt(d_k)", "layers.attention.math",
          SimpleNamespace(sqrt=np.sqrt), [partial(float32_stays_float32, L.ScaledDotProductAttention)]),
    Fault("float64: a table of positions", "layers.positional_encoding.Constant",
          lambda exact, dtype: Constant(exact, "float64"), [partial(float32_stays_float32, models.Transformer)]),
    Fault("float64: a dropout mask", "layers.dropout.keep_mask",
          lambda rng, p, x: (rng.random(x.shape) >= p) * 1.0, [partial(float32_stays_float32, L.Dropout)]),
    # -- the gradient checker's own: no wrong gradient is too wrong, or too little wrong, for it
    *(
        Fault(f"a gradient {words}", "layers.linear.Linear.backward", by, every_way(SQUARE))
        for words, by in (
            ("with one NaN", linear_with(dW=one_entry(lambda g: math.nan))),
            ("with one inf", linear_with(dW=one_entry(lambda g: math.inf))),
            ("all NaN, of an input", linear_with(dx=lambda dx: dx * math.nan)),
            ("all zeros", linear_with(dW=np.zeros_like)),
            ("all zeros, of an input", linear_with(dx=np.zeros_like)),
            ("all zeros, wherever one looks", linear_with(np.zeros_like, np.zeros_like, np.zeros_like)),
            ("transposed", linear_with(dW=np.transpose)),
            ("a factor B too small", linear_with(dW=lambda dW: dW / B)),
            ("a factor B too large", linear_with(dW=lambda dW: dW * B)),
            ("a factor T too small", linear_with(dW=lambda dW: dW / T_Q)),
            ("a factor T too large, of a bias", linear_with(db=lambda db: db * T_Q)),
            ("of the wrong sign", linear_with(dW=np.negative)),
            ("of the wrong sign throughout", linear_with(np.negative, np.negative, np.negative)),
            ("of a bias forgotten", linear_with(db=np.zeros_like)),
            ("with one term missing", linear_with(dx=one_entry(lambda g: 0.0))),
            ("of which one entry in 64 is off by 1e-4", linear_with(dW=one_entry(lambda g: g * 1.0001))),
        )
    ),
]  # fmt: skip


# The replacements above with the right numbers in them: what the checks notice is the fault, not the replacing.
RIGHT = [
    Fault("LayerNorm", "layers.normalization.LayerNorm.forward",
          layer_norm_with(lambda c, eps: 1 / np.sqrt(mean_square(c * c) + eps)),
          [layer_norm_of_a_constant_row_is_finite, layer_norm_is_the_formula, *elementwise(L.LayerNorm)]),
    Fault("one Dropout used twice, caches explicit", "models.pre_norm.Dropout",
          L.Dropout, [partial(gradients, models.PreNormEncoderLayer),
                      partial(holds, assert_reentrant, models.PreNormEncoderLayer)]),
    Fault("dropout's mask", "layers.dropout.keep_mask",
          lambda rng, p, x: rng.random(x.shape) >= p,
          [dropout_keeps_the_mean_of_evaluation, dropout_is_a_function_of_the_generator,
           partial(float32_stays_float32, L.Dropout)]),
    Fault("attention in blocks", "layers.attention_in_blocks.n_keys",
          n_keys, [partial(blocks_are_the_plain_version, size, rows) for size in (1.0, 1e4) for rows in (2, 999)]),
    Fault("softmax, where no row is fully masked", "layers.attention.softmax",
          softmax_with(lambda scores, mask: np.where(mask, scores, -np.inf)),
          [partial(hidden_keys_weigh_nothing, "float32", 1e6), partial(hidden_keys_weigh_nothing, "float16", 1.0)]),
    Fault("positions", "layers.positional_encoding.sinusoids",
          sinusoids_with(10000, interleaved=True), [positions_are_the_formula]),
    Fault("the linear map's backward", "layers.linear.linear_backward",
          linear_backward_with(), [*elementwise(L.Linear), partial(holds, assert_accumulates, L.Linear)]),
    Fault("Linear.backward", "layers.linear.Linear.backward", linear_with(), every_way(SQUARE)),
    Fault("float64: math.sqrt(d_k)", "layers.attention.math",
          SimpleNamespace(sqrt=math.sqrt), [partial(float32_stays_float32, L.ScaledDotProductAttention)]),
]  # fmt: skip


def name_of(check: Check) -> str:
    if not isinstance(check, partial):
        return check.__name__
    what = ["case" if isinstance(a, list) else getattr(a, "__name__", str(a)) for a in check.args]
    return f"{check.func.__name__}({', '.join(what)})"


def each_check(table: list[Fault]) -> list[Any]:
    return [
        pytest.param(fault, check, id=f"{fault.words} -> {name_of(check)}")
        for fault in table
        for check in fault.caught_by
    ]


@pytest.mark.parametrize(("fault", "check"), each_check(FAULTS))
def test_a_planted_fault_is_caught(fault: Fault, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(), f"the healthy package fails {name_of(check)}"
    monkeypatch.setattr(f"minitransformer.{fault.place}", fault.by)
    with np.errstate(all="ignore"):  # a fault that gives NaN must be noticed by the check, not by a warning
        noticed = not check()
    assert noticed, f"{name_of(check)} does not notice: {fault.words}"


@pytest.mark.parametrize(("right", "check"), each_check(RIGHT))
def test_a_replacement_that_is_right_is_not(
    right: Fault, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"minitransformer.{right.place}", right.by)
    assert check()


def test_every_fault_is_named_once_and_caught_by_something() -> None:
    assert len({fault.words for fault in FAULTS}) == len(FAULTS)
    assert all(fault.caught_by for fault in FAULTS)
