"""Everything is computed by the library that the parameters belong to: shown without a GPU, on a stand-in for CuPy.

The stand-in's arrays live in NumPy's memory, under CuPy's rules: NumPy's functions refuse them, and they refuse
NumPy's arrays. What it cannot show is that CuPy has the functions that are called.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from support import T_K, T_Q, V_SRC, B, random_ids, tiny_config

import minitransformer as mt

OPERATORS = {
    "absolute",
    "add",
    "bitwise_and",
    "bitwise_or",
    "divide",
    "equal",
    "floor_divide",
    "greater",
    "greater_equal",
    "invert",
}
OPERATORS |= {
    "less",
    "less_equal",
    "matmul",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "remainder",
    "subtract",
}


class DeviceArray(np.ndarray):
    """An array that refuses NumPy's functions and NumPy's arrays: it has operators, methods, and its own library."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        if method == "__call__" and ufunc.__name__ not in OPERATORS:
            raise TypeError(f"numpy.{ufunc.__name__} for an array on a device")
        if any(type(x) is np.ndarray for x in (*inputs, *out)):
            raise TypeError(f"{ufunc.__name__} of arrays on a device and on the host")
        if out:
            options["out"] = tuple(on_host(x) for x in out)
        result = getattr(ufunc, method)(*map(on_host, inputs), **options)
        return out[0] if out else on_device(result)

    def __array_function__(self, function, kinds, inputs, options):
        raise TypeError(f"numpy.{function.__name__} for an array on a device")

    def __setitem__(self, index, value):
        if type(value) is np.ndarray:
            raise TypeError("assignment of an array on the host")
        super().__setitem__(index, value)


def on_host(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, DeviceArray) else x


def on_device(x: Any) -> Any:
    return x.view(DeviceArray) if type(x) is np.ndarray else x


class StandIn(types.ModuleType):
    """NumPy's functions, from DeviceArray to DeviceArray."""

    ndarray = DeviceArray
    asnumpy = staticmethod(on_host)

    class lib:
        class stride_tricks:
            @staticmethod
            def as_strided(x, shape, strides):
                return on_device(np.lib.stride_tricks.as_strided(on_host(x), shape, strides))

    def __getattr__(self, name):
        thing = getattr(np, name)
        if name in OPERATORS or isinstance(thing, type) or not callable(thing):
            return thing

        def function(*inputs, **options):
            if np.ndarray in map(type, inputs):
                raise TypeError(f"{name} of an array on the host")
            inputs = [list(map(on_host, x)) if isinstance(x, list) else on_host(x) for x in inputs]
            return on_device(thing(*inputs, **{key: on_host(x) for key, x in options.items()}))

        return function


@pytest.fixture
def device(monkeypatch) -> str:
    def asarray(x, *options, asarray=np.asarray, **more):
        if isinstance(x, DeviceArray):
            raise TypeError("numpy.asarray for an array on a device")
        return asarray(x, *options, **more)

    cupy = StandIn("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(getDeviceCount=lambda: 1))
    cupy.asarray = lambda x, asarray=np.asarray: on_device(asarray(on_host(x)))
    monkeypatch.setattr(np, "asarray", asarray)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return "cuda"


def train_and_decode(device: str, keep: str, **changes: Any) -> list[np.ndarray]:
    """Two steps with dropout and clipping, the second with a restored optimizer; then translations."""
    model = mt.Transformer(tiny_config(**changes), seed=3, device=device)
    loss_fn, adam = mt.LabelSmoothedCrossEntropy(0.1), mt.Adam(model)
    kind = DeviceArray if device == "cuda" else np.ndarray
    rng = np.random.default_rng(4)
    V_tgt = model.config.tgt_vocab_size
    found = []
    for step in (1, 2):
        ids = random_ids(rng, B, T_K, V_SRC), random_ids(rng, B, T_Q, V_tgt)
        model.zero_grad()
        logits, cache = model.forward(*ids, rng=rng, keep=keep)
        loss, loss_cache = loss_fn.forward(logits, random_ids(rng, B, T_Q, V_tgt))
        model.backward(loss_fn.backward(loss_cache), cache)
        assert {type(x) for x in (logits, model.flatten().grad, model.output.E.data, adam.m)} == {kind}
        found += [on_host(logits), np.asarray(loss), on_host(model.flatten().grad).copy()]
        found += [np.asarray(mt.clip_grad_norm(model, 0.5))]
        adam.step(0.01 * step)
        state = adam.state_dict()
        assert type(state["m"]) is type(state["v"]) is np.ndarray
        adam = mt.Adam(model)
        adam.load_state_dict(state)
    written = mt.greedy_decode(model, ids[0], 1, 2, 9)
    assert type(written) is kind
    drawn = mt.sample(model, ids[0], rng, 1.5, top_k=9, top_p=0.9, max_len=9)
    assert type(drawn) is kind
    best = [h for found_of in mt.beam_search(model, ids[0], 3, max_len=9) for h in found_of]
    found += [np.array([h.score for h in best]), *(np.array(h.ids) for h in best)]
    found += [*state.values(), on_host(written), on_host(drawn)]
    weights = model.state_dict()
    assert {type(x) for x in weights.values()} == {np.ndarray}
    model.load_state_dict(weights)
    return [*found, *weights.values()]


@pytest.mark.parametrize("keep", ["caches", "inputs"])
@pytest.mark.parametrize("changes", [{}, {"norm": "pre", "positions": "learned", "attention_bias": True}])
def test_everything_is_computed_by_the_library_of_the_parameters(device, changes, keep):
    there, here = train_and_decode(device, keep, **changes), train_and_decode("cpu", keep, **changes)
    for a, b in zip(there, here, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_stand_in_refuses_what_cupy_refuses(device):
    cupy = sys.modules["cupy"]
    x = cupy.ones((2, 3))
    assert type(x + x) is type(x @ x.T) is type(cupy.exp(x)) is type(x.sum(0)) is DeviceArray
    for wrong in (lambda: np.exp(x), lambda: x + np.ones(3), lambda: np.where(x > 0, x, 0),
                  lambda: x.__setitem__(0, np.ones(3)), lambda: np.add(x, x, out=np.ones((2, 3))),
                  lambda: cupy.where(np.ones(3), x, 0), lambda: np.asarray(x)):  # fmt: skip
        with pytest.raises(TypeError):
            wrong()
