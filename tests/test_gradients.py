"""Every backward pass against numerical derivatives of its forward pass, and no Module without such a check."""

from __future__ import annotations

import numpy as np
import pytest
from gradient_cases import CASES, Case, ModelWithLoss, with_targets
from hypothesis import given, settings
from hypothesis import strategies as st
from support import randomise

import minitransformer as mt
from minitransformer.module import Module

ALL = [
    pytest.param(case, id=f"{cls.__name__}-{i}")
    for cls, cases in CASES.items()
    for i, case in enumerate(cases)
]
SMALL = [p for p in ALL if not p.id.startswith(("Transformer", "ModelWithLoss", "Encoder-", "Decoder-"))]


def check(case: Case, seed: int, **how: object) -> mt.GradcheckReport:
    rng = np.random.default_rng(seed)
    layer, inputs = case(rng)
    return mt.gradcheck(randomise(layer, rng), *inputs, dropout_seed=seed, seed=seed + 1, **how)


@pytest.mark.parametrize("case", SMALL)
@given(seed=st.integers(0, 2**32))
def test_complex_step_agrees_to_the_last_digits(case: Case, seed: int) -> None:
    report = check(case, seed, method="complex", tolerance=1e-11)
    assert report.ok, report


@pytest.mark.parametrize("case", SMALL)
@settings(
    max_examples=max(2, settings.default.max_examples // 5)
)  # each takes four forwards for every number
@given(seed=st.integers(0, 2**32))
def test_central_differences_agree(case: Case, seed: int) -> None:
    report = check(case, seed, method="central", tolerance=1e-7)
    assert report.ok, report


@pytest.mark.parametrize("case", ALL)
@given(seed=st.integers(0, 2**32))
def test_a_random_direction_agrees(case: Case, seed: int) -> None:
    """One derivative that mixes all inputs and parameters: cheap, so it may try many shapes of the model too."""
    report = check(case, seed, method="complex", directional=True, tolerance=1e-11)
    assert report.ok, report


@pytest.mark.parametrize("case", [p for p in ALL if p not in SMALL])
def test_models_element_by_element(case: Case) -> None:
    report = check(case, 3, method="complex", directional=False, tolerance=1e-11)
    assert report.ok, report


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_model_and_loss_against_central_differences(norm: str, dropout: float) -> None:
    """Without dropout, and with frozen masks."""

    def one_layer(rng: np.random.Generator) -> tuple[Module, tuple[object, ...]]:
        return ModelWithLoss(norm=norm, dropout=dropout, n_layers=1), with_targets(rng)

    report = check(one_layer, 7, method="central", directional=False, tolerance=1e-7)
    assert report.ok, report


def test_the_checker_sees_one_part_in_a_thousand_in_one_parameter_of_the_model() -> None:
    class Sabotaged(ModelWithLoss):
        def backward(self, dy, cache):
            super().backward(dy, cache)
            self.model.encoder.layers[0].self_attention.W_K.grad *= 1.001

    rng = np.random.default_rng(5)
    model = randomise(Sabotaged(), rng)
    report = mt.gradcheck(model, *with_targets(rng), dropout_seed=1, method="complex", directional=False)
    wrong = [row.name for row in report.rows if row.relative_error > report.tolerance]
    assert wrong == ["model.encoder.layers.0.self_attention.W_K"] and not report.ok


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__()))


def test_every_module_has_a_gradient_check() -> None:
    ours = {cls for cls in subclasses(Module) if cls.__module__.startswith("minitransformer")}
    assert ours - {Module} == {cls for cls in CASES if cls.__module__.startswith("minitransformer")}
    assert all(CASES.values())


def test_an_input_in_another_memory_order_is_checked_alike() -> None:
    rng = np.random.default_rng(6)
    layer = randomise(mt.layers.Linear(5, 2), rng)
    for method in ("complex", "central"):
        assert mt.gradcheck(layer, rng.normal(size=(5, 7)).T, method=method).ok


@pytest.mark.parametrize("method", ["complex", "central"])
def test_a_backward_that_overwrites_the_gradient_is_wrong(method: str) -> None:
    class Overwrites(mt.layers.Linear):
        def backward(self, dy, cache):
            self.W.grad = np.zeros(self.W.shape)
            return super().backward(dy, cache)

    rng = np.random.default_rng(7)
    report = mt.gradcheck(randomise(Overwrites(5, 2), rng), rng.normal(size=(3, 5)), method=method)
    assert [row.name for row in report.rows if row.relative_error > report.tolerance] == ["W"]


def test_a_backward_that_returns_too_little_is_told_so() -> None:
    class Forgets(mt.layers.AddNorm):
        def backward(self, dy, cache):
            return super().backward(dy, cache)[0], None

    x = np.ones((2, 3))
    with pytest.raises(
        mt.InputError, match=r"expected gradients of shapes \[\(2, 3\), \(2, 3\)\], got .*None"
    ):
        mt.gradcheck(Forgets(3), x, x)
