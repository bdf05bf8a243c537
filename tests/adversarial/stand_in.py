"""A stand-in for CuPy, for machines without a GPU. Its arrays live in NumPy's memory, under CuPy's rules:

- NumPy's functions refuse them, and they refuse NumPy's arrays; `numpy.asarray`, `float`, `int`, `bool` and iteration
  refuse them too. Only `cupy.asnumpy` gives what they hold, and each call is counted, as is a boolean index: these
  are what waits for a GPU (`Counts`);
- there is nothing but the functions, methods and keyword arguments of cupy_api.txt, which test_cupy.py compares with
  CuPy where it is installed;
- memory not yet written, of `empty` and `empty_like`, holds 0xFF bytes: NaN as floats, -1 as integers;
- kernels (`RawModule`) are compiled for the CPU by the C++ compiler, if there is one;
- cuBLAS (`cuda.cublas`) is the one of stand_in_cublas.py.
"""

from __future__ import annotations

import builtins
import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import stand_in_cublas

COMPILER = shutil.which("c++") or shutil.which("g++")
API: dict[str, list[str]] = {}  # name, methods with a dot before it -> its arguments
NUMBERS: dict[str, int] = {}  # name -> value, of CUDA's constants
for line in (Path(__file__).parents[1] / "device" / "cupy_api.txt").read_text().splitlines():
    name, arguments, number = re.fullmatch(r"([.\w]+)(?:\((.*)\)| = (-?\d+))?", line).groups()
    API[name] = (arguments or "").split(", ")
    if number:
        NUMBERS[name] = int(number)
HIDDEN = {name for name in dir(np.ndarray) if not name.startswith("_") and f".{name}" not in API}


class Counts(types.SimpleNamespace):
    """How often something waited for the GPU, and how often arrays were sent to it."""

    waits = 0
    sent = 0


counts = Counts()


class DeviceArray(np.ndarray):
    """An array on a GPU that is not there."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        name = {"true_divide": "divide", "conj": "conjugate"}.get(ufunc.__name__, ufunc.__name__)
        if method == "__call__" and name not in API and f".{name}" not in API:
            raise TypeError(f"numpy.{name} for an array on a device")
        refuse_host_arrays(name, (*inputs, *out))
        if out:
            options["out"] = tuple(map(on_host, out))
        result = getattr(ufunc, method)(*map(on_host, inputs), **options)
        return out[0] if out else on_device(result)

    def __array_function__(self, function, kinds, inputs, options):
        raise TypeError(f"numpy.{function.__name__} for an array on a device")

    def __getattribute__(self, name):
        if name in HIDDEN:
            raise AttributeError(f"CuPy's arrays have no .{name}, as far as cupy_api.txt says")
        found = super().__getattribute__(name)
        if name == "data":
            return types.SimpleNamespace(ptr=on_host(self).ctypes.data)
        if f".{name}" in API and callable(found):
            return functools.partial(allowed, f".{name}", found)
        return found

    def __getitem__(self, index):
        """A number, too, is a view, an array of no axes."""
        check_index(index)
        return on_device(super().__getitem__(with_ellipsis(index)))

    def __setitem__(self, index, value):
        check_index(index)
        refuse_host_arrays("assignment", [value])
        target, value = on_host(self)[with_ellipsis(index)], on_host(value)
        # CuPy takes these for the same array and writes nothing, whatever their dtypes: x[i] = x[i].real
        if not (isinstance(value, np.ndarray) and laid_out_alike(target, value)):
            super().__setitem__(index, value)

    def _refuse(self, *arguments):
        raise TypeError(
            "a number of an array on a device: ask for it by cupy.asnumpy, which waits for the device"
        )

    __float__ = __int__ = __index__ = __bool__ = __complex__ = __iter__ = __array__ = _refuse  # type: ignore[assignment]


def allowed(name: str, function: Any, *inputs: Any, **options: Any) -> Any:
    """function(...), if it is called with arrays on the device and keyword arguments that CuPy's has."""
    if unknown := options.keys() - set(API[name]):
        raise TypeError(f"CuPy's {name} has no argument {', '.join(unknown)}, as far as cupy_api.txt says")
    refuse_host_arrays(name, [*inputs, *options.values()])
    return on_device(function(*inputs, **options))


def refuse_host_arrays(name: str, inputs: Any) -> None:
    if any(type(x) is np.ndarray for x in inputs):
        raise TypeError(f"{name} of arrays on a device and on the host")


def check_index(index: Any) -> None:
    """Refuse arrays on the host; a boolean index waits, since its result has as many rows as it has Trues."""
    parts = index if isinstance(index, tuple) else (index,)
    refuse_host_arrays("index", parts)
    counts.waits += sum(isinstance(part, DeviceArray) and part.dtype == bool for part in parts)


def with_ellipsis(index: Any) -> tuple[Any, ...]:
    parts = index if isinstance(index, tuple) else (index,)
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def laid_out_alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both begin at the same place in memory, and have the same shape and strides."""
    return (a.ctypes.data, a.shape, a.strides) == (b.ctypes.data, b.shape, b.strides)


def waited() -> None:
    counts.waits += 1


def on_host(x: Any) -> Any:
    return np.ndarray.view(x, np.ndarray) if isinstance(x, DeviceArray) else x


def on_device(x: Any) -> Any:
    """`x`, if it is an array or a number of NumPy's, as an array on the device."""
    if isinstance(x, np.ndarray) and x.base is not None:
        return np.ndarray.view(x, DeviceArray)
    if isinstance(x, np.ndarray | np.generic) and not isinstance(x, DeviceArray):
        owned = np.ndarray.__new__(DeviceArray, x.shape, x.dtype)
        np.copyto(on_host(owned), x)
        return owned
    return x


