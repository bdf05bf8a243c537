"""Matrix products that are written to their place, or added to what is there; threads share the rows of large ones."""

from __future__ import annotations

from minitransformer.backend import Array, array_module, on_gpu
from minitransformer.parts import by_rows, threads_share


def product(a: Array, b: Array) -> Array:
    """a @ b for matrices: (n, d_in), (d_in, d_out) -> (n, d_out)."""
    if not threads_share():
        return a @ b
    xp = array_module(a)
    out = xp.empty((len(a), b.shape[1]), xp.result_type(a, b))
    write_product(out, a, b)
    return out


@by_rows
def write_product(out: Array, a: Array, b: Array) -> None:
    """out[...] = a @ b, where `out` may be a view with any strides; with NumPy, no temporary array is needed."""
    if on_gpu(out):
        out[...] = a @ b
    else:
        array_module(out).matmul(a, b, out=out)


@by_rows
def add_product(out: Array, a: Array, b: Array) -> None:
    """out += a @ b for a matrix `out`, a block of rows at a time: the whole product would be as large as `out`."""
    if on_gpu(out):  # there, an operation costs the host more time than the GPU
        out += a @ b
        return
    rows = 512  # products with fewer rows are slower
    for start in range(0, len(out), rows):
        part = slice(start, start + rows)
        out[part] += a[part] @ b
