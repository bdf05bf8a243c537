"""On a GPU: the same numbers as on the CPU, for every layer and model. Run by `pytest -m gpu`; skipped without one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparisons import COMPARISONS

import minitransformer as mt
from minitransformer import checks, kernels
from minitransformer.backend import device_module, generator, gpu_memory_mb, to_device, to_host
from minitransformer.gradcheck import gradcheck
from minitransformer.layers import Dropout
from minitransformer.module import Module
from minitransformer.tasks import task_class
from minitransformer.training.batching import Batch


def gpu() -> Any:
    try:
        return device_module("cuda")
    except mt.ConfigError:
        return None


cupy = gpu()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(cupy is None, reason="no CUDA GPU with CuPy")]
CASES = [
    pytest.param(case, id=f"{name}-{i}")
    for name, cases in checks.CASES.items()
    for i, case in enumerate(cases)
]
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def n_numbers(case: Any) -> int:
    """How many numbers a case's layer and its inputs have."""
    layer, inputs = case(checks.Sizes(), generator(1))
    floats = [x for x in inputs if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    return sum(x.size for x in floats) + sum(p.data.size for p in layer.parameters().values())


def on_the_device(case: Any) -> tuple[Any, list[Any]]:
    """A case's layer and its inputs, on the GPU."""
    layer, inputs = case(checks.Sizes(), generator(1))
    return layer.to("cuda"), [to_device(x, "cuda") if isinstance(x, np.ndarray) else x for x in inputs]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", COMPARISONS)
def test_a_kernel_is_its_formula(name, dtype):
    found, expected = COMPARISONS[name](cupy, np.random.default_rng(3), dtype)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, dtype)


def assert_close(there: Any, here: Any, dtype: str) -> None:
    """Relative to the largest number of the array (or 0.1: b_K's gradient is 0 but for rounding); NaN where NaN is."""
    there, here = to_host(there), np.asarray(here)
    assert there.shape == here.shape and there.dtype == here.dtype
    numbers = here == here
    np.testing.assert_array_equal(there == there, numbers)
    if here.dtype == bool or not numbers.any():
        return np.testing.assert_array_equal(there, here)
    size = max(abs(here[numbers]).max(), 0.1)
    assert abs(there[numbers] - here[numbers]).max() <= TOLERANCE[dtype] * size


def without_dropout(layer: Any) -> None:
    """A GPU draws other random numbers."""
    if isinstance(layer, Dropout):
        layer.p = 0.0
    for child in vars(layer).values():
        for node in child if isinstance(child, list) else [child]:
            if isinstance(node, Module):
                without_dropout(node)


def three_steps(case: Any, device: str, dtype: str) -> list[Any]:
    """What forward and backward give, and the parameters after each of three steps of Adam."""
    layer, inputs = case(checks.Sizes(), generator(1))
    without_dropout(layer)
    rng = np.random.default_rng(2)
    for p in layer.parameters().values():
        p.data += rng.uniform(-0.3, 0.3, p.shape)
    layer.to(device, dtype)
    inputs = [x.astype(dtype) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x for x in inputs]
    inputs = [to_device(x, device) if isinstance(x, np.ndarray) else x for x in inputs]
    adam = mt.Adam(layer, adam_eps=0.1) if layer.parameters() else None  # magnifies no rounding
    found = []
    for _ in range(3):
        layer.zero_grad()
        y, cache = layer.forward(*inputs, rng=generator(3))
        y = y if isinstance(y, tuple) else (y,)
        dy = [to_device(rng.normal(size=x.shape).astype(dtype), device) for x in y]
        dx = layer.backward(dy[0] if len(dy) == 1 else tuple(dy), cache)
        found += [*y, *(x for x in (dx if isinstance(dx, tuple) else (dx,)) if x is not None)]
        found += [p.grad.copy() for p in layer.parameters().values()]
        if adam is not None:
            adam.step(0.01)
        found += [p.data.copy() for p in layer.parameters().values()]
    return found


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_forward_backward_and_three_steps_are_the_cpus(case, dtype):
    for there, here in zip(three_steps(case, "cuda", dtype), three_steps(case, "cpu", dtype), strict=True):
        assert_close(there, here, dtype)


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_checker_runs_there(case, method):
    layer, inputs = on_the_device(case)
    report = gradcheck(layer, *inputs, method=method, dropout_seed=1, directional=True)
    assert report.ok, str(report)