class RawModule:
    """Kernels, compiled for the CPU."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None:
        self.library = compiled(code, options)

    def get_function(self, name: str) -> Any:
        function = getattr(self.library, name)

        def launch(grid, block, arguments):
            assert 0 < grid[0] < 2**31 and block[0] % 32 == 0
            function(*map(c_value, arguments))

        return launch


def c_value(x: Any) -> Any:
    if isinstance(x, DeviceArray):
        assert x.flags.c_contiguous or x.dtype == bool, "a kernel reads what lies in memory, row by row"
        return ctypes.c_void_p(on_host(x).ctypes.data)
    return {np.int64: ctypes.c_longlong, np.float64: ctypes.c_double}[type(x)](x.item())


@functools.cache
def compiled(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    assert COMPILER is not None
    folder = Path(tempfile.mkdtemp())
    library = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.so"
    (folder / "kernels.cpp").write_text(code)
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    subprocess.run([COMPILER, "-std=c++11", "-O1", *warnings, "-fPIC", "-shared", *options, "-o", library,
                    folder / "kernels.cpp"], check=True)  # fmt: skip
    found = ctypes.CDLL(str(library))
    shutil.rmtree(folder)
    return found


class StandIn(types.ModuleType):
    """The functions of cupy_api.txt, from DeviceArray to DeviceArray."""

    ndarray = DeviceArray
    RawModule = RawModule

    def __init__(self) -> None:
        super().__init__("cupy")
        runtime = types.SimpleNamespace(
            getDeviceCount=lambda: 1, CUDARuntimeError=RuntimeError, **numbers_of("cuda.runtime")
        )
        self.cuda = types.SimpleNamespace(
            runtime=runtime,
            cublas=types.SimpleNamespace(**stand_in_cublas.FUNCTIONS, **numbers_of("cuda.cublas")),
            get_cublas_handle=lambda: stand_in_cublas.HANDLE,
            Device=lambda i=0: types.SimpleNamespace(use=lambda: None, pci_bus_id=f"bus {i}"),
            get_current_stream=lambda: types.SimpleNamespace(ptr=0, synchronize=waited),
        )
        as_strided = self._wrapped("as_strided", np.lib.stride_tricks.as_strided)
        self.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided))

    @staticmethod
    def asnumpy(x: Any) -> np.ndarray:
        counts.waits += 1
        return on_host(x).copy()

    @staticmethod
    def asarray(x: Any, dtype: Any = None) -> DeviceArray:
        if not isinstance(x, DeviceArray):
            counts.sent += 1
        return on_device(np.array(on_host(x), dtype, copy=None))

    @staticmethod
    def get_default_memory_pool() -> Any:
        return types.SimpleNamespace(total_bytes=lambda: 10**6)

    def _wrapped(self, name: str, function: Any) -> Any:
        def inner(*inputs, **options):
            inputs = [list(map(on_host, x)) if isinstance(x, list | tuple) else on_host(x) for x in inputs]
            return function(*inputs, **{key: on_host(x) for key, x in options.items()})

        return functools.partial(allowed, name, inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in API:
            raise AttributeError(f"CuPy has no {name}, as far as cupy_api.txt says")
        thing = poisoned(getattr(np, name)) if name in ("empty", "empty_like") else getattr(np, name)
        if isinstance(thing, type) or not callable(thing):
            return thing
        if isinstance(thing, np.ufunc):
            return StandInUfunc(thing, self._wrapped(name, thing))
        return self._wrapped(name, thing)


def numbers_of(module: str) -> dict[str, int]:
    """CUDA's constants that are listed for a module of CuPy's, by their names there."""
    return {name.rpartition(".")[2]: x for name, x in NUMBERS.items() if name.startswith(f"{module}.")}


def poisoned(make: Any) -> Any:
    """`make`, which returns an array of memory that is not written yet, with 0xFF bytes in there."""

    def inner(*inputs: Any, **options: Any) -> np.ndarray:
        x = make(*inputs, **options)
        ctypes.memset(x.ctypes.data, 0xFF, x.nbytes)
        return x

    return inner


class StandInUfunc:
    """A ufunc: what it computes, and its `at`."""

    def __init__(self, ufunc: np.ufunc, call: Any) -> None:
        self.ufunc, self.call = ufunc, call

    def __call__(self, *inputs: Any, out: Any = None, **options: Any) -> Any:
        result = self.call(*inputs, **options, **({} if out is None else {"out": out}))
        return result if out is None else out

    def at(self, target: Any, index: Any, values: Any) -> None:
        self.ufunc.at(on_host(target), on_host(index), on_host(values))


def take_cupys_place() -> None:
    """Be what `import cupy` imports, for tests and scripts written for a GPU."""
    be_lenient()
    sys.modules["cupy"] = StandIn()


def be_lenient() -> None:
    """Give numbers of arrays as CuPy does, without counting: float(x), if x > 0, for row in x."""
    for name in ("float", "int", "index", "bool", "complex"):
        convert = int if name == "index" else getattr(builtins, name)
        setattr(DeviceArray, f"__{name}__", lambda x, convert=convert: convert(on_host(x)))
    DeviceArray.__iter__ = lambda x: (x[i] for i in range(len(x)))
