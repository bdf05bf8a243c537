"""The ten exercises, and the graders that test the reader's files.

A grader takes the module of a reader's file, and raises Wrong at the first thing that is not right. Values are compared
with this package's own layer or with the formula, gradients with numerical derivatives, on inputs on which a wrong
formula shows (see checks/inputs.py): random dy, random parameters, no two axes of one size, ids that repeat, padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minitransformer.backend import Array, array_module, generator, to_host
from minitransformer.checks import Sizes, inputs, random_ids, random_mask
from minitransformer.errors import describe
from minitransformer.gradcheck import gradcheck
from minitransformer.layers import (
    Embedding,
    LayerNorm,
    Linear,
    ScaledDotProductAttention,
    SinusoidalPositions,
)
from minitransformer.memory import converted
from minitransformer.parameter import parameters_of
from minitransformer.training import Adam, LabelSmoothedCrossEntropy

SIZES = Sizes()
B, T_Q, T_K, *_ = SIZES
D_MODEL, V = SIZES.d_model, SIZES.V_src
TOLERANCE = 1e-9  # of values, relative to the larger of the two, or to 1 % of the largest expected
P = 0.25  # of dropout
SURE = 5  # by how many standard deviations a share of random draws may be off


class Wrong(Exception):
    """Something is wrong in a reader's file: a description, and a number that shows it, if there is one."""

    def __init__(self, found: str, where: str = "", expected: Any = None, got: Any = None) -> None:
        super().__init__(found)
        self.found, self.where, self.expected, self.got = found, where, expected, got


def right_values(what: str, name: str, got: Any, expected: Array) -> None:
    """Raise Wrong, showing the worst entry, unless `got` holds the numbers of `expected`."""
    xp = array_module(expected)
    expected = xp.asarray(expected)
    got = xp.asarray(got) if isinstance(got, int | float) else got
    if getattr(got, "shape", None) != expected.shape:
        raise Wrong(f"{name}: expected an array of shape {expected.shape}, got {describe(got)}")
    size = xp.maximum(xp.maximum(abs(expected), abs(got)), 0.01 * abs(expected).max() or 1.0)
    error = abs(got - expected) / size
    error = xp.where(xp.isfinite(error), error, xp.inf)
    n_wrong = int((error > TOLERANCE).sum())
    if n_wrong:
        index = tuple(int(i) for i in xp.unravel_index(int(error.argmax()), error.shape))
        found = f"{what} ({n_wrong} of {error.size} numbers are wrong)" if error.size > 1 else what
        where = f"{name}{list(index)}" if index else name
        raise Wrong(found, where, to_host(expected[index]).item(), to_host(got[index]).item())


def right_gradients(layer: Any, *inputs: Any, dropout_seed: int | None = None) -> None:
    """Raise Wrong, showing the worst entry, unless backward is the derivative of forward."""
    report = gradcheck(layer, *inputs, dropout_seed=dropout_seed)
    if report.wrong:
        worst = max(report.wrong, key=lambda row: row.relative_error)
        where = f"d{worst.name}{list(worst.index)}"
        names = ", ".join(row.name for row in report.wrong)
        found = f"backward is not the derivative of forward: wrong for {names}"
        raise Wrong(found, where, worst.numeric, worst.analytic)
    if report.undecided:
        raise Wrong(f"no gradient of {report.undecided[0].name}: {report.undecided[0].hint}")
    if report.broken:
        raise Wrong(f"the contract of a layer is not kept: {report.broken[0]}")


def right_share(what: str, got: float, expected: float, n: int) -> None:
    """Raise Wrong unless the share `got` of n random draws is the expected one, as far as n draws can tell."""
    if not abs(got - expected) <= SURE * math.sqrt(expected * (1 - expected) / n):
        raise Wrong(what, "share", round(expected, 4), round(got, 4))


def with_parameters(layer: Any, rng: Any, *names: str) -> Any:
    """A copy of the layer in float64, all parameters random. Raises Wrong unless `names` are their names."""
    layer = converted(layer, "float64")
    parameters = parameters_of(layer)
    if sorted(parameters) != sorted(names):
        raise Wrong(f"expected the parameters {', '.join(names)}, got {', '.join(parameters) or 'none'}")
    for name in names:
        parameters[name].data = rng.normal(size=parameters[name].shape)
    return layer


# ---- the graders


def positions(file: Any) -> None:
    """Grade the positions: sines and cosines alternate, at any length and width."""
    rng = generator(1)
    for d_model, max_len, T in ((D_MODEL, 19, T_Q), (6, 11, 11)):
        x = rng.normal(size=(B, T, d_model))
        layer = file.SinusoidalPositions(max_len, d_model)
        expected, _ = SinusoidalPositions(max_len, d_model, dtype="float64").forward(x)
        right_values("y is not x + PE", "y", layer.forward(x)[0], expected)
        right_gradients(layer, x)


