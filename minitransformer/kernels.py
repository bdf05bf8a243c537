"""CUDA kernels: formulas that take NumPy several passes, each in one launch on a GPU.

A launch takes some microseconds, however small the arrays, so with a launch for each operation a small model would
spend its time on launches. Each formula of several operations that every step needs therefore has a kernel, which the
decorator `@fused` attaches to it. The formula computes the same on the CPU, and the tests compare the kernel with it:
on a GPU, and without one on the CPU, since a C++ compiler can read the same source (tests/device).

    ROWS(n)      a warp for each of n rows, its 32 lanes side by side;    LANES(i, n)  lane by lane through a row
    EACH(i, n)   a thread for each of n numbers;                          total, greatest  over the lanes of a warp
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

from minitransformer.backend import Array, Generator, array_module, on_gpu, random_bits

F = TypeVar("F", bound=Callable[..., Any])

THREADS = 256  # in a block, eight warps

SOURCE = r"""
typedef NUMBER T;
typedef long long Int;
typedef unsigned long long Bits;
#ifdef __CUDACC_RTC__
#define INFINITY __longlong_as_double(0x7FF0000000000000ll)
#define KERNEL extern "C" __global__ void
#define EACH(i, n) Int i = (Int)blockIdx.x * blockDim.x + threadIdx.x; if (i < n)
#define ROWS(n) Int row = ((Int)blockIdx.x * blockDim.x + threadIdx.x) / 32; if (row < n)
#define LANES(i, n) for (Int i = threadIdx.x % 32; i < n; i += 32)
#define HOST_DEVICE __device__
#define N_LANES 32
#else
#include <cmath>
using namespace std;
#define KERNEL extern "C" void
#define EACH(i, n) for (Int i = 0; i < n; i++)
#define ROWS(n) for (Int row = 0; row < n; row++)
#define LANES(i, n) for (Int i = 0; i < n; i++)
#define HOST_DEVICE
#define N_LANES 1
#define __shfl_xor_sync(lanes, x, distance) x
#endif
#define OTHERS(d) for (int d = N_LANES / 2; d; d /= 2)
HOST_DEVICE T larger(T a, T b) { return a > b || a != a ? a : b; }  // NaN, if one of them is: fmax would hide it
HOST_DEVICE T greatest(T x) { OTHERS(d) x = larger(x, __shfl_xor_sync(~0u, x, d)); return x; }
template <class N> HOST_DEVICE N total(N x) { OTHERS(d) x += __shfl_xor_sync(~0u, x, d); return x; }

// layers/activations.py, softmax. Row (b, h, q) of the scores; the mask's strides are 0 where it is broadcast.
KERNEL softmax(const T* scores, const bool* mask, T* weights, Int n_rows, Int n, Int n_h, Int n_q,
               Int stride_b, Int stride_h, Int stride_q, Int stride_k, double lowest) {
    ROWS(n_rows) {
        const T* s = scores + row * n;
        T* w = weights + row * n;
        const bool* m = mask + row / (n_h * n_q) * stride_b + row / n_q % n_h * stride_h + row % n_q * stride_q;
        T top = T(lowest), sum = 0;
        LANES(k, n) if (m[k * stride_k]) top = larger(top, s[k]);
        top = greatest(top);
        LANES(k, n) {
            w[k] = m[k * stride_k] ? exp(s[k] - top) : T(0);
            sum += w[k];
        }
        sum = total(sum);
        LANES(k, n) w[k] = sum == 0 ? T(0) : w[k] / sum;
    }
}

// layers/activations.py, softmax_backward
KERNEL softmax_backward(const T* dweights, const T* weights, T* dscores, Int n_rows, Int n) {
    ROWS(n_rows) {
        const T *dw = dweights + row * n, *w = weights + row * n;
        T sum = 0;
        LANES(k, n) sum += dw[k] * w[k];
        sum = total(sum);
        LANES(k, n) dscores[row * n + k] = w[k] * (dw[k] - sum);
    }
}

// layers/normalization.py, layer_norm
KERNEL layer_norm(const T* x, const T* gamma, const T* beta, T* y, T* x_hat, T* rstd, Int n_rows, Int n, double eps) {
    ROWS(n_rows) {
        const T* x_row = x + row * n;
        T sum = 0, squares = 0;
        LANES(i, n) sum += x_row[i];
        T mean = total(sum) / n;
        LANES(i, n) squares += (x_row[i] - mean) * (x_row[i] - mean);
        T r = 1 / sqrt(total(squares) / n + T(eps));
        LANES(i, n) {
            T z = (x_row[i] - mean) * r;
            x_hat[row * n + i] = z;
            y[row * n + i] = z * gamma[i] + beta[i];
        }
        rstd[row] = r;
    }
}

