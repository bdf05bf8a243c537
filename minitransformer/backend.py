"""The array backend: NumPy on the CPU, CuPy on a CUDA GPU.

Most of what differs between the two is in this file. The CUDA kernels are in kernels.py, and the decorator `@fused`
attaches them to their formulas; any other code that is specific to a GPU tests `on_gpu`.

Layers never import an array library. They ask `xp = array_module(x)` for the library that `x` belongs to,
compute with `xp`, and take constants and random numbers from the functions below.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from minitransformer.errors import ConfigError, describe

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Generator: TypeAlias = np.random.Generator
Seed: TypeAlias = "Generator | int | None"
DTypeLike: TypeAlias = Any
ComplexWarning = np.exceptions.ComplexWarning  # NumPy's and CuPy's: an imaginary part was dropped


def array_module(x: Array) -> Any:
    """The library that `x` belongs to: `numpy`, or `cupy` for an array on a GPU.

    Looks CuPy up among the modules already loaded, so that asking never imports it.
    """
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    return np


def on_gpu(x: Array) -> bool:
    """Whether `x` is in a GPU's memory."""
    return array_module(x) is not np


def device_module(device: str) -> Any:
    """The library of a device: `numpy` for "cpu", `cupy` for "cuda". Raises ConfigError if there is none."""
    if device == "cpu":
        return np
    if device != "cuda":
        raise ConfigError(f"device: expected 'cpu' or 'cuda', got {describe(device)}")
    try:
        import cupy  # type: ignore[import-not-found, unused-ignore]

        if cupy.cuda.runtime.getDeviceCount() > 0:
            return cupy
    except ImportError:
        raise ConfigError(
            "device 'cuda' needs CuPy: pip install 'minitransformer[cuda12]' (or [cuda13]), or use device 'cpu'"
        ) from None
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise ConfigError(f"device 'cuda': no usable GPU ({error}); use device 'cpu'") from None
    raise ConfigError("device 'cuda': no GPU found; use device 'cpu'")


def to_device(x: Array, device: str) -> Array:
    """`x` as an array on `device`; the same array if it is there already."""
    return device_module(device).asarray(x if device == "cuda" else to_host(x))


def to_host(x: Array) -> np.ndarray:
    """`x` as a NumPy array; waits for a GPU to finish computing it."""
    xp = array_module(x)
    return np.asarray(x) if xp is np else xp.asnumpy(x)


def to_floats(*numbers: Array) -> list[float]:
    """Array scalars as Python floats; for those on a GPU, waits once for all of them."""
    xp = array_module(numbers[0])
    if xp is np:
        return [float(x) for x in numbers]
    return [float(x) for x in xp.asnumpy(xp.stack(numbers))]


def extremes(ids: Array) -> tuple[int, int]:
    """The smallest and the largest id as Python ints; for ids on a GPU, waits once for both."""
    low, high = ids.min(), ids.max()
    if on_gpu(ids):
        low, high = array_module(ids).asnumpy(array_module(ids).stack([low, high]))
    return int(low), int(high)


def use_gpu(i: int) -> None:
    """Compute on GPU number `i` of this machine from now on, `i` taken modulo the number of its GPUs."""
    cuda = device_module("cuda").cuda
    cuda.Device(i % cuda.runtime.getDeviceCount()).use()


def gpu_memory_mb(x: Array) -> float | None:
    """The memory in MB that arrays take on the GPU of `x`, freed blocks of CuPy's pool included; None on the CPU."""
    return array_module(x).get_default_memory_pool().total_bytes() / 1e6 if on_gpu(x) else None


def out_of_memory(error: Exception) -> bool:
    """Whether `error` means out of memory, on the CPU or on a GPU, for which CUDA's libraries have their own codes."""
    cuda = "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"
    cublas = "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"  # no memory for its workspace
    return isinstance(error, MemoryError) or any(words in str(error) for words in cuda + cublas)


