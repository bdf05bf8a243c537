"""Products on a GPU beside NumPy's: without one, by cuBLAS's definition on raw memory (stand_in_cublas.py)."""

from __future__ import annotations

import ctypes
import inspect
import sys
from itertools import product as all_of
from typing import Any

import numpy as np
import pytest
import stand_in
import stand_in_cublas
from hypothesis import given, settings
from hypothesis import strategies as st
from product_cases import CASES, IN_ONE_CALL, SMALL
from stand_in import on_device, on_host

from minitransformer import gpu_products
from minitransformer.products import add_product, contiguous_on_gpu, product, write_product

DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def cupy(monkeypatch):
    there = stand_in.StandIn()
    monkeypatch.setitem(sys.modules, "cupy", there)
    monkeypatch.delenv("CUPY_TF32", raising=False)
    stand_in_cublas.calls.names.clear()
    return there


@st.composite
def views(draw: Any, shape: tuple[int, ...], dtype: str, repeats: bool = True) -> tuple[Any, Any]:
    """An array of random numbers, a view of a larger one that holds NaN elsewhere; and the larger one.

    Its axes may lie in any order, with gaps, backwards, or (of what is read only) repeat their first number.
    """
    order = draw(st.permutations(range(len(shape)))) if draw(st.booleans()) else range(len(shape))
    steps = [draw(st.sampled_from([1, 1, 1, 1, 1, 2, -1])) for _ in shape]
    gaps = [draw(st.sampled_from([0, 0, 0, 1, 3])) for _ in shape]
    whole = np.full([shape[i] * abs(steps[i]) + gaps[i] for i in order], np.nan, dtype)
    x = whole.transpose(np.argsort(order)) if shape else whole
    x = x[tuple(slice(0, n * abs(step), abs(step)) for n, step in zip(shape, steps, strict=True))]
    x = x[tuple(slice(None, None, np.sign(step)) for step in steps)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x[...] = rng.normal(size=shape) + (1j * rng.normal(size=shape) if np.dtype(dtype).kind == "c" else 0)
    if repeats and draw(st.integers(0, 5)) == 0 and shape:
        axis = draw(st.integers(0, len(shape) - 1))
        x = np.broadcast_to(x[(slice(None),) * axis + (slice(0, 1),)], shape) if shape[axis] else x
    return x, whole


@st.composite
def problems(draw: Any) -> tuple[Any, ...]:
    """out, the array that `out` is a view of, a and b; mostly shapes that fit and one dtype, but not always."""
    sizes = st.sampled_from([1, 2, 3, 5, 5, 0] if draw(st.booleans()) else [1, 2, 3, 5])
    many = tuple(draw(st.lists(sizes, max_size=3)))
    n, k, m = (draw(sizes) for _ in range(3))
    of_a = of_b = many
    match draw(st.sampled_from(["same"] * 4 + ["one a", "one b", "along some axes"])):
        case "one a":
            of_a = ()
        case "one b":
            of_b = ()
        case "along some axes":
            of_a, of_b = (
                many[draw(st.integers(0, len(many))) :],
                tuple(draw(st.sampled_from([1, s])) for s in many),
            )
    dtype = draw(st.sampled_from([*DTYPES, *DTYPES, *DTYPES, "complex128"]))
    others = [draw(st.sampled_from([dtype] * 8 + ["float32"])) for _ in range(2)]
    a, _ = draw(views((*of_a, n, k), others[0]))
    b, _ = draw(views((*of_b, k, m), others[1]))
    of_product = np.broadcast_shapes(of_a, of_b)
    out, whole = draw(views((*of_product, n, m), dtype, repeats=False))
    return out, whole, a, b


def there(*arrays: Any) -> Any:
    """The same memory as arrays on the device."""
    return [x.view(stand_in.DeviceArray) for x in arrays]


def assert_close(found: Any, expected: Any, a: Any, b: Any) -> None:
    eps = np.finfo("float32" if a.dtype == b.dtype == "float32" else "float64").eps
    assert found.shape == expected.shape
    assert (abs(found - expected) <= 16 * eps * (abs(a) @ abs(b) + abs(expected))).all()


@settings(max_examples=600, deadline=None)
@given(problems(), st.booleans())
def test_a_product_to_its_place_is_numpys_and_touches_nothing_else(problem, add):
    out, whole, a, b = problem
    before_a, before_b, outside = a.copy(), b.copy(), np.isnan(whole)
    expected = a @ b + (out if add else 0)
    if not add:
        out[...] = np.nan  # which must not be read
    gpu_products.multiply(*there(out, a, b), add=add)
    assert_close(out, expected.astype(out.dtype), before_a, before_b)
    np.testing.assert_array_equal(a, before_a)
    np.testing.assert_array_equal(b, before_b)
    assert np.isnan(whole[outside]).all() and outside.sum() == whole.size - out.size


@settings(max_examples=300, deadline=None)
@given(problems())
def test_a_new_product_is_numpys(problem):
    _, _, a, b = problem
    found = product(*there(a, b))
    assert type(found) is stand_in.DeviceArray and found.dtype == np.result_type(a, b)
    assert_close(on_host(found), a @ b, a, b)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_cublas_as_it_stands_in_is_its_definition_number_by_number(data):
    """alpha op(A) op(B) + beta C by columns, with three loops over addresses."""
    draw = data.draw
    transa, transb = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    m, n, k, count = (draw(st.integers(1, 4)) for _ in range(4))
    rows = [(k if transa else m), (n if transb else k), m]
    columns = [(m if transa else k), (k if transb else n), n]
    leading = [r + draw(st.integers(0, 2)) for r in rows]
    strides = [ld * c + draw(st.integers(0, 2)) for ld, c in zip(leading, columns, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    A, B, C = (rng.normal(size=count * stride) for stride in strides)
    alpha, beta = (ctypes.c_double(draw(st.sampled_from([0.0, 1.0, -2.0]))) for _ in range(2))
    expected = C.copy()
    for i, r, c in all_of(range(count), range(m), range(n)):
        total = 0.0
        for j in range(k):
            x = A[(j + r * leading[0] if transa else r + j * leading[0]) + i * strides[0]]
            y = B[(c + j * leading[1] if transb else j + c * leading[1]) + i * strides[1]]
            total += x * y
        place = r + c * leading[2] + i * strides[2]
        expected[place] = alpha.value * total + beta.value * C[place]
    stand_in_cublas.gemmStridedBatchedEx(
        stand_in_cublas.HANDLE, transa, transb, m, n, k, ctypes.addressof(alpha), A.ctypes.data, 1, leading[0],
        strides[0], B.ctypes.data, 1, leading[1], strides[1], ctypes.addressof(beta), C.ctypes.data, 1, leading[2],
        strides[2], count, 70, -1,
    )  # fmt: skip
    np.testing.assert_allclose(C, expected, rtol=1e-12, atol=1e-13)


def test_cublas_as_it_stands_in_has_the_arguments_of_cupys():
    for name, function in stand_in_cublas.FUNCTIONS.items():
        assert list(inspect.signature(function).parameters) == stand_in.API[f"cuda.cublas.{name}"]
    named = {"COMPUTE_32F", "COMPUTE_64F", "COMPUTE_32F_FAST_TF32"}
    for name in named:
        assert stand_in.NUMBERS[f"cuda.cublas.CUBLAS_{name}"] == getattr(stand_in_cublas, name)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 1), (1, 2), (2, -1), (3, 0), (7, 1), (8, 0), (9, 2), (10, -1), (11, 3), (16, 12), (17, 0), (18, 1), (18, 2),
     (19, 3), (20, 69), (20, 68), (21, 99)],
)  # fmt: skip
def test_cublas_as_it_stands_in_refuses_wrong_arguments(place, value):
    """The first call is right: two products (3, 4) (4, 2) in float64. Then one argument is wrong."""
    A, B, C, one = np.ones((2, 4, 3)), np.ones((2, 2, 4)), np.zeros((2, 2, 3)), ctypes.c_double(1)
    scale = ctypes.addressof(one)
    right = [stand_in_cublas.HANDLE, 0, 0, 3, 2, 4, scale, A.ctypes.data, 1, 3, 12, B.ctypes.data, 1, 4, 8,
             scale, C.ctypes.data, 1, 3, 6, 2, 70, -1]  # fmt: skip
    stand_in_cublas.gemmStridedBatchedEx(*right)
    np.testing.assert_array_equal(C, 4)
    names = list(inspect.signature(stand_in_cublas.gemmStridedBatchedEx).parameters)
    wrong = list(right)
    wrong[place] = {16: A.ctypes.data, 7: A.ctypes.data + 1, 11: B.ctypes.data + 4}.get(place, value)
    if place == 20:
        wrong[21], wrong[20] = value, 2
    if place == 21:
        wrong[21], wrong[22] = 70, value
    with pytest.raises(stand_in_cublas.CUBLASError):
        stand_in_cublas.gemmStridedBatchedEx(*wrong)
        print(names[place])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", IN_ONE_CALL)