@pytest.mark.parametrize("method", ["complex", "central"])
@pytest.mark.parametrize("case", [case for case in CASES if n_numbers(*case.values) <= 300])
def test_the_gradient_checker_moves_every_number_there(case, method):
    layer, inputs = on_the_device(case)
    report = gradcheck(layer, *inputs, method=method, dropout_seed=1, directional=False)
    assert report.ok and sum(row.checked for row in report.rows) > 0.9 * report.n_numbers, str(report)


def test_the_gradient_checker_finds_a_wrong_number_there():
    class Wrong(mt.layers.Linear):
        def backward(self, dy, cache):
            dx = super().backward(dy, cache)
            self.b.grad[3] += 0.01
            return dx

    x = cupy.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)))
    report = gradcheck(Wrong(5, 7, rng=1).to("cuda"), x, directional=False)
    assert [(row.name, row.index) for row in report.wrong] == [("b", (3,))], str(report)


@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_a_task_is_learned_to_the_last_symbol(task, tmp_path):
    settings = mt.RunSettings.of(task_class(task)())
    result = mt.Trainer(settings, mt.RunFolder(tmp_path / task), "cuda").run()
    assert result["exact_match"] == 1.0 and result["gpu_memory_mb"] > 0


def training(steps: int) -> tuple[mt.Transformer, list[float]]:
    """A small model after some steps with dropout; the memory in use after each."""
    config = mt.TransformerConfig(src_vocab_size=50, tgt_vocab_size=50, n_layers=2, d_model=32, n_heads=4, d_ff=64,
                                  dropout=0.1, max_len=16)  # fmt: skip
    model = mt.Transformer(config, 1, device="cuda")
    replicas, adam, loss_fn = mt.Replicas(model), mt.Adam(model), mt.LabelSmoothedCrossEntropy()
    ids = np.random.default_rng(1).integers(3, 50, (3, 8, 12))
    used = []
    for step in range(steps):
        mt.train_step(replicas, loss_fn, adam, [Batch(*ids, ids[2].size)], 1e-3, 1.0, [generator(1, step)])
        used.append(gpu_memory_mb(model.flatten().data))
    return model, used


def test_a_thousand_steps_keep_no_memory():
    _, used = training(1000)
    assert used[-1] == used[10]


def test_a_run_repeats_itself_bit_for_bit():
    one, two = (training(50)[0].state_dict() for _ in range(2))
    for a, b in zip(one.values(), two.values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_memory_left_is_one_clear_line(capsys, tmp_path):
    from minitransformer.cli import main

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    try:
        large = ["--set", "d_model=2048", "d_ff=8192", "--out", str(tmp_path / "run")]
        assert main(["train", "copy", "--device", "cuda", *large]) == 2
    finally:
        pool.set_limit(size=0)
    assert "not enough memory" in capsys.readouterr().err


def test_usable():
    x, y = (cupy.zeros(1, dtype) for dtype in ("float32", "float64"))
    assert kernels.usable(x) and kernels.usable(y, y) and not kernels.usable(x, y)
    assert not kernels.usable(cupy.zeros(1, "complex128"))


def test_layers_take_another_dtype_than_their_own_as_on_the_cpu():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 3, 5, 8))
    layer, found = mt.layers.LayerNorm(8), []
    layer.gamma.data[...] = rng.normal(size=8)
    for device, asarray in (("cpu", np.asarray), ("cuda", cupy.asarray)):
        layer.to(device)
        layer.gamma.grad[...] = 0
        y, cache = layer.forward(asarray(x))
        found.append([to_host(a) for a in (y, layer.backward(asarray(dy), cache), layer.gamma.grad)])
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-6, atol=1e-6)
