"""Check a CUDA kernel written for CuPy: arrays go in and come out as CuPy's, and the checker computes with them there.

    pip install cupy-cuda12x && python examples/check_a_cupy_kernel.py

Without a GPU, NumPy's arrays take the place of CuPy's, and the formula that of the kernel.
"""

import numpy as np

import minitransformer as mt

try:
    import cupy as xp

    xp.cuda.runtime.getDeviceCount()
except Exception:  # no CuPy, or no GPU
    xp = np

if xp is np:

    def gelu_backward(dy, x):
        t = np.tanh(0.79788456080286536 * (x + 0.044715 * x**3))
        return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286536 * (1 + 3 * 0.044715 * x * x))

else:
    gelu_backward = xp.ElementwiseKernel(
        "float64 dy, float64 x",
        "float64 dx",
        """
        double t = tanh(0.79788456080286536 * (x + 0.044715 * x * x * x));
        dx = dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456080286536 * (1 + 3 * 0.044715 * x * x));
        """,
        "gelu_backward",
    )


def gelu(x):
    """0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))"""
    return 0.5 * x * (1 + xp.tanh(0.79788456080286536 * (x + 0.044715 * x**3)))


def half(dy, x):
    """The same kernel with a factor lost."""
    return 0.5 * gelu_backward(dy, x)


if __name__ == "__main__":
    x = xp.asarray(np.random.default_rng(0).normal(size=(3, 5)))
    for backward in (gelu_backward, half):
        print(mt.gradcheck_function(gelu, backward, x), end="\n\n")
