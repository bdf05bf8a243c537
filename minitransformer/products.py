"""Matrix products that are written to their place, or added to what is there; threads share the rows of large ones.

On a GPU, gpu_products.py computes them.
"""

from __future__ import annotations

from minitransformer import gpu_products
from minitransformer.backend import Array, array_module, on_gpu
from minitransformer.parts import by_rows, threads_share


def product(a: Array, b: Array) -> Array:
    """a @ b for matrices, (n, d_in), (d_in, d_out) -> (n, d_out), or for as many pairs as there are."""
    if on_gpu(a):
        return gpu_products.product(a, b)
    if not threads_share() or a.ndim != 2:
        return a @ b
    xp = array_module(a)
    out = xp.empty((len(a), b.shape[1]), xp.result_type(a, b))
    write_product(out, a, b)
    return out


@by_rows
def write_product(out: Array, a: Array, b: Array) -> None:
    """out[...] = a @ b, where `out` may be a view with any strides; with NumPy, no temporary array is needed."""
    if on_gpu(out):
        gpu_products.multiply(out, a, b)
    else:
        array_module(out).matmul(a, b, out=out)


@by_rows
def add_product(out: Array, a: Array, b: Array) -> None:
    """out += a @ b for a matrix `out`, a block of rows at a time: the whole product would be as large as `out`."""
    if on_gpu(out):
        gpu_products.multiply(out, a, b, add=True)
        return
    rows = 512  # products with fewer rows are slower
    for start in range(0, len(out), rows):
        part = slice(start, start + rows)
        out[part] += a[part] @ b


def contiguous_on_gpu(x: Array) -> Array:
    """`x`; on a GPU, contiguous: a copy, which several products share, if one of them would have to copy `x`."""
    return array_module(x).ascontiguousarray(x) if on_gpu(x) else x
