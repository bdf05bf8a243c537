"""The package against PyTorch, from files: inputs, weights, outputs, losses, gradients, weights after training.

tests/golden/make_golden.py wrote the files, in float64; no torch is needed to read them.
"""

from __future__ import annotations

import numpy as np
import numpy_side
import pytest
from golden_cases import (
    GOLDEN,
    GOLDEN_CASES,
    KINDS,
    SIZES,
    assert_equal_to_12_digits,
    load,
    relative_errors,
)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_equal_to_pytorch(name: str) -> None:
    case = load(GOLDEN / f"{name}.npz")
    assert_equal_to_12_digits(numpy_side.run(case.kind, case.settings, case.given), case.expected)


def test_every_case_has_its_file_and_every_kind_its_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(GOLDEN_CASES)
    assert {kind for kind, _ in GOLDEN_CASES.values()} == set(KINDS)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_files_hold_the_case_they_are_named_after(name: str) -> None:
    case = load(GOLDEN / f"{name}.npz")
    kind, changes = GOLDEN_CASES[name]
    assert (case.kind, case.settings) == (kind, {**SIZES, **changes})
    names = {x for x in case.given if x.startswith("weight.")}
    assert names == {f"weight.{x}" for x in KINDS[kind].weights(case.settings)}
    gradients = [x for x in case.expected if x.startswith(("grad.", "d."))]
    assert len(gradients) >= 1
    for x in gradients:  # an oracle of zeros would prove nothing
        assert np.isfinite(case.expected[x]).all()
        assert np.abs(case.expected[x]).max() > 1e-4 or x.endswith("b_K")


def test_files_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.glob("*.npz")) < 400_000


def test_the_comparison_sees_a_wrong_twelfth_digit_a_nan_and_a_missing_array() -> None:
    y = np.array([1e-6, 1.0])
    assert relative_errors({"y": y}, {"y": y}) == {"y": 0.0}
    assert_equal_to_12_digits({"y": y * (1 + 1e-13)}, {"y": y})
    for wrong in ({"y": y * (1 + 3e-12)}, {"y": y * np.nan}, {"y": y[:1]}, {"y": y.astype("float32")}, {}):
        with pytest.raises(AssertionError):
            assert_equal_to_12_digits(wrong, {"y": y})
    with pytest.raises(AssertionError):
        assert_equal_to_12_digits({"y": y * 1e-30}, {"y": y * 0})
