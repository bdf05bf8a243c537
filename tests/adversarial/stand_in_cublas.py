"""A stand-in for cuBLAS, for machines without a GPU: gemmStridedBatchedEx and gemmEx as NVIDIA's manual defines them.

    C[i] = alpha op(A[i]) op(B[i]) + beta C[i]        op(X) is X, or its transpose, for matrices stored by columns

Number (row, column) of matrix i is at `start + row + column * leading + i * stride`, counted in numbers. All that comes
in are addresses and distances, so a wrong flag, distance or order of the operands gives other numbers. Whatever the
manual forbids is refused. Where beta is 0, what C holds is not read. With FAST_TF32, A and B are rounded to 11 bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

HANDLE = 0xB1A5
R_32F, R_64F = 0, 1  # cudaDataType
N, T = 0, 1  # cublasOperation_t
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77  # cublasComputeType_t
DEFAULT = -1  # cublasGemmAlgo_t
NUMBER = {R_32F: np.dtype("float32"), R_64F: np.dtype("float64")}
COMPUTES = {R_32F: (COMPUTE_32F, COMPUTE_32F_FAST_TF32), R_64F: (COMPUTE_64F,)}

calls = SimpleNamespace(names=[])  # of all that was called


class CUBLASError(RuntimeError):
    """What CuPy raises if cuBLAS returns an error."""


def require(holds: bool, text: str) -> None:
    if not holds:
        raise CUBLASError(f"CUBLAS_STATUS_INVALID_VALUE: {text}")


def gemmEx(
    handle,
    transa,
    transb,
    m,
    n,
    k,
    alpha,
    A,
    Atype,
    lda,
    B,
    Btype,
    ldb,
    beta,
    C,
    Ctype,
    ldc,
    computeType,
    algo,
):
    calls.names.append("gemmEx")
    gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, 0, B, Btype, ldb, 0, beta, C, Ctype, ldc, 0, 1,
         computeType, algo)  # fmt: skip


def gemmStridedBatchedEx(
    handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
    strideC, batchCount, computeType, algo,
):  # fmt: skip
    calls.names.append("gemmStridedBatchedEx")
    gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
         strideC, batchCount, computeType, algo)  # fmt: skip


def gemm(handle, transa, transb, m, n, k, alpha, A, Atype, lda, strideA, B, Btype, ldb, strideB, beta, C, Ctype, ldc,
         strideC, batchCount, computeType, algo) -> None:  # fmt: skip
    integers = (transa, transb, m, n, k, Atype, lda, Btype, ldb, Ctype, ldc, batchCount, computeType, algo)
    for x in (*integers, handle, alpha, A, strideA, B, strideB, beta, C, strideC):
        require(type(x) is int, f"{x!r} is no int")  # CuPy's binding takes other numbers, too
    require(all(-(2**31) <= x < 2**31 for x in integers), "an int of more than 32 bits")
    require(handle == HANDLE, "the handle")
    require(transa in (N, T) and transb in (N, T), "an operation")
    require(Atype == Btype == Ctype and computeType in COMPUTES.get(Ctype, ()), "types")
    require(algo == DEFAULT, "the algorithm")
    require(min(m, n, k, batchCount) > 0 and min(strideA, strideB, strideC) >= 0, "a size")
    number = NUMBER[Ctype]
    a = by_columns(A, number, (m, k) if transa == N else (k, m), lda, strideA, batchCount, "A")
    b = by_columns(B, number, (k, n) if transb == N else (n, k), ldb, strideB, batchCount, "B")
    c = by_columns(C, number, (m, n), ldc, strideC, batchCount, "C")
    require(distinct(c), "numbers of C share their places")
    require(not np.may_share_memory(c, a) and not np.may_share_memory(c, b), "C lies where A or B does")
    scales = [by_columns(x, number, (1, 1), 1, 0, 1, "a scale")[0, 0, 0] for x in (alpha, beta)]
    if computeType == COMPUTE_32F_FAST_TF32:
        a, b = tf32(a), tf32(b)
    a, b = (x if op == N else x.swapaxes(1, 2) for x, op in ((a, transa), (b, transb)))
    product = scales[0] * np.matmul(a, b)
    c[...] = product if scales[1] == 0 else product + scales[1] * c


def by_columns(
    start: int, number: np.dtype, shape: tuple[int, int], leading: int, stride: int, count: int, name: str
) -> Any:
    """The matrices that begin at an address, as an array (count, rows, columns)."""
    rows, columns = shape
    require(leading >= max(1, rows), f"the leading dimension of {name}, {leading} for {rows} rows")
    require(start > 0 and start % number.itemsize == 0, f"the address of {name}")
    last = (rows - 1) + (columns - 1) * leading + (count - 1) * stride
    memory = (ctypes.c_byte * (number.itemsize * (last + 1))).from_address(start)
    strides = [number.itemsize * step for step in (stride, 1, leading)]
    return np.ndarray((count, rows, columns), number, memory, 0, strides)


def distinct(x: Any) -> bool:
    """Whether no two numbers of `x` share a place."""
    places = sum(
        np.arange(n).reshape(-1, *(1,) * (2 - axis)) * (step // x.itemsize)
        for axis, (n, step) in enumerate(zip(x.shape, x.strides, strict=True))
    )
    taken = np.zeros(places.max() + 1, bool)
    taken[places] = True
    return bool(taken.sum() == x.size)


def tf32(x: Any) -> Any:
    """float32 with 10 bits after the leading one, rounded to the nearest, ties away from 0."""
    return ((np.ascontiguousarray(x).view("uint32") + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(
        "float32"
    )


FUNCTIONS: dict[str, Callable[..., None]] = {"gemmEx": gemmEx, "gemmStridedBatchedEx": gemmStridedBatchedEx}
