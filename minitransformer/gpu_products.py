"""Matrix products on a GPU, each by one call of cuBLAS, which reads a transposed matrix where it lies, and writes the
product to its place or adds it to what is there.

CuPy's `@` calls cuBLAS, too. But for arrays of three or more axes it first copies whatever is not contiguous, a
transposed matrix among them, and does not heed CUPY_TF32; and it cannot add. So the call is made here, with the binding
that `@` uses, `cupy.cuda.cublas`. With ctypes this file would have to find the library, create a handle, choose the
stream and turn codes into exceptions, all of which CuPy does already; and the binding leaves no argument out.

To cuBLAS, numbers that lie one after the other are a column, while to NumPy they are a row. So cuBLAS sees the
transpose of every array, and computes out = a b as outᵀ = bᵀ aᵀ.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any, NamedTuple

from minitransformer.backend import Array, array_module


class Layout(NamedTuple):
    """Where the numbers of one matrix, or of many, lie in memory."""

    transposed: bool  # the columns are contiguous rather than the rows; cuBLAS's flag is this as a number
    leading: int  # numbers from one row to the next or, if transposed, from one column to the next
    stride: int  # numbers from one matrix to the next


def product(a: Array, b: Array) -> Array:
    """a @ b, as a new array."""
    shape = shape_of(a, b)
    if shape is None or len(shape) == 2:  # CuPy copies no matrix that is contiguous, or the transpose of one
        return a @ b
    out = array_module(a).empty(shape, a.dtype)
    multiply(out, a, b)
    return out


def multiply(out: Array, a: Array, b: Array, add: bool = False) -> None:
    """out = a @ b, or out += a @ b. `out` may have any strides, but shares no memory with `a` or `b`."""
    if type(out) is not type(a) or out.dtype != a.dtype or out.shape != shape_of(a, b):
        return store(out, a @ b, add)
    place = layout(out)
    if place is None:
        return store(out, product(a, b), add)
    if place.transposed:
        out, a, b = out.swapaxes(-1, -2), b.swapaxes(-1, -2), a.swapaxes(-1, -2)
    (a, of_a), (b, of_b) = laid_out(a), laid_out(b)
    xp, (n_rows, n_columns) = array_module(out), out.shape[-2:]
    n = out.size // (n_rows * n_columns)
    dtype, compute_type, zero_and_one = numbers(xp, out.dtype.char)
    zero = ctypes.addressof(zero_and_one)
    one = zero + out.itemsize

    def matrices(x: Array, of_x: Layout) -> tuple[int, ...]:
        return (x.data.ptr, dtype, of_x.leading, of_x.stride)[: 3 if n == 1 else 4]

    cublas = xp.cuda.cublas
    (cublas.gemmEx if n == 1 else cublas.gemmStridedBatchedEx)(
        xp.cuda.get_cublas_handle(), int(of_b.transposed), int(of_a.transposed), n_columns, n_rows, a.shape[-1],
        one, *matrices(b, of_b), *matrices(a, of_a), one if add else zero, *matrices(out, place),
        *(() if n == 1 else (n,)), compute_type, cublas.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip


def store(out: Array, whole: Array, add: bool) -> None:
    """out = whole, or out += whole."""
    if add:
        out += whole
    else:
        out[...] = whole


def shape_of(a: Array, b: Array) -> tuple[int, ...] | None:
    """The shape of a @ b; None if it is left to CuPy's `@`: complex or empty arrays, vectors, wrong shapes, and others.

    Either of them may be a single matrix, but neither is broadcast along some axes only.
    """
    real = type(a) is type(b) and a.dtype == b.dtype and a.dtype.char in "fd"
    if not real or min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2] or a.size * b.size == 0:
        return None
    many = a.shape[:-2] or b.shape[:-2]
    return (*many, a.shape[-2], b.shape[-1]) if b.shape[:-2] in ((), many) else None


def laid_out(x: Array) -> tuple[Array, Layout]:
    """`x`, or a copy if cuBLAS cannot read `x`, and how it lies in memory."""
    found = layout(x)
    if found is None:
        x = array_module(x).ascontiguousarray(x)
        found = layout(x)
        assert found is not None
    return x, found


def layout(x: Array) -> Layout | None:
    """How `x` lies in memory; None if cuBLAS has no words for it, as for heads next to each other in (B, T, h · d)."""
    *many, n_rows, n_columns = x.shape
    *steps, row, column = (step // x.itemsize for step in x.strides)
    stride, n = 0, 1
    for length, step in zip(reversed(many), reversed(steps), strict=True):
        if length > 1:  # of one, the step says nothing
            if step < 0 or (n > 1 and step != n * stride):
                return None
            stride, n = (step if n == 1 else stride), n * length
    if column == 1 and row >= n_columns:
        return Layout(False, row, stride)
    if (row == 1 or n_rows == 1) and (column >= n_rows or n_columns == 1):
        return Layout(True, column if n_columns > 1 else n_rows, stride)
    return None


@cache
def numbers(xp: Any, char: str) -> tuple[int, int, Any]:
    """cuBLAS's names for the dtype `char` and for how to compute with it; 0 and 1 in the host's memory.

    With CUPY_TF32=1 in the environment, which CuPy's `@` heeds as well, float32 is rounded to 11 bits before numbers
    are multiplied.
    """
    cublas, runtime = xp.cuda.cublas, xp.cuda.runtime
    if char == "d":
        return runtime.CUDA_R_64F, cublas.CUBLAS_COMPUTE_64F, (ctypes.c_double * 2)(0, 1)
    tf32 = int(os.getenv("CUPY_TF32", "0")) > 0
    compute_type = cublas.CUBLAS_COMPUTE_32F_FAST_TF32 if tf32 else cublas.CUBLAS_COMPUTE_32F
    return runtime.CUDA_R_32F, compute_type, (ctypes.c_float * 2)(0, 1)
