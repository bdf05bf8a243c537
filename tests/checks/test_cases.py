"""Every backward pass against numerical derivatives of its forward pass, at any size, and no Module without a check.

The cases (minitransformer/checks) have random parameters, masks with a row that may attend to nothing, ids that
repeat, frozen dropout masks and a random upstream gradient. Each is checked by two independent methods.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import SIZES, T_K, T_Q, B, H, randomise

import minitransformer as mt
from minitransformer import checks, layers
from minitransformer.checks import CASES, Case, Sizes
from minitransformer.checks.run import METHODS
from minitransformer.checks.wrapped import PlacedAttention, TransformerWithLoss
from minitransformer.models.one_stack import OneStack
from minitransformer.module import Module

SEEDS = st.integers(0, 2**32 - 1)
ALL = [pytest.param(case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)]
# Each number of a check by itself takes a forward pass or more: in the quick profile, small examples only.
MOST_ELEMENTS = 400 if settings.default.max_examples <= 10 else 800


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Another prime for each axis, from 2 up; d_model is even, for the sinusoids.

    (And not 4: one draw in some thousands then magnifies rounding to 1e-12, in the plain attention, too.)
    """
    B, T_q, T_k, h, d_k, d_v, d_ff = draw(st.permutations((2, 3, 5, 7, 11, 13, 17)))
    V_src, V_tgt = draw(st.permutations((19, 23)))
    return Sizes(B, T_q, T_k, h, d_k, d_v, draw(st.sampled_from((6, 8, 10, 12))), d_ff, V_src, V_tgt)


def checked(case: Case, sizes: Sizes, seed: int, method: str) -> mt.GradcheckReport:
    rng = np.random.default_rng(seed)
    layer, inputs = case(sizes, rng)
    n = layer.n_parameters() + sum(x.size for x in inputs if x.dtype == float)
    how: dict[str, Any] = {"directional": n > MOST_ELEMENTS, "dropout_seed": seed, "seed": seed + 1}
    return mt.gradcheck(randomise(layer, rng), *inputs, method=method, **how)


@pytest.mark.parametrize("case", ALL)
@given(sizes=sizes(), seed=SEEDS)
def test_complex_steps_agree_to_twelve_digits(case: Case, sizes: Sizes, seed: int) -> None:
    report = checked(case, sizes, seed, "complex")
    assert report.ok and report.tolerance == 1e-12, report


