"""Where CuPy is installed (importing it takes no GPU): it has all that the package calls, and its compiler takes the
kernels."""

from __future__ import annotations

import re

import pytest
from cuda_sources import SPIN
from make_cupy_api import listed, signature

from minitransformer import kernels

cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'minitransformer[cuda13]'")


@pytest.mark.parametrize("name", listed())
def test_cupy_has_what_the_stand_in_offers(name):
    try:
        found = signature(cupy, name)
    except ImportError:
        pytest.skip("cuBLAS is not installed: pip install nvidia-cublas")
    with open(__file__.replace("test_cupy.py", "cupy_api.txt")) as file:
        assert found in file.read().splitlines()


def test_cupy_has_what_ranks_call():
    for name in ("Device", "get_current_stream"):
        assert callable(getattr(cupy.cuda, name))


def compiled(source, *options):
    """PTX, without a warning of the compiler's."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    try:
        nvrtc.getVersion()
    except RuntimeError:
        pytest.skip("NVRTC, CUDA's compiler, is not installed: pip install nvidia-cuda-nvrtc")
    program = nvrtc.createProgram(source, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, ("-arch=compute_80", *options))
    finally:
        log = nvrtc.getProgramLog(program)
    assert not log.strip("\0\n "), log
    code = nvrtc.getPTX(program)
    return code if isinstance(code, str) else code.decode()


def test_the_tests_kernels_are_cuda():
    assert ".entry spin" in compiled(SPIN) and "%globaltimer" in compiled(SPIN)


@pytest.mark.parametrize("number", ["float", "double"])
def test_the_kernels_are_cuda(number):
    code = compiled(kernels.SOURCE, f"-DNUMBER={number}")
    assert set(re.findall(r"\.entry (\w+)", code)) == set(re.findall(r"KERNEL (\w+)\(", kernels.SOURCE))
    if number == "float":  # double arithmetic in a loop would take many times as long
        assert not re.findall(r"(?:sqrt|ex2|fma)\S*\.f64", code)
