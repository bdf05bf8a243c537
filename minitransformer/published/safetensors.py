"""The file format safetensors, in which models are published, read with NumPy alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.errors import CheckpointError, describe
from minitransformer.files import open_regular

LARGEST_HEADER = 100_000_000  # bytes, as in the library that writes these files
MOST_AXES = 8
BF16 = "BF16"  # the upper half of a float32, which NumPy does not have
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", BF16: "<u2", "BOOL": "?"}
DTYPES |= {f"{kind}{8 * n}": f"<{kind.lower()}{n}" for kind in "IU" for n in (1, 2, 4, 8)}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Name -> array, for all tensors of a file; those of dtype BF16 become float32.

    The file is 8 bytes with the length of the header, the header in JSON ({name: {"dtype", "shape", "data_offsets"}}),
    and the numbers, one tensor after the other (https://huggingface.co/docs/safetensors). All that the header says is
    compared with the size of the file before an array is made. Raises CheckpointError if the file is missing, damaged,
    or has a dtype that NumPy lacks.
    """
    try:
        with open_regular(path) as file:
            size, _ = file.seek(0, 2), file.seek(0)
            length, largest = int.from_bytes(file.read(8), "little"), min(size - 8, LARGEST_HEADER)
            if not 2 <= length <= largest:
                raise ValueError(f"expected a header of 2 … {largest:,} bytes in {size:,}, got {length:,}")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_once_each)
            arrays = {}
            for name, dtype, shape in _entries(header, size - 8 - length):
                x = np.fromfile(file, DTYPES[dtype], math.prod(shape)).reshape(shape)
                arrays[name] = (x.astype("<u4") << 16).view("<f4") if dtype == BF16 else x
            return arrays
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of `pairs`. Raises ValueError if a name occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"expected each name once, got {describe([name for name, _ in pairs])}")
    return found


def _entries(header: Any, n_bytes: int) -> list[tuple[str, str, list[int]]]:
    """Name, dtype and shape of the tensors, in the order in which they fill the `n_bytes` after the header.

    Raises ValueError if they do not, or if something else is in the header.
    """
    if not isinstance(header, dict):
        raise ValueError(f"expected a JSON object as header, got {describe(header)}")
    places, at = [], 0
    for name, about in header.items():
        match about:
            case {"dtype": dtype, "shape": [*shape], "data_offsets": [start, end]} if (
                dtype in list(DTYPES)  # a list, since `dtype` may be something that cannot be hashed
                and len(shape) <= MOST_AXES
                and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, start, end))
            ):
                places.append((start, end, name, dtype, shape))
            case _ if name != "__metadata__":
                expected = f"a dtype of {', '.join(DTYPES)}, up to {MOST_AXES} sizes and two offsets"
                raise ValueError(f"{describe(name)}: expected {expected}, got {describe(about)}")
    for start, end, name, dtype, shape in sorted(places):
        stop = at + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        if (start, end) != (at, stop):
            expected = f"bytes {at} to {describe(stop)} for {dtype} of shape {shape}"
            raise ValueError(f"{describe(name)}: expected {expected}, got {start} to {end}")
        at = stop
    if at != n_bytes:
        raise ValueError(f"expected {at:,} bytes after the header, got {n_bytes:,}")
    return [(name, dtype, shape) for _, _, name, dtype, shape in sorted(places)]
