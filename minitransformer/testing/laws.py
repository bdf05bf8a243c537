"""Laws that hold for every layer that keeps the contract of module.py, derived from Module or not.

Each law takes a layer and inputs of its forward, and raises AssertionError if it does not hold. With `dropout_seed`,
forward is given a generator: it is then the same function in each call, dropout and all. Arrays are NumPy's, in float64
where the law is an equation of numbers (`assert_linear`, `assert_accumulates`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from minitransformer.backend import Generator
from minitransformer.gradcheck.subject import has_attributes
from minitransformer.parameter import Parameter, parameters_of, walk

# ---- laws


def assert_pure(layer: Any, *inputs: Any, dropout_seed: int | None = None) -> None:
    """Forward writes to nothing; backward writes to nothing but .grad. Neither keeps anything on the layer."""
    state = _state(layer)
    with _read_only(inputs):
        y, cache = _forward(layer, inputs, dropout_seed)
    _assert_unchanged("forward", state, _state(layer))
    own = {id(x) for p in parameters_of(layer).values() for x in (p.data, p.grad)}
    given = [
        upstream(y, np.random.default_rng(0)),
        *inputs,
        *(a for _, a in walk([("cache", cache)], has_attributes, set()) if id(a) not in own),
    ]
    with _read_only(given):
        gradients(layer, given[0], cache)
    _assert_unchanged("backward", state, _state(layer))


def assert_accumulates(layer: Any, *inputs: Any, dropout_seed: int | None = None) -> None:
    """Backward twice with one cache gives equal gradients of the inputs, and adds twice to .grad, whatever is there."""
    y, cache = _forward(layer, inputs, dropout_seed)
    rng = np.random.default_rng(0)
    dy, parameters = upstream(y, rng), list(parameters_of(layer).values())
    before = [p.grad.copy() for p in parameters]
    for p in parameters:
        p.grad = rng.normal(size=p.shape).astype(p.data.dtype)
    dx, grads = [], [[p.grad.copy() for p in parameters]]
    for _ in range(2):
        dx.append(_copies(arrays_in([layer.backward(dy, cache)])))
        grads.append([p.grad.copy() for p in parameters])
    for p, grad in zip(parameters, before, strict=True):
        p.grad = grad
    assert_same(*dx)
    start, once, twice = grads
    added, added_twice = ([b - a for a, b in zip(start, after, strict=True)] for after in (once, twice))
    assert_close(added_twice, [2 * a for a in added])
    assert not parameters or any(a.any() for a in added), "backward adds nothing to any .grad"


def assert_reentrant(
    layer: Any, inputs: Sequence[Any], others: Sequence[Any], dropout_seed: int | None = None
) -> None:
    """Two forwards may be in flight: neither another forward, on `others`, nor its backward disturbs the first."""
    y, cache = _forward(layer, inputs, dropout_seed)
    before, dy = _copies(arrays_in(y)), upstream(y, np.random.default_rng(0))
    alone = gradients(layer, dy, cache)
    y_other, cache_other = _forward(layer, others, None if dropout_seed is None else dropout_seed + 1)
    _forward(layer, others, None)
    gradients(layer, upstream(y_other, np.random.default_rng(1)), cache_other)
    assert_same(arrays_in(y), before)
    assert_same(gradients(layer, dy, cache), alone)


def assert_linear(layer: Any, *inputs: Any, factor: float = -3.7, dropout_seed: int | None = None) -> None:
    """Backward is linear in dy, since it is a matrix (the Jacobian, transposed) times dy; so zeros give zeros."""
    y, cache = _forward(layer, inputs, dropout_seed)
    rng = np.random.default_rng(0)
    dy_1, dy_2 = upstream(y, rng), upstream(y, rng)
    first, second = gradients(layer, dy_1, cache), gradients(layer, dy_2, cache)
    expected = [factor * g + h for g, h in zip(first, second, strict=True)]
    assert_close(gradients(layer, factor * dy_1 + dy_2, cache), expected)
    assert any(g.any() for g in first), "all gradients are zero"
    assert not any(g.any() for g in gradients(layer, np.zeros_like(y), cache)), "dy = 0 gives other gradients"


def assert_causal(layer: Any, x: np.ndarray, j: int, dropout_seed: int | None = None) -> None:
    """Outputs before position j do not depend on x from j on, and have no gradient there, to the last bit.

    x and y: (..., T, d). The layer's forward takes only x; whatever else it needs is bound beforehand. The output at j
    has to depend on x, since otherwise the law would hold for a layer that ignores its input.
    """
    rng, changed = np.random.default_rng(0), x.copy()
    changed[..., j:, :] = 1000 * rng.normal(size=x[..., j:, :].shape)
    (before, cache), (after, _) = (_forward(layer, (z,), dropout_seed) for z in (x, changed))
    assert_same([after[..., :j, :]], [before[..., :j, :]])
    assert (before[..., j, :] != after[..., j, :]).any(), "the output at j does not depend on x at all"
    dy = upstream(before, rng)
    dy[..., j:, :] = 0
    dx, *_ = arrays_in([layer.backward(dy, cache)])
    assert not dx[..., j:, :].any(), "outputs before j have a gradient in x from j on"
    assert dx[..., :j, :].any(), "outputs before j have no gradient in x"


def assert_ignores(
    layer: Any, inputs: Sequence[Any], i: int, is_word: np.ndarray, outputs: np.ndarray | None = None
) -> None:
    """Numbers of input i where `is_word` is False reach neither an output nor a gradient, to the last bit.

    is_word: (B, T) for an input (B, T, d); the mask that hides the others is one of the inputs. With `outputs`, only
    the outputs where this is True count: those of padding itself need not stay the same.
    """
    rng, x = np.random.default_rng(0), inputs[i]
    noise = 1000 * rng.normal(size=x.shape).astype(x.dtype)
    changed = [*inputs[:i], np.where(is_word[..., None], x, noise), *inputs[i + 1 :]]
    (before, cache), (after, cache_after) = (_forward(layer, given, None) for given in (inputs, changed))
    counts = np.ones(before.shape[:2], bool) if outputs is None else outputs
    assert_same([after[counts]], [before[counts]])
    dy = upstream(before, rng) * counts[..., None]
    found = gradients(layer, dy, cache)
    assert_same(gradients(layer, dy, cache_after), found)
    dx = found[i]
    assert not dx[~is_word].any(), "there is a gradient behind the mask"
    assert dx[is_word].any(), "there is no gradient before the mask either"


# ---- what backward finds


def arrays_in(tree: Any) -> Iterator[np.ndarray]:
    """All arrays, and numbers with a dtype, in nested tuples and lists."""
    if isinstance(tree, tuple | list):
        for node in tree:
            yield from arrays_in(node)
    elif isinstance(tree, np.ndarray | np.generic):
        yield np.asarray(tree)


def upstream(y: np.ndarray, rng: Generator) -> np.ndarray:
    """A random dy, in the dtype of y."""
    return np.asarray(rng.normal(size=np.shape(y))).astype(y.dtype)


def gradients(layer: Any, dy: np.ndarray, cache: Any) -> list[np.ndarray]:
    """All gradients: those that backward returns, then those that it adds to .grad, which is left as it was."""
    parameters = list(parameters_of(layer).values())
    before = [p.grad.copy() for p in parameters]
    for p in parameters:
        p.grad = np.zeros_like(p.grad)
    dx = list(arrays_in([layer.backward(dy, cache)]))
    found = [*dx, *(p.grad.copy() for p in parameters)]
    for p, grad in zip(parameters, before, strict=True):
        p.grad = grad
    return found


# ---- what "the same" means


def assert_same(got: Iterable[np.ndarray], expected: Iterable[np.ndarray]) -> None:
    """Raise AssertionError unless all arrays are equal to the last bit, except for the sign of zero."""
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def assert_close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = 1e-10) -> None:
    """Raise AssertionError unless all arrays are equal up to rounding, each relative to its largest number.

    A gradient may be 0 in theory (that of b_K is, since softmax does not see shifts) and rounding errors in practice.
    So the number that an error is relative to is at least a thousandth of the largest number in all arrays.
    """
    largest = max((abs(b).max(initial=0) for b in expected), default=0)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape, f"expected an array of shape {b.shape}, got {a.shape}"
        allowed = tolerance * max(abs(b).max(initial=0), 1e-3 * largest)
        error = abs(a - b).max(initial=0)
        assert error <= allowed, f"differs by {error:.1e}, and {allowed:.1e} is allowed"  # NaN is not


def _forward(layer: Any, inputs: Sequence[Any], dropout_seed: int | None) -> tuple[Any, Any]:
    how = {} if dropout_seed is None else {"rng": np.random.default_rng(dropout_seed)}
    y, cache = layer.forward(*inputs, **how)
    return y, cache


def _copies(tree: Iterable[Any]) -> list[Any]:
    return [x.copy() if isinstance(x, np.ndarray) else x for x in tree]


@contextmanager
def _read_only(tree: Iterable[Any]) -> Iterator[None]:
    """A context in which writing to one of the arrays fails, whatever is written, and even through a view."""
    writeable = [a for a in tree if isinstance(a, np.ndarray) and a.flags.writeable]
    before = [a.copy() for a in writeable]
    for a in writeable:
        a.flags.writeable = False
    try:
        yield
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise AssertionError(f"an input, dy or the cache is written to: {error}") from error
    finally:
        # views after the arrays that they are views of
        for a in sorted(writeable, key=lambda a: a.base is not None):
            a.flags.writeable = True
    assert_same(writeable, before)


def _state(layer: Any) -> dict[str, Any]:
    """Path -> all that lies in a layer, at any depth; copies of arrays."""
    found: dict[str, Any] = {}
    for path, leaf in walk([("layer", layer)], has_attributes, set(), plain=set()):
        inside = {".data": leaf.data, ".grad": leaf.grad} if isinstance(leaf, Parameter) else {"": leaf}
        found |= {f"{path}{end}": x.copy() if isinstance(x, np.ndarray) else x for end, x in inside.items()}
    return found


def _assert_unchanged(who: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys(), f"{who} adds or removes {sorted(before.keys() ^ after.keys())}"
    for path, x in before.items():
        y = after[path]
        kept = (
            np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")
            if isinstance(x, np.ndarray)
            else x is y or x == y
        )
        assert kept, f"{who} writes to {path}"
