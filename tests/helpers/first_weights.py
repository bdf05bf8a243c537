"""What parameters are to be before training, from the paper's and Glorot's formulas: drawn in order of definition."""

from __future__ import annotations

import math

import numpy as np

from minitransformer.backend import generator
from minitransformer.module import Module


def expected_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Name -> float64 array, for parameters of these names and shapes."""
    rng = generator(seed)
    weights = {}
    for name, shape in shapes.items():
        layer, dot, last = name.rpartition(".")
        kind = last[0]
        if last == "W_Q":  # of attention: W_Q, W_K and W_V are parts of one matrix
            names = [f"{layer}{dot}{W}" for W in ("W_Q", "W_K", "W_V")]
            widths = [shapes[n][1] for n in names]
            bound = math.sqrt(6 / (shape[0] + sum(widths)))
            matrix = rng.uniform(-bound, bound, (shape[0], sum(widths)))
            weights |= dict(zip(names, np.split(matrix, np.cumsum(widths)[:-1], axis=1), strict=True))
        elif name in weights:
            continue
        elif kind == "W":  # Glorot and Bengio 2010: uniform in ±sqrt(6 / (d_in + d_out))
            bound = math.sqrt(6 / sum(shape))
            weights[name] = rng.uniform(-bound, bound, shape)
        elif kind in "EP":  # deviation 1 / sqrt(d_model)
            weights[name] = rng.normal(0, 1 / math.sqrt(shape[-1]), shape)
        else:  # gamma 1, beta and b 0
            weights[name] = np.full(shape, 1.0 if kind == "g" else 0.0)
    return weights


def assert_first_weights(layer: Module, seed: int, dtype: str) -> None:
    """The layer's parameters are those of `seed`, to the last digits of `dtype`, and the gradients are zero."""
    weights = layer.state_dict()
    for name, expected in expected_weights({name: x.shape for name, x in weights.items()}, seed).items():
        assert weights[name].dtype == dtype, name
        np.testing.assert_allclose(weights[name], expected, rtol=2 * np.finfo(dtype).eps, err_msg=name)
    for p in layer.parameters().values():
        assert p.grad.dtype == dtype and not p.grad.any()
