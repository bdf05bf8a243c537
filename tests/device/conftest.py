from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import stand_in

from minitransformer import backend, kernels
from minitransformer.layers import dropout

if os.environ.get("MINITRANSFORMER_STAND_IN"):  # for test_gpu.py: do its tests work, but for the GPU?
    stand_in.take_cupys_place()


@pytest.fixture
def device(monkeypatch) -> str:
    """The device "cuda", with the stand-in for CuPy behind it; kernels are off (see `with_kernels`)."""

    def asarray(x, *options, asarray=np.asarray, **more):
        if isinstance(x, stand_in.DeviceArray):
            raise TypeError("numpy.asarray for an array on a device")
        return asarray(x, *options, **more)

    monkeypatch.setattr(np, "asarray", asarray)
    monkeypatch.setitem(sys.modules, "cupy", stand_in.StandIn())
    monkeypatch.setattr(kernels, "usable", lambda *x: False)
    monkeypatch.setattr(dropout, "keep_mask", plain_keep_mask)
    stand_in.counts.waits = stand_in.counts.sent = 0
    return "cuda"


def plain_keep_mask(rng, p, x):
    kept = backend.keep_mask(rng, p, np.empty(x.shape))
    return stand_in.on_device(kept) if isinstance(x, stand_in.DeviceArray) else kept


@pytest.fixture
def with_kernels(device, monkeypatch) -> str:
    """The same, and kernels that the C++ compiler made for the CPU. Skipped where there is none."""
    if stand_in.COMPILER is None:
        pytest.skip("no C++ compiler (c++ or g++) to compile the kernels for the CPU")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cupy", stand_in.StandIn())
    return "cuda"