// layers/normalization.py, layer_norm_backward
KERNEL layer_norm_backward(const T* dy, const T* x_hat, const T* rstd, const T* gamma, T* dx, Int n_rows, Int n) {
    ROWS(n_rows) {
        const T *dy_row = dy + row * n, *z = x_hat + row * n;
        T sum = 0, dot = 0;
        LANES(i, n) {
            sum += dy_row[i] * gamma[i];
            dot += dy_row[i] * gamma[i] * z[i];
        }
        T mean = total(sum) / n, mean_dot = total(dot) / n;
        LANES(i, n) dx[row * n + i] = (dy_row[i] * gamma[i] - mean - z[i] * mean_dot) * rstd[row];
    }
}

// layers/dropout.py. 16 bits for each number, from the count i and the seed (SplitMix64, Steele et al. 2014).
HOST_DEVICE Int bits16(Bits seed, Int i) {
    Bits z = seed + (Bits)(i / 4 + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    return z >> (16 * (i % 4)) & 0xFFFF;
}

KERNEL keep_mask(bool* kept, Int n, Int seed, Int drop_below) {
    EACH(i, n) kept[i] = bits16(seed, i) >= drop_below;
}

KERNEL apply_mask(const T* x, const bool* kept, T* y, Int n, double p) {
    EACH(i, n) y[i] = T(kept[i]) * (x[i] * T(1 / (1 - p)));
}

// layers/embedding.py. The order that sorts the ids: before an id come all smaller ones, and the equal ones that stand
// before it now.
KERNEL order_of(const Int* ids, Int* order, Int n) {
    ROWS(n) {
        Int n_before = 0, id = ids[row];
        LANES(m, n) n_before += ids[m] < id || (ids[m] == id && m < row);
        order[total(n_before)] = row;
    }
}

// The thread at an id's first place adds up all its rows, always in the same order (with atomic additions, the last
// digits would differ from run to run).
KERNEL add_rows(T* target, const Int* ids, const Int* order, const T* rows, Int n, Int width) {
    EACH(i, n * width) {
        Int k = i / width, j = i % width, id = ids[order[k]];
        if (k == 0 || ids[order[k - 1]] != id) {
            T sum = 0;
            for (Int m = k; m < n && ids[order[m]] == id; m++) sum += rows[order[m] * width + j];
            target[id * width + j] += sum;
        }
    }
}

// training/loss.py: log softmax(z) = z - top - log_sum; a difference is at least half the lowest number there is.
KERNEL cross_entropy(const T* logits, const Int* target, const T* weight, T* dlogits, T* losses,
                     Int n_rows, Int n, double eps_ls, double lowest) {
    ROWS(n_rows) {
        const T* z = logits + row * n;
        T top = T(-INFINITY), sum = 0, loss = 0, w = weight[row];
        LANES(i, n) top = larger(top, z[i]);
        top = greatest(top);
        LANES(i, n) sum += exp(larger(z[i] - top, T(lowest)));
        T log_sum = log(total(sum)), share = eps_ls / n, right = 1 - eps_ls;
        LANES(i, n) {
            T log_p = larger(z[i] - top, T(lowest)) - log_sum;
            T q = share + (i == target[row] ? right : T(0));
            loss -= q * log_p * w;
            dlogits[row * n + i] = (exp(log_p) - q) * w;
        }
        losses[row] = total(loss);
    }
}

// layers/gelu.py, gelu and gelu_tanh: the value and the slope at each x
KERNEL gelu(const T* x, T* y, T* slope, Int n) {
    EACH(i, n) {
        T Phi = (1 + erf(x[i] * T(0.70710678118654752))) / 2;
        y[i] = x[i] * Phi;
        slope[i] = Phi + x[i] * exp(-x[i] * x[i] / 2) * T(0.39894228040143268);
    }
}

KERNEL gelu_tanh(const T* x, T* y, T* slope, Int n) {
    EACH(i, n) {
        T a = T(0.79788456080286536), b = T(0.044715);
        T Phi = (1 + tanh(a * (x[i] + b * x[i] * x[i] * x[i]))) / 2;
        y[i] = x[i] * Phi;
        slope[i] = Phi + x[i] * 2 * Phi * (1 - Phi) * a * (1 + 3 * b * x[i] * x[i]);
    }
}

// training/optimizer.py, adam
KERNEL adam(T* p, T* m, T* v, const T* g, Int n, double lr, double beta1, double beta2,
            double correction1, double correction2, double adam_eps) {
    EACH(i, n) {
        m[i] = T(beta1) * m[i] + T(1 - beta1) * g[i];
        v[i] = T(beta2) * v[i] + T(1 - beta2) * (g[i] * g[i]);
        T m_hat = m[i] / T(correction1), v_hat = v[i] / T(correction2);
        p[i] -= T(lr) * m_hat / (sqrt(v_hat) + T(adam_eps));
    }
}
"""


def fused(kernel: Callable[..., Any], where: Callable[..., bool] | None = None) -> Callable[[F], F]:
    """A decorator of a formula: on a GPU, `kernel` runs in its place, with the same arguments and results.

    The kernel runs if floating-point arrays on a GPU are among the arguments, and `where` (by default `usable`) holds
    for them; otherwise the formula does.
    """

    def attach(formula: F) -> F:
        @wraps(formula)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if "cupy" in sys.modules:  # without it, nothing is on a GPU
                arrays = [x for x in (*arguments, *named.values()) if on_gpu(x) and x.dtype.kind in "fc"]
                if arrays and (where or usable)(*arrays):
                    return kernel(*arguments, **named)
            return formula(*arguments, **named)

        return cast(F, wrapper)

    return attach


def usable(x: Array, *others: Array) -> bool:
    """Whether the kernels can compute with `x`, which is on a GPU: real numbers (complex steps use the formula).

    `others` are the other floating-point arguments, which must have the dtype of `x`.
    """
    alike = all(other.dtype == x.dtype for other in others)
    return x.dtype.kind == "f" and x.dtype.itemsize in (4, 8) and alike


def softmax(scores: Array, mask: Array | None = None) -> Array:
    """A CUDA kernel for layers/activations.py's softmax, one launch."""
    xp = array_module(scores)
    if mask is not None and scores.ndim > 4:  # the kernel counts along four axes of a mask
        shape = (-1, *scores.shape[-3:])
        mask = xp.broadcast_to(mask, scores.shape).reshape(shape)
        return softmax(scores.reshape(shape), mask).reshape(scores.shape)
    scores = xp.ascontiguousarray(scores)
    weights, n = xp.empty_like(scores), scores.shape[-1]
    if mask is None:
        mask, n_h, n_q, strides = _true(xp), 1, 1, (0, 0, 0, 0)
    else:
        _, n_h, n_q, _ = (1,) * (4 - scores.ndim) + scores.shape
        strides = (0,) * (4 - scores.ndim) + xp.broadcast_to(mask, scores.shape).strides
    n_rows = scores.size // n
    lowest = float(xp.finfo(scores.dtype).min)
    _launch("softmax", 32 * n_rows, scores, scores, mask, weights, n_rows, n, n_h, n_q, *strides, lowest)
    return weights


def softmax_backward(dweights: Array, weights: Array) -> Array:
    """A CUDA kernel for layers/activations.py's softmax_backward, one launch."""
    xp = array_module(weights)
    dweights, weights = xp.ascontiguousarray(dweights), xp.ascontiguousarray(weights)
    dscores, n = xp.empty_like(weights), weights.shape[-1]
    n_rows = weights.size // n
    _launch("softmax_backward", 32 * n_rows, weights, dweights, weights, dscores, n_rows, n)
    return dscores


def layer_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """A CUDA kernel for layers/normalization.py's layer_norm, one launch."""
    xp = array_module(x)
    x, n = xp.ascontiguousarray(x), x.shape[-1]
    y, x_hat, rstd = xp.empty_like(x), xp.empty_like(x), xp.empty((*x.shape[:-1], 1), x.dtype)
    n_rows = x.size // n
    _launch("layer_norm", 32 * n_rows, x, x, gamma, beta, y, x_hat, rstd, n_rows, n, float(eps))
    return y, x_hat, rstd


def layer_norm_backward(dy: Array, x_hat: Array, rstd: Array, gamma: Array) -> Array:
    """A CUDA kernel for layers/normalization.py's layer_norm_backward, one launch."""
    xp = array_module(dy)
    dy, n = xp.ascontiguousarray(dy), dy.shape[-1]
    dx, n_rows = xp.empty_like(dy), dy.size // n
    _launch("layer_norm_backward", 32 * n_rows, dy, dy, x_hat, rstd, gamma, dx, n_rows, n)
    return dx


def keep_mask(rng: Generator, p: float, x: Array) -> Array:
    """Booleans of the shape of `x`, False with probability `p`, a multiple of 2^-16; `rng` gives the seed."""
    xp = array_module(x)
    kept = xp.empty(x.shape, bool)
    _launch("keep_mask", x.size, x, kept, x.size, random_bits(rng), int(p * 2**16))
    return kept


def apply_mask(x: Array, kept: Array, p: float) -> Array:
    """A CUDA kernel for layers/dropout.py's apply_mask, one launch."""
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y = xp.empty_like(x)
    _launch("apply_mask", x.size, x, x, kept, y, x.size, float(p))
    return y


def add_rows(target: Array, ids: Array, rows: Array) -> None:
    """CUDA kernels for backend.add_rows, two launches; `target` is contiguous, as a Parameter's gradient is."""
    xp = array_module(target)
    ids = ids.ravel().astype("int64", copy=False)
    rows = xp.ascontiguousarray(rows.astype(target.dtype, copy=False))
    order, n, width = xp.empty_like(ids), ids.size, target.shape[1]
    _launch("order_of", 32 * n, target, ids, order, n)
    _launch("add_rows", n * width, target, target, ids, order, rows, n, width)


def cross_entropy(logits: Array, target: Array, weight: Array, eps_ls: float) -> tuple[Array, Array]:
    """A CUDA kernel for training/loss.py's cross_entropy, one launch."""
    xp = array_module(logits)
    logits, n = xp.ascontiguousarray(logits), logits.shape[-1]
    target = xp.ascontiguousarray(target.astype("int64", copy=False))
    dlogits, n_rows = xp.empty_like(logits), logits.size // n
    losses = xp.empty((*logits.shape[:-1], 1), logits.dtype)
    lowest = float(xp.finfo(logits.dtype).min) / 2
    _launch("cross_entropy", 32 * n_rows, logits,
            logits, target, weight, dlogits, losses, n_rows, n, float(eps_ls), lowest)  # fmt: skip
    return losses, dlogits


def gelu(x: Array) -> tuple[Array, Array]:
    """A CUDA kernel for layers/gelu.py's gelu, one launch."""
    return _value_and_slope("gelu", x)


def gelu_tanh(x: Array) -> tuple[Array, Array]:
    """A CUDA kernel for layers/gelu.py's gelu_tanh, one launch."""
    return _value_and_slope("gelu_tanh", x)


def _value_and_slope(name: str, x: Array) -> tuple[Array, Array]:
    xp = array_module(x)
    x = xp.ascontiguousarray(x)
    y, slope = xp.empty_like(x), xp.empty_like(x)
    _launch(name, x.size, x, x, y, slope, x.size)
    return y, slope


def adam(
    p: Array, m: Array, v: Array, g: Array, lr: float, t: int, beta1: float, beta2: float, adam_eps: float
) -> None:
    """A CUDA kernel for training/optimizer.py's adam, one launch; updates p, m and v in place."""
    numbers = lr, beta1, beta2, 1 - beta1**t, 1 - beta2**t, adam_eps
    _launch("adam", p.size, p, p, m, v, g, p.size, *map(float, numbers))


def _launch(name: str, n_threads: int, like: Array, *arguments: Any) -> None:
    """Start the kernel `name` for numbers of like's dtype, without waiting for it to finish.

    Raises KeyError for a number that is neither int nor float: the kernel would misread its bytes.
    """
    if n_threads == 0:
        return
    xp = array_module(like)
    kinds = {int: xp.int64, float: xp.float64}  # long long and double
    typed = [x if isinstance(x, xp.ndarray) else kinds[type(x)](x) for x in arguments]
    _kernel(xp, name, like.dtype.itemsize)((-(-n_threads // THREADS),), (THREADS,), tuple(typed))


@cache
def _kernel(xp: Any, name: str, itemsize: int) -> Any:
    """The kernel `name` for numbers of `itemsize` bytes. The first call compiles all kernels for that size."""
    options = (f"-DNUMBER={'float' if itemsize == 4 else 'double'}",)
    return xp.RawModule(code=SOURCE, options=options).get_function(name)  # CuPy compiles the same text once


@cache
def _true(xp: Any) -> Array:
    """A mask that hides nothing."""
    return xp.ones(1, bool)
