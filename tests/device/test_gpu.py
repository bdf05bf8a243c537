"""On a GPU: the same numbers as on the CPU, for every layer and model; memory, waits, repeatability.

    pytest -m gpu -W default tests/device/test_gpu.py                        skipped without a GPU

The path keeps pytest from importing all other tests, and `-W default` a warning of CuPy's from failing a test.
With MINITRANSFORMER_STAND_IN=1 the tests run without a GPU, on the stand-in for CuPy, but for those which take CUDA
itself or a fast machine. Tests whose names hold `memory` or `task` want the GPU for themselves; the others may share it
(`-n 6 -k "not task and not memory"`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons import COMPARISONS
from cuda_sources import SPIN
from product_cases import BASE, SMALL
from product_cases import CASES as PRODUCTS
from small_runs import small_run

import minitransformer as mt
from minitransformer import checks, gpu_products, kernels
from minitransformer.backend import device_module, generator, gpu_memory_mb, to_device, to_host
from minitransformer.gradcheck import gradcheck
from minitransformer.layers import Dropout
from minitransformer.module import Module
from minitransformer.products import add_product, product, write_product
from minitransformer.runs.interrupt import Interrupted
from minitransformer.runs.weights import load_model
from minitransformer.system import blas_threads, n_cores
from minitransformer.tasks import task_class
from minitransformer.training.batching import Batch


def gpu() -> Any:
    try:
        return device_module("cuda")
    except mt.ConfigError:
        return None


cupy = gpu()
STAND_IN = bool(os.environ.get("MINITRANSFORMER_STAND_IN"))
on_a_card = pytest.mark.skipif(STAND_IN, reason="takes a GPU: the stand-in has no CUDA, or is too slow")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(cupy is None, reason="no CUDA GPU with CuPy")]
CASES = [
    pytest.param(case, id=f"{name}-{i}")
    for name, cases in checks.CASES.items()
    for i, case in enumerate(cases)
]
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


@pytest.fixture(autouse=True)
def poison(request):
    """Memory not yet written holds 0xFF bytes, NaN as floats, -1 as integers. (The stand-in's always does.)"""
    if cupy is None or STAND_IN or any(word in request.node.name for word in ("memory", "task", "wait")):
        yield
        return

    def allocate(size):
        memory = cupy.get_default_memory_pool().malloc(size)
        memory.memset_async(0xFF, size)
        return memory

    with cupy.cuda.using_allocator(allocate):
        yield


def test_what_is_not_written_yet_is_no_number():
    for _ in range(2):  # new, and used before
        x = cupy.empty((3, 1000))
        assert np.isnan(to_host(x)).all()
        x[...] = 0
        del x


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


def operands(name: str, sizes: Any, dtype: str) -> tuple[Any, Any, Any, Any]:
    """a, b and the place of a product of the model, on the GPU, and a @ b in float64 by NumPy."""
    rng = np.random.default_rng(3)
    a, b, out = PRODUCTS[name](lambda *shape: cupy.asarray(rng.normal(size=shape).astype(dtype)), sizes)
    with blas_threads(n_cores()):
        return a, b, out, to_host(a).astype("float64") @ to_host(b).astype("float64")


def relative_error(there: Any, here: Any) -> float:
    return abs(to_host(there) - here).max() / abs(here).max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sizes", [SMALL, pytest.param(BASE, marks=on_a_card)], ids=["small", "base"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_is_numpys(name, sizes, dtype):
    """As a new array, written to memory that holds NaN, and added; three times with the same bits."""
    a, b, out, expected = operands(name, sizes, dtype)
    before, tolerance = to_host(out), 1e-5 if dtype == "float32" else 1e-13
    found = []
    for _ in range(3):
        found.append([product(a, b)])
        out[...] = cupy.full(out.shape, np.nan, dtype)
        write_product(out, a, b)
        found[-1].append(out.copy())
        out[...] = cupy.asarray(before)
        add_product(out, a, b)
        found[-1].append(out.copy())
    for x, y in zip(found[0], (expected, expected, expected + before), strict=True):
        assert x.shape == y.shape and x.dtype == dtype and relative_error(x, y) <= tolerance
    for again in found[1:]:
        for x, y in zip(found[0], again, strict=True):
            assert to_host((x == y).all())


@pytest.fixture
def tf32(monkeypatch):
    """As with CUPY_TF32=1 from the beginning. (CuPy's own `@` has looked already.)"""
    monkeypatch.setenv("CUPY_TF32", "1")
    gpu_products.numbers.cache_clear()
    yield
    monkeypatch.undo()
    gpu_products.numbers.cache_clear()


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_in_tf32_is_as_exact_as_it_can_be(name, tf32):
    """Numbers of 11 bits are multiplied, each off by at most 2^-10 of itself, and the products are added up."""
    for dtype in TOLERANCE:
        a, b, out, expected = operands(name, SMALL if STAND_IN else BASE, dtype)
        write_product(out, a, b)
        size = abs(to_host(a)).astype("float64") @ abs(to_host(b))
        error = (abs(to_host(out) - expected) / size).max()
        assert error <= (2**-9 if dtype == "float32" else 1e-13)
        if (name, dtype) == ("linear", "float32"):  # of smaller ones, cuBLAS decides
            assert error > 1e-5, "TF32 was asked for, and not used"


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
def test_a_task_is_learned_in_999_of_1000_sequences(task, tmp_path):
    settings = mt.RunSettings.of(task_class(task)())
    result = mt.Trainer(settings, mt.RunFolder(tmp_path / task), "cuda").run()
    assert result["exact_match"] >= 0.999 and result["gpu_memory_mb"] > 0


def small_config(**changes: Any) -> mt.TransformerConfig:
    sizes = {
        "src_vocab_size": 50,
        "tgt_vocab_size": 50,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "d_ff": 64,
    }
    return mt.TransformerConfig(**{**sizes, "dropout": 0.1, "max_len": 16, **changes})


def base_config(**changes: Any) -> mt.TransformerConfig:
    """The paper's base model with a vocabulary of 8,000: shape g of tests/benchmarks."""
    sizes = {
        "src_vocab_size": 8000,
        "tgt_vocab_size": 8000,
        "n_layers": 6,
        "d_model": 512,
        "n_heads": 8,
        "d_ff": 2048,
    }
    return mt.TransformerConfig(**{**sizes, "dropout": 0.1, "max_len": 64, **changes})


def random_batch(V: int, B: int, T: int) -> Batch:
    """Source, decoder's input and target; sentences end in padding, but for the first."""
    rng = np.random.default_rng(1)
    ids = rng.integers(3, V, (3, B, T))
    for row in range(1, B):
        ids[0, row, rng.integers(T // 2, T) :] = 0
        ids[1:, row, rng.integers(T // 2, T) :] = 0
    return Batch(*ids, int((ids[2] != 0).sum()))


def training(config: mt.TransformerConfig, batch: Batch, steps: int) -> tuple[mt.Transformer, list[float]]:
    """A model after some steps with dropout; the memory in use after each."""
    model = mt.Transformer(config, 1, device="cuda")
    replicas, adam, loss_fn = mt.Replicas(model), mt.Adam(model), mt.LabelSmoothedCrossEntropy()
    used = []
    for step in range(steps):
        mt.train_step(replicas, loss_fn, adam, [batch], 1e-3, 1.0, [generator(1, step)])
        used.append(gpu_memory_mb(model.flatten().data))
    return model, used


def forward_and_backward(model: mt.Transformer, batch: Batch, rng: Any = None) -> tuple[Any, Any]:
    """The logits, and the loss; the gradient is in the model."""
    loss_fn = mt.LabelSmoothedCrossEntropy()
    logits, cache = model.forward(batch.src_ids, batch.tgt_in, rng)
    loss, loss_cache = loss_fn.forward(logits, batch.tgt_out, batch.n_tokens)
    model.backward(loss_fn.backward(loss_cache), cache)
    return logits, loss


def test_a_thousand_steps_keep_no_memory():
    _, used = training(small_config(), random_batch(50, 8, 12), 1000)
    assert used[-1] == used[100]


def test_a_run_repeats_itself_bit_for_bit():
    assert_repeats_itself(small_config(), random_batch(50, 8, 12), steps=20)


@on_a_card
def test_a_base_model_repeats_itself_bit_for_bit():
    assert_repeats_itself(base_config(), random_batch(8000, 64, 64), steps=3)


def assert_repeats_itself(config: mt.TransformerConfig, batch: Batch, steps: int) -> None:
    one, two = (training(config, batch, steps)[0].state_dict() for _ in range(2))
    for a, b in zip(one.values(), two.values(), strict=True):
        np.testing.assert_array_equal(a, b)


@on_a_card
def test_a_step_of_a_base_model_is_the_cpus():
    """64 sentences of 64 tokens, in both precisions, against float64 on the CPU.

    In float32 some of 50 million inputs of a ReLU, those next to 0, fall on its other side, which the gradient shows
    and the logits do not: its error is compared with that of float32 on the CPU, a ten-thousandth of its length.
    """
    batch, found = random_batch(8000, 64, 64), {}
    with blas_threads(n_cores()):  # pytest -n leaves one thread to each of its processes
        for device in ("cpu", "cuda"):
            for dtype in ("float64", "float32"):
                model = mt.Transformer(base_config(dropout=0.0), 1, dtype, device)
                logits, loss = forward_and_backward(model, batch)
                found[device, dtype] = [
                    to_host(x).astype("float64") for x in (logits, loss, model.flatten().grad)
                ]
                del model, logits
    *numbers, grad = found["cpu", "float64"]
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        for there, here in zip(found["cuda", dtype], numbers, strict=False):
            assert abs(there - here).max() <= tolerance * abs(here).max()
    assert abs(found["cuda", "float64"][2] - grad).max() <= 1e-12 * abs(grad).max()
    on_gpu, on_cpu = (np.linalg.norm(found[device, "float32"][2] - grad) for device in ("cuda", "cpu"))
    assert on_gpu <= 2 * on_cpu <= 1e-3 * np.linalg.norm(grad), (on_gpu, on_cpu)


def test_attention_in_several_blocks_is_the_cpus_in_one(monkeypatch):
    """Blocks of sentences, of heads, and of queries; the third is cut where a block has some rows left over."""
    batch = random_batch(50, 5, 13)
    here = mt.Transformer(small_config(dropout=0.0), 1, "float64")
    logits, loss = forward_and_backward(here, batch)
    monkeypatch.setattr(mt.layers.attention_in_blocks, "QUERIES", 1)
    for rows in (2 * 4 * 13, 2 * 13, 5):
        monkeypatch.setattr(mt.layers.attention_in_blocks, "BLOCK_ON_GPU", rows * 13)
        there = mt.Transformer(small_config(dropout=0.0), 1, "float64", "cuda")
        found = forward_and_backward(there, batch)
        assert_close(found[0], logits, "float64")
        assert_close(found[1], loss, "float64")
        assert_close(there.flatten().grad, here.flatten().grad, "float64")


def test_decoding_is_the_cpus():
    """Greedy, sampled with and without limits, by beams: ids, scores, and sentences that leave early."""
    rng = np.random.default_rng(116)  # with which greedily written sentences end, too
    src_ids = random_batch(9, 11, 13).src_ids
    config = small_config(src_vocab_size=9, tgt_vocab_size=9, dropout=0.0)
    weights = {
        name: x + rng.normal(size=x.shape) * 0.5
        for name, x in mt.Transformer(config, 3, "float64").state_dict().items()
    }
    found = []
    for device in ("cuda", "cpu"):
        model = mt.Transformer(config, 3, "float64", device)
        model.load_state_dict(weights)
        ids = [mt.greedy_decode(model, src_ids, max_len=14)]
        for limits in ({}, {"top_k": 4, "top_p": 0.9, "temperature": 1.5}):
            ids.append(mt.sample(model, src_ids, generator(5), max_len=14, **limits))
        beams = [
            mt.beam_search(model, src_ids, beam, alpha, max_len=14)
            for beam, alpha in ((1, 0.6), (4, 0.6), (20, 0.0))
        ]
        found.append(([to_host(x).tolist() for x in ids], [one for beam in beams for one in beam]))
    (ids_there, beams_there), (ids_here, beams_here) = found
    assert ids_there == ids_here
    for there, here in zip(beams_there, beams_here, strict=True):
        assert [h.ids for h in there] == [h.ids for h in here]
        np.testing.assert_allclose([h.score for h in there], [h.score for h in here], rtol=1e-10)
    for rows in ids_here:  # or nothing would leave
        assert len({row.index(2) if 2 in row else 14 for row in rows}) > 2


def test_settings_may_be_numbers_of_numpy():
    x, g = np.random.default_rng(3).normal(size=(2, 5, 7))
    for number, dtype in ((np.float32, "float32"), (np.float64, "float32"), (np.float32, "float64")):
        found = []
        for device in ("cuda", "cpu"):
            layer = mt.layers.Linear(5, 7, bias=False, rng=1, dtype=dtype).to(device)
            layer.W.data[...] = to_device(x.astype(dtype), device)
            adam = mt.Adam(layer, (number(0.875), number(0.96875)), adam_eps=number(0.125))
            for lr in (number(0.25), number(0.5), np.int64(1), 1):
                layer.W.grad[...] = to_device(g.astype(dtype), device)
                adam.step(lr)
            found.append(layer.W.data)
        assert_close(*found, dtype)


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_the_other_device(first, then, tmp_path):
    """Stopped after two of four steps, in float64 and without dropout, which draws other numbers there."""
    settings = small_run(dtype="float64", dropout=0.0, solved_at=None)
    folder = mt.RunFolder(tmp_path / "run")
    trainer = mt.Trainer(settings, folder, first)
    with pytest.raises(Interrupted):
        trainer.run(stop_requested=lambda: trainer.step == 2)
    for one, other in zip(*(load_model(folder, d).state_dict().values() for d in (first, then)), strict=True):
        np.testing.assert_array_equal(one, other)
    resumed, whole = mt.Trainer(settings, folder, then), mt.Trainer(settings, None, "cpu")
    resumed.resume()
    assert resumed.step == 2
    resumed.run()
    whole.run()
    for one, other in zip(
        resumed.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    ):
        assert_close(one, other, "float64")


def test_dropout_drops_its_share_and_each_number_by_itself():
    """By 5 standard deviations: the share; and how often two neighbours, or two of different draws, go together."""
    x, rng = cupy.ones((1000, 1001), "float32"), generator(1)
    layer = Dropout(0.1)
    (y, cache), second = layer.forward(x, rng), layer.forward(x, rng)
    other = layer.forward(x, generator(2))
    dropped, *others = (~to_host(c.kept).ravel() for c in (cache, second[1], other[1]))
    for mask in (dropped, *others):
        assert_share(mask, layer.p)
    for lag in (1, 2, 3, 4, 5, 32, 256, 1001):
        assert_share(dropped[lag:] & dropped[:-lag], layer.p**2)
    for mask in others:
        assert_share(dropped & mask, layer.p**2)
    expected = np.where(dropped, 0, np.float32(1 / (1 - layer.p)))
    np.testing.assert_array_equal(to_host(y).ravel(), expected)


def assert_share(found: np.ndarray, p: float) -> None:
    assert abs(found.mean() - p) <= 5 * (p * (1 - p) / found.size) ** 0.5


@on_a_card
def test_forward_and_backward_wait_for_nothing():
    """A kernel spins for two seconds; the host is back from all that it asks for after that long before it ends."""
    model, batch = mt.Transformer(small_config(n_layers=1), 1, device="cuda"), random_batch(50, 8, 12)
    spin = cupy.RawKernel(SPIN, "spin")
    for seconds in (0.01, 0.5, 2.0):  # before the last, everything is compiled, and all memory there
        to_host(model.flatten().grad)
        began = time.perf_counter()
        spin((1,), (1,), (np.int64(1e9 * seconds),))
        _, loss = forward_and_backward(model, batch, generator(1))
        back = time.perf_counter() - began
        to_host(loss)
        whole = time.perf_counter() - began
    assert back < 1.0 and whole > 1.9, f"back after {back:.3f} s, the GPU after {whole:.3f} s"


@pytest.mark.parametrize("changes", [{"tie_embeddings": True}, {"norm": "pre", "attention_bias": True}])
def test_training_is_pytorchs_on_the_same_card(changes, monkeypatch):
    """Three steps in float64 by autograd and torch.optim.Adam: logits, gradients, losses, weights."""
    torch = pytest.importorskip("torch")
    if not (STAND_IN or torch.cuda.is_available()):
        pytest.skip("this PyTorch has no CUDA")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "golden")
    import golden_cases
    import numpy_side
    import torch_reference

    sizes = {"B": 5, "T_src": 37, "T_tgt": 34, "src_vocab_size": 71, "tgt_vocab_size": 71}
    sizes |= {"d_model": 48, "n_heads": 3, "d_k": 33, "d_v": 17, "d_ff": 70, "max_len": 40}
    s = {**golden_cases.SIZES, **sizes, **changes}
    case = golden_cases.random_given(np.random.default_rng(1), "transformer", s)
    for name in case:
        if name.startswith("weight.") and not name.endswith(("gamma", "beta")):
            case[name] /= 4  # attentions that are not saturated: their gradients would be rounding errors
    inputs, weights = (golden_cases.starting_with(part, case) for part in ("input.", "weight."))
    with torch.device("cpu" if STAND_IN else "cuda"):
        expected = torch_reference.run("transformer", s, case)
    found = numpy_side.train(s, weights, **inputs, device="cuda")
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], "float64")


@on_a_card
def test_tf32_is_as_exact_as_it_can_be(tmp_path):
    """With CUPY_TF32=1, what is multiplied in a matrix product is rounded to 11 bits.

    So in the logits a difference of about 6e-4 of their norm is to be expected, in the gradient of 6e-3: that is what
    the stand-in gives. With float32 it is 5e-7.
    """
    code = (
        "import sys, numpy, test_gpu as t\n"
        "model = t.mt.Transformer(t.tf32_config(), 1, device='cuda')\n"
        "logits, _ = t.forward_and_backward(model, t.random_batch(1000, 8, 24))\n"
        "numpy.savez(sys.argv[1], logits=t.to_host(logits), grad=t.to_host(model.flatten().grad))"
    )
    model = mt.Transformer(tf32_config(), 1, "float64")
    logits, _ = forward_and_backward(model, random_batch(1000, 8, 24))
    error = {}
    for tf32 in "01":
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**os.environ, "CUPY_TF32": tf32, "PYTHONPATH": path}
        subprocess.run([sys.executable, "-c", code, tmp_path / tf32], env=environment, check=True, timeout=60)
        found = np.load(tmp_path / f"{tf32}.npz")
        pairs = (found["logits"], logits), (found["grad"], model.flatten().grad)
        error[tf32] = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]
    assert error["0"][0] < 5e-6 and error["0"][1] < 5e-6, error
    assert 5e-5 < error["1"][0] < 2e-3 and error["1"][1] < 4e-2, error


def tf32_config() -> mt.TransformerConfig:
    return base_config(
        src_vocab_size=1000, tgt_vocab_size=1000, n_layers=2, d_model=256, d_ff=512, dropout=0.0
    )


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