def embedding(file: Any) -> None:
    """Grade the embedding: rows of E, and for each word the sum of the gradients of all its places."""
    rng = generator(2)
    layer, ours = file.Embedding(V, D_MODEL), Embedding(V, D_MODEL, dtype="float64")
    layer = with_parameters(layer, rng, "E")
    ours.E.data = layer.E.data
    ids = random_ids(rng, B, T_K, V)
    right_values("y is not E[ids] · sqrt(d_model)", "y", layer.forward(ids)[0], ours.forward(ids)[0])
    right_gradients(layer, ids)


def dropout(file: Any) -> None:
    """Grade dropout: no effect at evaluation, zeros and scaled numbers in training, a backward that fits both."""
    rng = generator(3)
    x = inputs.away_from_zero(SIZES, rng)
    layer = file.Dropout(P)
    right_values("at evaluation (rng=None) y is not x", "y", layer.forward(x)[0], x)
    many = rng.uniform(1, 2, (97, 211))
    y, _ = layer.forward(many, rng)
    right_share("in training, the share of zeros is not p", float((y == 0).mean()), P, many.size)
    expected = array_module(y).where(y == 0, 0, many / (1 - P))
    right_values("in training, what is kept is not x / (1 - p)", "y", y, expected)
    right_gradients(layer, x)
    right_gradients(layer, x, dropout_seed=3)
    right_values("with p = 0, y is not x", "y", file.Dropout(0.0).forward(x, rng)[0], x)


def residual_dropout(file: Any) -> None:
    """Grade two dropouts: they drop independently, and backward knows what each of them dropped."""
    rng = generator(4)
    layer = with_parameters(file.TwoSublayers(D_MODEL, P), rng, "linear_1.W", "linear_2.W")
    x = inputs.positions(SIZES, rng)
    W_1, W_2 = (p.data for p in parameters_of(layer).values())
    h = x + x @ W_1
    right_values("without dropout, y is not h + h W_2", "y", layer.forward(x)[0], h + h @ W_2)
    right_gradients(layer, x, dropout_seed=4)
    # With x = 1, W_1 = I, W_2 = 2 I, each of the four ways to drop or keep gives another y.
    xp, s = array_module(x), 1 / (1 - P)
    W_1[...], W_2[...] = xp.eye(D_MODEL), 2 * xp.eye(D_MODEL)
    y, _ = layer.forward(xp.ones((97, 211, D_MODEL)), rng)
    kept = {
        "both dropouts": (1 + s) * (1 + 2 * s),
        "only the first dropout": 1 + s,
        "only the second dropout": 1 + 2 * s,
        "neither of the dropouts": 1.0,
    }
    for kept_by, value in kept.items():
        share = float((abs(y - value) < 1e-6).mean())
        n_kept = {"both": 2, "only": 1, "neither": 0}[kept_by.split()[0]]
        expected = (1 - P) ** n_kept * P ** (2 - n_kept)
        right_share(f"the share of numbers that {kept_by} kept is wrong", share, expected, y.size)


def layer_norm(file: Any) -> None:
    """Grade LayerNorm: values and gradients with a gamma that is not 1, and a row of equal numbers."""
    rng = generator(5)
    for eps, x in ((1e-5, inputs.positions(SIZES, rng)), (0.5, inputs.rows(SIZES, rng))):
        layer, ours = file.LayerNorm(D_MODEL, eps), LayerNorm(D_MODEL, eps, dtype="float64")
        layer = with_parameters(layer, rng, "gamma", "beta")
        ours.gamma.data, ours.beta.data = layer.gamma.data, layer.beta.data
        right_values("y is not gamma · x_hat + beta", "y", layer.forward(x)[0], ours.forward(x)[0])
        right_gradients(layer, x)
    x[1] = 4.0
    (y, cache), (expected, our_cache) = layer.forward(x), ours.forward(x)
    right_values("y of a row of equal numbers is wrong", "y", y, expected)
    dy = rng.normal(size=y.shape)
    dx, expected = layer.backward(dy, cache), ours.backward(dy, our_cache)
    right_values("dx of a row of equal numbers is wrong", "dx", dx, expected)


def heads(rng: Any) -> tuple[Array, Array, Array]:
    """Q, K, V of one head."""
    Q, K, V = inputs.heads(SIZES, rng)
    return Q[:, 0], K[:, 0], V[:, 0]


def context_of(Q: Array, K: Array, V: Array, mask: Array | None = None) -> Array:
    """Equation 1 by this package's own layer, for one head."""
    four_axes = [None if x is None else x[:, None] for x in (Q, K, V, mask)]
    return ScaledDotProductAttention().forward(*four_axes)[0][:, 0]


def attention(file: Any) -> None:
    """Grade attention: equation 1 and its gradients."""
    Q, K, V = heads(generator(6))
    layer = file.Attention()
    right_values("context is not equation 1", "context", layer.forward(Q, K, V)[0], context_of(Q, K, V))
    right_gradients(layer, Q, K, V)