def is_array(x: Any) -> bool:
    """Whether `x` is a NumPy or CuPy array, or a NumPy scalar, of any dtype."""
    return isinstance(x, array_module(x).ndarray | np.generic)


def is_plain(x: Any) -> bool:
    """Whether `x` is an array that computes as NumPy's and CuPy's do: not a matrix, a masked array, or the like."""
    return is_array(x) and not isinstance(x, np.matrix | np.ma.MaskedArray)


def is_float(x: Any) -> bool:
    """Whether `x` is an array or array scalar of floats or complex numbers."""
    return hasattr(x, "astype") and getattr(getattr(x, "dtype", None), "kind", None) in ("f", "c")


def integer_of(x: Any) -> int | None:
    """`x` as an int if it is a Python or NumPy integer; None for anything else, including a bool."""
    if isinstance(x, bool | np.bool_):
        return None
    try:
        return operator.index(x)
    except TypeError:
        return None


def castable(x: Array, like: Array) -> bool:
    """Whether x's dtype may be cast to like's: float64 to float32, but not complex to real."""
    return bool(np.can_cast(x.dtype, like.dtype, "same_kind"))


def dtype_of(name: DTypeLike) -> np.dtype:
    """The data type called `name`. Raises ConfigError unless it is one that gradients can be computed in."""
    message = f"dtype: expected 'float32', 'float64' or a complex type, got {describe(name)}"
    try:
        dtype = np.dtype("" if name is None else name)  # None would be float64
    except (TypeError, ValueError, SyntaxError):
        raise ConfigError(message) from None
    if dtype.kind not in "fc" or dtype.itemsize < 4:
        raise ConfigError(message)
    return dtype


def zeros(shape: Sequence[int], dtype: DTypeLike = "float32", like: Array = None) -> Array:
    """Zeros, in the library of `like` (NumPy by default)."""
    return array_module(like).zeros(shape, dtype)


def arange(n: int) -> Array:
    """0, 1, …, n - 1 in float64, on the CPU: positions, from which tables are made."""
    return np.arange(n, dtype=np.float64)


def windows(x: Array, width: int) -> Array:
    """The rows x[0:width], x[1 : width + 1], … as a view of `x` that must not be written to (in NumPy: read-only)."""
    xp = array_module(x)
    shape, strides = (len(x) - width + 1, width), 2 * x.strides
    rows = xp.lib.stride_tricks.as_strided(x, shape, strides)
    if xp is np:
        rows.flags.writeable = False
    return rows


def padded(rows: Sequence[Sequence[int]], fill: int) -> Array:
    """Rows of integers of any lengths as one array, padded on the right with `fill`."""
    ids = np.full((len(rows), max(map(len, rows))), fill)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def generator(*seed: Seed) -> Generator:
    """The random generator of a seed, or of several numbers, which give independent streams.

    `generator(3)` is the stream of seed 3, and `generator(3, 1, 40)` an independent one (seed 3, purpose 1,
    step 40): whatever a run draws is a function of such numbers, so a resumed run needs no stored state.
    (Trailing zeros make no difference if all the numbers together take at most 128 bits, where each takes a multiple
    of 32.) A generator is returned as it is; None takes a seed from the operating system. Raises ConfigError for a
    negative number.
    """
    if len(seed) == 1 and (seed[0] is None or isinstance(seed[0], np.random.Generator)):
        return np.random.default_rng(seed[0])
    numbers = [n for n in map(integer_of, seed) if n is not None and n >= 0]
    if len(numbers) < len(seed):
        raise ConfigError(f"seed: expected a whole number, 0 or more, got {', '.join(map(describe, seed))}")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(numbers)))


def snapshot(rng: Generator | None) -> Generator | None:
    """A copy of `rng` that will draw what `rng` is about to draw (None stays None)."""
    return copy.deepcopy(rng)


