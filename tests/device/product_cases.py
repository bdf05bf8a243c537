"""The matrix products of a model: operands and place as they lie in memory there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Sizes(NamedTuple):
    B: int  # sentences
    T: int  # tokens
    h: int  # heads
    d_model: int
    d_ff: int
    V: int  # words


SMALL = Sizes(3, 5, 2, 8, 7, 11)
BASE = Sizes(64, 64, 8, 512, 2048, 8000)  # shape g of tests/benchmarks


def heads(x: Any, B: int, T: int, h: int, d: int) -> Any:
    """(B, h, T, d), the heads of a token side by side in memory."""
    return x(B, T, h, d).swapaxes(1, 2)


def turned(x: Any) -> Any:
    return x.swapaxes(-1, -2)


# name -> (a, b, out), made by x(*shape). The first take one call of cuBLAS and copy nothing.
IN_ONE_CALL: dict[str, Callable[[Any, Sizes], tuple[Any, Any, Any]]] = {
    "linear": lambda x, s: (x(s.B * s.T, s.d_model), x(s.d_model, s.d_ff), x(s.B * s.T, s.d_ff)),
    "its dx": lambda x, s: (x(s.B * s.T, s.d_ff), x(s.d_model, s.d_ff).T, x(s.B * s.T, s.d_model)),
    "its dW": lambda x, s: (x(s.B * s.T, s.d_model).T, x(s.B * s.T, s.d_ff), x(s.d_model, s.d_ff)),
    "logits": lambda x, s: (x(s.B * s.T, s.d_model), x(s.V, s.d_model).T, x(s.B * s.T, s.V)),
    "parts of rows": lambda x, s: (x(s.T + 5, s.d_model)[5:], x(s.d_model, s.d_ff), x(s.T + 3, s.d_ff)[1:-2]),
    "parts of columns": lambda x, s: (x(s.T, s.d_model + 1)[:, 1:], x(s.d_model, s.d_ff + 2)[:, :-2],
                                      x(s.T, s.d_ff + 5)[:, 5:]),
    "to a transposed place": lambda x, s: (x(s.T, s.d_model), x(s.d_model, s.d_ff), x(s.d_ff, s.T).T),
    "one row": lambda x, s: (x(1, s.d_model), x(s.d_model, s.d_ff), x(1, s.d_ff)),
    "scores": lambda x, s: (x(s.B, s.h, s.T, s.d_model // s.h), turned(x(s.B, s.h, s.T, s.d_model // s.h)),
                            x(s.B, s.h, s.T, s.T)),
    "context": lambda x, s: (x(s.B, s.h, s.T, s.T), x(s.B, s.h, s.T, s.d_model // s.h),
                             x(s.B, s.h, s.T, s.d_model // s.h)),
    "dK": lambda x, s: (turned(x(s.B, s.h, s.T, s.T)), x(s.B, s.h, s.T, s.d_model // s.h),
                        x(s.B, s.h, s.T, s.d_model // s.h)),
    "heads of one sentence": lambda x, s: (x(1, s.h, s.T, s.T), heads(x, 1, s.T, s.h, s.d_model // s.h),
                                           heads(x, 1, s.T, s.h, s.d_model // s.h)),
    "one query of each sentence": lambda x, s: (heads(x, s.B, 1, s.h, s.d_model // s.h),
                                                turned(x(s.B, s.h, s.T, s.d_model // s.h)), x(s.B, s.h, 1, s.T)),
    "one matrix for all": lambda x, s: (x(s.B, s.T, s.d_model), x(s.d_model, s.d_ff), x(s.B, s.T, s.d_ff)),
}  # fmt: skip
CASES = IN_ONE_CALL | {
    "heads side by side": lambda x, s: (x(s.B, s.h, s.T, s.T), heads(x, s.B, s.T, s.h, s.d_model // s.h),
                                        heads(x, s.B, s.T, s.h, s.d_model // s.h)),
    "their dweights": lambda x, s: (heads(x, s.B, s.T, s.h, s.d_model // s.h),
                                    turned(heads(x, s.B, s.T, s.h, s.d_model // s.h)), x(s.B, s.h, s.T, s.T)),
    "backwards": lambda x, s: (x(s.T, s.d_model)[::-1], x(s.d_model, s.d_ff)[:, ::-1], x(s.T, s.d_ff)[:, ::-1]),
}  # fmt: skip