def masking(file: Any) -> None:
    """Grade masked attention: equation 1 under a mask with a row of False, for small and for large scores."""
    rng = generator(7)
    Q, K, V = heads(rng)
    layer = file.MaskedAttention()
    mask = random_mask(rng, B, T_Q, T_K)
    for size in (1.0, 1e6):
        context = layer.forward(size * Q, K, V, mask)[0]
        right_values("context is wrong", "context", context, context_of(size * Q, K, V, mask))
    right_gradients(layer, Q, K, V, mask)


def cross_attention(file: Any) -> None:
    """Grade cross-attention: keys and values come from the encoder, and the lengths may differ."""
    rng = generator(8)
    layer = with_parameters(file.CrossAttention(D_MODEL), rng, "W_Q.W", "W_K.W", "W_V.W")
    x, memory = rng.normal(size=(2, B, T_Q, D_MODEL))
    later = x.copy()
    later[:, -1] += 1
    (y, _), (changed, _) = layer.forward(x, memory), layer.forward(later, memory)
    right_values("an early y changes when the last x does", "y", changed[:, :-1], y[:, :-1])
    right_gradients(layer, x, memory)
    x, memory = rng.normal(size=(B, T_Q, D_MODEL)), inputs.memory(SIZES, rng)
    W_Q, W_K, W_V = (parameters_of(layer)[name].data for name in ("W_Q.W", "W_K.W", "W_V.W"))
    expected = context_of(x @ W_Q, memory @ W_K, memory @ W_V)
    right_values("y is not the formula's", "y", layer.forward(x, memory)[0], expected)
    right_gradients(layer, x, memory)


def loss(file: Any) -> None:
    """Grade the loss: its value and gradient, with and without label smoothing, for two ids of padding."""
    rng = generator(9)
    for eps_ls in (0.1, 0.0):
        for pad_id in (0, 3):
            logits = 3 * rng.normal(size=(B, T_Q, V))
            tgt_out = random_ids(rng, B, T_Q, V, pad_id)
            theirs = file.LabelSmoothedCrossEntropy(eps_ls, pad_id)
            ours = LabelSmoothedCrossEntropy(eps_ls, pad_id)
            got, cache = theirs.forward(logits, tgt_out)
            expected, our_cache = ours.forward(logits, tgt_out)
            right_values(f"the loss is wrong (eps_ls {eps_ls}, with padding)", "loss", got, expected)
            dlogits = ours.backward(our_cache)
            right_values("the gradient of the logits is wrong", "dlogits", theirs.backward(cache), dlogits)


def adam(file: Any) -> None:
    """Grade Adam: five steps with gradients that change, for two pairs of betas."""
    rng = generator(10)
    for betas in ((0.9, 0.98), (0.5, 0.9)):
        models = [Linear(3, 5, rng=0, dtype="float64") for _ in range(2)]
        optimizers = file.Adam(models[0], betas, 1e-6), Adam(models[1], betas, 1e-6)
        for t in range(1, 6):
            gradients = [rng.normal(size=p.shape) for p in models[0].parameters().values()]
            for model, optimizer in zip(models, optimizers, strict=True):
                for p, g in zip(model.parameters().values(), gradients, strict=True):
                    p.grad = g
                optimizer.step(0.1 / t)
            for name in ("W", "b"):
                got, expected = (model.parameters()[name].data for model in models)
                right_values(f"{name} is wrong after step {t}, betas {betas}", name, got, expected)


class Exercise(NamedTuple):
    """One of the ten exercises: its grader, and a hint where to look."""

    grade: Callable[[Any], None]
    hint: str


EXERCISES: Mapping[str, Exercise] = {
    "positions": Exercise(positions, "print PE for d_model=4 and write the formula's first row beside it"),
    "embedding": Exercise(embedding, "compare the gradient of a word that occurs once with that of a frequent one"),
    "dropout": Exercise(dropout, "what is the mean of y over many draws of the zeros? And at evaluation?"),
    "residual_dropout": Exercise(residual_dropout, "follow one number from the draw of its zero to the backward pass"),
    "layer_norm": Exercise(layer_norm, "derive dx with gamma in it; for which gamma do both formulas agree?"),
    "attention": Exercise(attention, "each weight depends on which scores? Count the derivatives"),
    "masking": Exercise(masking, "what is the maximum of a row without keys, and what is exp of what is left?"),
    "cross_attention": Exercise(cross_attention, "figure 1: which arrows lead from the encoder into the decoder?"),
    "loss": Exercise(loss, "add padding to a batch by hand: what should happen to the loss, and what does?"),
    "adam": Exercise(adam, "do step 1 by hand for a single number, from its gradient to m_hat and v_hat"),
}  # fmt: skip
