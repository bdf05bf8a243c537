"""What tests/device/on_gpu.sh runs besides tests and benchmarks:

python tests/device/on_gpu.py versions      what is installed, and the card; one kernel; one training step on both
python tests/device/on_gpu.py kernels       every kernel beside its formula, for compute-sanitizer
python tests/device/on_gpu.py products      how long each product of the base model takes, by CuPy's `@` and here
python tests/device/on_gpu.py host          how long the host takes to ask for a step, and how long the step takes
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "adversarial"), str(TESTS / "benchmarks"), str(TESTS.parent)]

import stand_in  # noqa: E402

STAND_IN = bool(os.environ.get("MINITRANSFORMER_STAND_IN"))
if STAND_IN:
    stand_in.take_cupys_place()

from comparisons import COMPARISONS  # noqa: E402
from product_cases import BASE, CASES, SMALL  # noqa: E402
from shapes import SHAPES, sentences  # noqa: E402

import minitransformer as mt  # noqa: E402
from minitransformer import gpu_products  # noqa: E402
from minitransformer.backend import device_module, generator, to_host  # noqa: E402
from minitransformer.products import write_product  # noqa: E402

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}


def versions() -> None:
    """Who is here; then the shortest way to see whether anything works at all."""
    print("Python", sys.version.split()[0])
    for package in ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch"):
        try:
            print(package, version(package))
        except PackageNotFoundError:
            print(package, "is not installed")
    cupy = device_module("cuda")
    if STAND_IN:
        print("card: none, the stand-in for CuPy")
    else:
        card = cupy.cuda.runtime.getDeviceProperties(0)
        driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
        print("card:", card["name"].decode())
        print(f"{card['totalGlobalMem'] / 1e9:.0f} GB, CUDA {runtime}, driver for CUDA {driver}")
    compare("softmax_of_keys_33", "float32")
    one_step()


def compare(name: str, dtype: str) -> None:
    """A kernel beside its formula. Raises AssertionError if they differ."""
    found, expected = COMPARISONS[name](device_module("cuda"), np.random.default_rng(3), dtype)
    for there, here in zip(map(to_host, found), map(np.asarray, expected), strict=True):
        size = max(abs(here[here == here]).max(initial=0.0), 0.1) if here.dtype != bool else 1
        np.testing.assert_allclose(there, here, rtol=0, atol=TOLERANCE[dtype] * size)
    print(f"{name}, {dtype}: as the formula", flush=True)


def one_step() -> None:
    """A training step at the toy shape in float64 on both devices. Raises AssertionError if they differ."""
    src_ids, tgt_in, tgt_out = sentences(SHAPES["a"])
    found = []
    for device in ("cpu", "cuda"):
        model = mt.Transformer(SHAPES["a"].config(dropout=0.0), 1, "float64", device)
        batch = mt.training.Batch(src_ids, tgt_in, tgt_out, int((tgt_out != 0).sum()))
        adam = mt.Adam(model, adam_eps=0.1)  # magnifies no rounding
        began = time.perf_counter()
        loss, norm = mt.train_step(mt.Replicas(model), mt.LabelSmoothedCrossEntropy(), adam, [batch], 0.1)
        print(
            f"{device}: loss {loss:.12f}, norm {norm:.12f} after {time.perf_counter() - began:.2f} s",
            flush=True,
        )
        found.append([loss, norm, *to_host(model.flatten().data)])
    np.testing.assert_allclose(*found, rtol=0, atol=1e-10)


def kernels() -> None:
    """All comparisons but the slowest, each array in memory of its own, so that it shows when a kernel leaves it."""
    if not STAND_IN:
        device_module("cuda").cuda.set_allocator(None)
    for name in COMPARISONS:
        for dtype in TOLERANCE:
            if not name.endswith("_25000"):
                compare(name, dtype)


def products(times: int = 50) -> None:
    """Milliseconds in float32 of `out[...] = a @ b` by CuPy, of the same product here, and of that in TF32.

    They are the host's where it takes longer than the GPU.
    """
    cupy, rng = device_module("cuda"), np.random.default_rng(1)
    synchronize = cupy.cuda.get_current_stream().synchronize

    def by_cupy(out: Any, a: Any, b: Any) -> None:
        out[...] = a @ b

    for name, case in CASES.items():
        a, b, out = case(
            lambda *shape: cupy.asarray(rng.standard_normal(shape, "float32")), SMALL if STAND_IN else BASE
        )
        found = []
        for compute, tf32 in ((by_cupy, "0"), (write_product, "0"), (write_product, "1")):
            os.environ["CUPY_TF32"] = tf32
            gpu_products.numbers.cache_clear()
            compute(out, a, b)  # to choose a kernel, and to get memory
            synchronize()
            began = time.perf_counter()
            for _ in range(times):
                compute(out, a, b)
            synchronize()
            found.append(1e3 * (time.perf_counter() - began) / times)
        print(f"{name:<28} @ {found[0]:.3f} ms   here {found[1]:.3f} ms   TF32 {found[2]:.3f} ms", flush=True)


def host(steps: int = 20) -> None:
    """Medians of some steps without Adam, in float32 with dropout, at the toy shape and the base model's."""
    synchronize = device_module("cuda").cuda.get_current_stream().synchronize
    for name in "a" if STAND_IN else "ag":
        shape, loss_fn = SHAPES[name], mt.LabelSmoothedCrossEntropy()
        src_ids, tgt_in, tgt_out = sentences(shape)
        model = mt.Transformer(shape.config(dropout=0.1), 1, device="cuda")
        asked, whole = [], []
        for step in range(steps + 3):  # the first compile, and fill the memory pool
            synchronize()
            began = time.perf_counter()
            logits, cache = model.forward(src_ids, tgt_in, generator(1, step))
            _, loss_cache = loss_fn.forward(logits, tgt_out, shape.batch * shape.length)
            model.backward(loss_fn.backward(loss_cache), cache)
            asked.append(1e3 * (time.perf_counter() - began))
            synchronize()
            whole.append(1e3 * (time.perf_counter() - began))
        host_ms, ms = (statistics.median(times[3:]) for times in (asked, whole))
        print(f"shape {name}: the host asks for {host_ms:.2f} ms, the step takes {ms:.2f} ms", flush=True)


if __name__ == "__main__":
    stages: dict[str, Any] = {f.__name__: f for f in (versions, kernels, products, host)}
    stages[sys.argv[1]]()
