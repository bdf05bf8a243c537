"""Write the golden files: what PyTorch computes, in float64, for the cases of golden_cases.py.

    python tests/golden/make_golden.py [DIRECTORY]

Needs torch, not minitransformer. The files are the same, byte for byte, every time on one machine; another
version of torch or NumPy may round the last digit otherwise.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import torch_reference
from golden_cases import GOLDEN, GOLDEN_CASES, SIZES, Arrays, Case, random_given, save


def coarse(given: Arrays) -> Arrays:
    """Floats rounded to multiples of 1/64, of which a file has room for four times as many."""
    return {
        name: np.asarray(np.round(x * 64) / 64) if x.dtype == np.float64 else x for name, x in given.items()
    }


def golden_case(name: str) -> Case:
    kind, changes = GOLDEN_CASES[name]
    settings = {**SIZES, **changes}
    given = coarse(random_given(np.random.default_rng(zlib.crc32(name.encode())), kind, settings))
    return Case(kind, settings, given, torch_reference.run(kind, settings, given))


def main(directory: Path) -> None:
    sizes = []
    for name in GOLDEN_CASES:
        path = directory / f"{name}.npz"
        save(path, golden_case(name))
        sizes.append(path.stat().st_size)
        print(f"{sizes[-1]:8,} bytes  {path.name}")
    print(f"{sum(sizes):8,} bytes in {len(sizes)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN)