def test_nothing_is_copied(cupy, monkeypatch, case, dtype):
    """What linear layers and attention multiply takes one call of cuBLAS, and no other of CuPy's functions."""
    rng = np.random.default_rng(1)
    a, b, out = IN_ONE_CALL[case](lambda *shape: on_device(rng.normal(size=shape).astype(dtype)), SMALL)
    for name in ("ascontiguousarray", "empty", "matmul", "broadcast_to"):
        monkeypatch.delitem(stand_in.API, name)
    expected = on_host(a) @ on_host(b)
    for function, more in ((write_product, 0), (add_product, expected)):
        function(out, a, b)
        np.testing.assert_allclose(on_host(out), expected + more, rtol=1e-5, atol=1e-5)
    assert stand_in_cublas.calls.names == 2 * ["gemmEx" if a.ndim == 2 else "gemmStridedBatchedEx"]


def test_heads_side_by_side_are_copied_once(cupy):
    """(B, T, h · d), seen as (B, h, T, d): no single distance leads from one head to the next."""
    rng = np.random.default_rng(1)
    weights, heads, _ = CASES["heads side by side"](lambda *shape: on_device(rng.normal(size=shape)), SMALL)
    assert gpu_products.layout(heads) is None
    copied = contiguous_on_gpu(heads)
    assert gpu_products.layout(copied) == (False, 4, 5 * 4)
    for x in (heads, copied):
        np.testing.assert_allclose(
            on_host(product(weights, x)), on_host(weights) @ on_host(heads), rtol=1e-12
        )
    on_cpu = on_host(heads)
    assert contiguous_on_gpu(on_cpu) is on_cpu