class NoDraws(np.random.Generator):
    """Zeros in place of the random numbers of initial weights: for a model whose weights are loaded next."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        return np.broadcast_to(0.0, size)  # which takes no memory

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.broadcast_to(0.0, size)


def normal(rng: Generator, shape: Sequence[int], std: float, dtype: DTypeLike) -> Array:
    """Normally distributed numbers of mean 0, drawn in float64 on the CPU: the same for every dtype and device."""
    return rng.normal(0.0, std, shape).astype(dtype)


def xavier_uniform(rng: Generator, d_in: int, d_out: int, dtype: DTypeLike) -> Array:
    """Uniform in ±sqrt(6 / (d_in + d_out)): keeps the variance of x and of dx (Glorot and Bengio 2010)."""
    bound = math.sqrt(6 / (d_in + d_out))
    return rng.uniform(-bound, bound, (d_in, d_out)).astype(dtype)


def keep_mask(rng: Generator, p: float, x: Array) -> Array:
    """Booleans of the shape of `x`, False with probability `p`, a multiple of 2^-16.

    The plain version is `rng.random(x.shape) >= p`. This one compares 16 random bits with p · 2^16, and takes four
    such decisions from each 64-bit number that the generator makes: it is five times as fast.
    """
    n = math.prod(x.shape)
    bits = rng.integers(2**64 - 1, size=-(-n // 4), dtype="uint64", endpoint=True).view(np.uint16)[:n]
    return array_module(x).asarray((bits >= np.uint16(p * 2**16)).reshape(x.shape))


def random_bits(rng: Generator) -> int:
    """63 random bits as an int, to seed another random generator."""
    return int(rng.integers(2**63))


def sum_in_order(numbers: Iterable[Any], start: Any = 0.0) -> Any:
    """start + a + b + …, rounded after each addition: the same bits in every version of Python.

    (Since Python 3.12 the built-in `sum` compensates for the rounding of Python floats, though not of NumPy's.)
    """
    return functools.reduce(operator.add, numbers, start)


def sum_last(x: Array) -> Array:
    """x.sum(-1, keepdims=True), as a matrix product with ones.

    For rows of a few dozen numbers, NumPy's `sum` is ten times slower than the matrix product.
    """
    return (x @ _ones(x.shape[-1], x))[..., None]


def _ones(n: int, like: Array) -> Array:
    """A vector of n ones that must not be written to (in NumPy: read-only)."""
    return _many_ones(array_module(like), n.bit_length(), like.dtype)[:n]


@functools.lru_cache(maxsize=128)
def _many_ones(xp: Any, n_bits: int, dtype: DTypeLike) -> Array:
    """A vector of 2^n_bits ones, the same in every call: on a GPU, filling one takes as long as a product with it."""
    ones = xp.ones(2**n_bits, dtype)
    if xp is np:
        ones.flags.writeable = False
    return ones


def mean_last(x: Array) -> Array:
    """x.mean(-1, keepdims=True), computed as fast as `sum_last`."""
    return sum_last(x) / x.shape[-1]


def sum_positions(x: Array) -> Array:
    """x summed over all axes but the last, (..., d) -> (d,), as a matrix product with ones."""
    rows = x.reshape(-1, x.shape[-1])
    return _ones(len(rows), x) @ rows


def add_rows(target: Array, ids: Array, rows: Array) -> None:
    """target[ids[n]] += rows[n] for every n, where an id may occur many times.

    (`target[ids] += rows` would keep only the last row of each id.) The index is flat because NumPy's `add.at`
    has a fast path for a single index array.
    """
    xp = array_module(target)
    width = target.shape[1]
    flat = (ids.reshape(-1, 1).astype("int64") * width + xp.arange(width)).ravel()
    xp.add.at(target.reshape(-1), flat, rows.astype(target.dtype, copy=False).ravel())


def silent_overflow() -> np.errstate:
    """A context, or a decorator, in which numbers may overflow to inf and NaN without a warning, as on a GPU."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")