@pytest.mark.parametrize("case", ALL)
@settings(max_examples=max(5, settings.default.max_examples // 2))
@given(sizes=sizes(), seed=SEEDS)
def test_central_differences_agree_to_eight_digits(case: Case, sizes: Sizes, seed: int) -> None:
    report = checked(case, sizes, seed, "central")
    assert report.ok and report.tolerance == 1e-8, report


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("tie", [True, "source_target", "target_output", False])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@given(sizes=sizes(), seed=SEEDS)
@settings(max_examples=max(2, settings.default.max_examples // 5))
def test_every_kind_of_model_from_ids_to_loss(
    norm: str, tie: object, positions: str, sizes: Sizes, seed: int
) -> None:
    if tie in (True, "source_target"):
        sizes = sizes._replace(V_tgt=sizes.V_src)
    config = checks.tiny_config(
        sizes, norm=norm, tie_embeddings=tie, positions=positions, attention_bias=True
    )

    def case(sizes: Sizes, rng: np.random.Generator) -> tuple[Module, tuple[Any, ...]]:
        return TransformerWithLoss(config, rng), checks.inputs.sentences_and_targets(sizes, rng)

    for method in METHODS:
        report = checked(case, sizes, seed, method)
        assert report.ok, report


def test_a_whole_model_number_by_number_with_central_differences() -> None:
    config = checks.tiny_config(SIZES, n_layers=1, d_model=4, d_k=2, d_v=5, d_ff=6)
    rng = np.random.default_rng(1)
    model = randomise(TransformerWithLoss(config, rng), rng)
    ids = checks.inputs.sentences_and_targets(SIZES, rng)
    report = mt.gradcheck(model, *ids, dropout_seed=2, directional=False)
    assert report.ok and len(report.rows) == len(model.parameters()), report


CAUSAL = np.tri(T_Q, T_K, dtype=bool)[None, None]
PADDING = (np.arange(T_K) < np.array([T_K, 3])[:, None])[:, None, None]
EMPTY_ROW = np.ones((B, H, T_Q, T_K), bool)
EMPTY_ROW[1, 2, 3] = False


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(
    "mask",
    [None, CAUSAL, PADDING, CAUSAL & PADDING, EMPTY_ROW, np.zeros((1, 1, 1, T_K), bool), CAUSAL[0, 0]],
    ids=["none", "causal", "padding", "both", "a row with no key", "no key at all", "without a batch"],
)
def test_attention_under_every_mask(mask: np.ndarray | None, dropout: float, method: str) -> None:
    rng = np.random.default_rng(3)
    Q, K, V = checks.inputs.heads(SIZES, rng)
    attention = layers.ScaledDotProductAttention(dropout)
    report = mt.gradcheck(attention, Q, K, V, mask, method=method, dropout_seed=4)
    assert report.ok, report
    multi_head = randomise(layers.MultiHeadAttention(SIZES.d_model, H, SIZES.d_k, SIZES.d_v, dropout), rng)
    query, key, value, _ = checks.inputs.cross(SIZES, rng)
    report = mt.gradcheck(multi_head, query, key, value, mask, method=method, dropout_seed=4)
    assert report.ok, report


@pytest.mark.parametrize("case", ALL)
@given(seed=SEEDS)
@example(seed=2803)  # of case 3 of TransformerWithLoss: its gradient is 300 times as sensitive as its output
@settings(max_examples=max(2, settings.default.max_examples // 5))
def test_float32_computes_what_float64_does(case: Case, seed: int) -> None:
    """What training uses: forward and backward in half the digits, relative to the largest number.

    Some random models magnify rounding a thousandfold on its way through all their layers. So both backwards start from
    the cache of the forward in float32, and of forwards, those of single layers are compared.
    """
    rng = np.random.default_rng(seed)
    layer, inputs = case(SIZES, rng)
    randomise(layer, rng).to(dtype="float32")
    inputs = as_dtype(inputs, "float32")
    y, cache = layer.forward(*inputs, rng=np.random.default_rng(seed + 1))
    dy = rng.normal(size=np.shape(y)).astype("float32")
    single = gradients(layer, dy, cache)
    layer.to(dtype="float64")
    double = gradients(layer, *as_dtype((dy, cache), "float64"))
    assert y.dtype == single.dtype == "float32" and double.dtype == "float64"
    assert abs(single - double).max() <= 1e-4 * abs(double).max()
    if type(layer).__module__.startswith("minitransformer.layers."):
        expected, _ = layer.forward(*as_dtype(inputs, "float64"), rng=np.random.default_rng(seed + 1))
        assert abs(y - expected).max() <= 1e-5 * abs(expected).max()


def as_dtype(tree: Any, dtype: str) -> Any:
    """Caches, tuples and lists with the floating-point arrays in them in another type."""
    if isinstance(tree, tuple | list):
        nodes = [as_dtype(node, dtype) for node in tree]
        return type(tree)(*nodes) if hasattr(tree, "_fields") else type(tree)(nodes)
    return tree.astype(dtype) if getattr(tree, "dtype", np.dtype(bool)).kind == "f" else tree


def gradients(layer: Module, dy: np.ndarray, cache: Any) -> np.ndarray:
    """All that backward finds, end to end."""
    layer.zero_grad()
    dx = layer.backward(dy, cache)
    dxs = [] if dx is None else list(dx) if isinstance(dx, tuple) else [dx]
    return np.concatenate([g.ravel() for g in [*dxs, *(p.grad for p in layer.parameters().values())]])


def test_the_checker_sees_one_part_in_a_thousand_in_one_parameter_of_the_model() -> None:
    class Sabotaged(TransformerWithLoss):
        def backward(self, dy, cache):
            super().backward(dy, cache)
            self.model.encoder.layers[0].self_attention.W_K.grad *= 1.001

    rng = np.random.default_rng(5)
    config = checks.tiny_config(SIZES, n_layers=1, d_model=4, d_k=2, d_v=5, d_ff=6)
    model = randomise(Sabotaged(config, rng), rng)
    ids = checks.inputs.sentences_and_targets(SIZES, rng)
    report = mt.gradcheck(model, *ids, dropout_seed=1, method="complex", directional=False)
    assert [row.name for row in report.wrong] == ["model.encoder.layers.0.self_attention.W_K"]
    for method in METHODS:
        assert not mt.gradcheck(model, *ids, dropout_seed=1, method=method, directional=True).ok


# ---- completeness


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def checked_classes() -> set[type]:
    """The classes that the cases build, and the one that a wrapper passes everything on to."""
    rng = np.random.default_rng(0)
    built = [case(SIZES, rng)[0] for cases in CASES.values() for case in cases]
    return {type(layer) for layer in [*built, *(x.rotary for x in built if isinstance(x, PlacedAttention))]}


def test_every_module_has_a_gradient_check() -> None:
    ours = {cls for cls in subclasses(Module) if cls.__module__.startswith("minitransformer")}
    # bench makes classes while it measures, which live until they are collected
    ours = {cls for cls in ours if cls.__module__ != "minitransformer.bench"}
    assert ours - {Module, OneStack} == checked_classes()  # OneStack has no forward of its own
    assert all(CASES.values())


def test_whatever_else_has_a_backward_has_one_too() -> None:
    """Classes that are no Module, and functions called …_backward: part of a layer, or wrapped as one."""
    found = set()
    for info in pkgutil.walk_packages(mt.__path__, "minitransformer."):
        if info.name.startswith(
            (
                "minitransformer.figures",
                "minitransformer.__main__",
                "minitransformer.kernels",
                "minitransformer.gradcheck",
            )
        ):
            continue  # matplotlib, which is optional; the command; what tests/device compares with the formulas
        for name, thing in vars(importlib.import_module(info.name)).items():
            if getattr(thing, "__module__", "") != info.name:
                continue
            is_class = inspect.isclass(thing) and hasattr(thing, "backward") and not issubclass(thing, Module)
            if is_class or (inspect.isfunction(thing) and name.endswith("_backward")):
                found.add(name)
    assert found == {
        "softmax_backward",
        "linear_backward",
        "layer_norm_backward",
        "normalize_backward",
        "LabelSmoothedCrossEntropy",
    }
    assert {"softmax", "Linear", "LayerNorm", "BatchNorm", "GroupNorm", "LabelSmoothedCrossEntropy"} <= set(
        CASES
    )