def test_what_a_place_held_does_not_matter_unless_it_is_added_to(cupy):
    a, b = on_device(np.ones((2, 3))), on_device(np.ones((3, 2)))
    out = cupy.empty((2, 2))
    assert np.isnan(on_host(out)).all()
    write_product(out, a, b)
    add_product(out, a, b)
    np.testing.assert_array_equal(on_host(out), 6)


def test_vectors_and_a_place_of_another_dtype_are_left_to_cupy(cupy):
    a, b = (
        on_device(np.arange(n * 3).reshape(shape).astype("float32"))
        for n, shape in ((2, (2, 3)), (3, (3, 3)))
    )
    for x, y in ((a[0], b), (a, b[0]), (a[0], b[0])):
        np.testing.assert_array_equal(on_host(product(x, y)), on_host(x) @ on_host(y))
    out = cupy.empty((2, 3), "float64")
    write_product(out, a, b)
    np.testing.assert_array_equal(on_host(out), on_host(a) @ on_host(b))
    assert not stand_in_cublas.calls.names


@pytest.mark.parametrize("shapes", [((2, 3), (4, 2), (2, 2)), ((2, 3), (3, 2), (2, 3)), ((2, 3), (3, 2), (4,)),
                                    ((2, 2, 3), (3, 3, 2), (2, 2, 2))])  # fmt: skip
def test_wrong_shapes_are_refused_as_without_it(shapes):
    a, b, out = (on_device(np.ones(shape)) for shape in shapes)
    with pytest.raises(ValueError):
        write_product(out, a, b)
    assert not stand_in_cublas.calls.names


def test_arrays_on_the_host_are_refused(cupy):
    a, b = np.ones((2, 3)), np.ones((3, 2))
    for first, second in ((a, on_device(b)), (on_device(a), b), (a, b)):
        with pytest.raises(TypeError):
            gpu_products.multiply(cupy.empty((2, 2)), first, second)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (2, 6, 6)])
def test_cupys_switch_rounds_float32_to_11_bits(monkeypatch, shape, dtype):
    a, b = np.random.default_rng(1).normal(size=(2, *shape)).astype(dtype)
    found = {}
    for switch in ("0", "1"):
        monkeypatch.setenv("CUPY_TF32", switch)
        monkeypatch.setitem(sys.modules, "cupy", stand_in.StandIn())  # imported anew
        found[switch] = np.empty_like(a)
        write_product(*there(found[switch], a, b))
    if dtype == "float64":
        np.testing.assert_array_equal(found["1"], found["0"])
    else:
        np.testing.assert_allclose(found["0"], a @ b, rtol=1e-5, atol=1e-6)
        assert 1e-5 < abs(found["1"] - a @ b).max() < 1e-2
        assert abs(stand_in_cublas.tf32(a) / a - 1).max() <= 2**-11
