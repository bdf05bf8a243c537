"""Weights as others publish them: the safetensors format, read with NumPy alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from minitransformer.errors import CheckpointError, describe
from minitransformer.files import open_regular

LARGEST_HEADER = 100_000_000  # bytes, as in the library that writes these files
MOST_AXES = 8
BF16 = "BF16"  # the upper half of a float32, which NumPy does not have
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", BF16: "<u2", "BOOL": "?"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)
}


class Entry(NamedTuple):
    """Where the numbers of a tensor lie in the file."""

    name: str
    dtype: str  # a name in DTYPES
    shape: tuple[int, ...]
    start: int  # in bytes, after the header
    end: int


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Name -> array, for all tensors of a safetensors file; those of dtype BF16 become float32.

    The file is 8 bytes with the length of the header, the header in JSON ({name: {"dtype", "shape", "data_offsets"}}),
    and the numbers, without gaps (https://huggingface.co/docs/safetensors). All that the header says is compared with
    the size of the file before an array is made. Raises CheckpointError if the file is missing or damaged, or has a
    dtype that NumPy lacks.
    """
    try:
        with open_regular(path) as file:
            header, begin = _header(file)
            entries = [_entry(name, about) for name, about in header.items() if name != "__metadata__"]
            _check_places(entries, file.seek(0, 2) - begin)
            return {entry.name: _array(file, begin, entry) for entry in entries}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected a safetensors file, found no such file") from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: too large for this machine's memory ({error})") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file ({error})") from None


def _header(file: IO[bytes]) -> tuple[dict[str, Any], int]:
    """The header, and where the numbers begin."""
    size = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    largest = min(size - 8, LARGEST_HEADER)
    if not 2 <= length <= largest:
        raise ValueError(f"expected a header of 2 … {largest:,} bytes in {size:,}, got {length:,}")
    header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_once_each)
    if not isinstance(header, dict):
        raise ValueError(f"expected a JSON object as header, got {describe(header)}")
    return header, 8 + length


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of `pairs`. Raises ValueError if a name occurs twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"expected each name once, got {describe(name)} twice")
        found[name] = value
    return found


def _entry(name: str, about: Any) -> Entry:
    """One entry of the header. Raises ValueError unless its size is that of its numbers."""
    keys = ("dtype", "shape", "data_offsets")
    values: list[Any] = [about.get(key) if isinstance(about, dict) else None for key in keys]
    dtype, shape, offsets = values
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{describe(name)}: expected a dtype of {', '.join(DTYPES)}, got {describe(dtype)}")
    if not (_are_sizes(shape) and len(shape) <= MOST_AXES):
        raise ValueError(f"{describe(name)}: expected at most {MOST_AXES} sizes, got {describe(shape)}")
    if not (_are_sizes(offsets) and len(offsets) == 2):
        raise ValueError(f"{describe(name)}: expected two offsets, 0 or more, got {describe(offsets)}")
    start, end = offsets
    n_bytes = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - start != n_bytes:
        raise ValueError(
            f"{describe(name)}: expected {describe(n_bytes)} bytes for {dtype} of shape {describe(shape)}, "
            f"got offsets {describe(offsets)}"
        )
    return Entry(name, dtype, tuple(shape), start, end)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _check_places(entries: list[Entry], n_bytes: int) -> None:
    """Raise ValueError unless the entries fill the bytes after the header: one after the other, without gaps."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.start != at:
            raise ValueError(f"{describe(entry.name)}: expected to begin at byte {at:,}, got {entry.start:,}")
        at = entry.end
    if at != n_bytes:
        raise ValueError(f"expected {at:,} bytes after the header, got {n_bytes:,}")


def _array(file: IO[bytes], begin: int, entry: Entry) -> np.ndarray:
    file.seek(begin + entry.start)
    x = np.fromfile(file, DTYPES[entry.dtype], math.prod(entry.shape)).reshape(entry.shape)
    return (x.astype("<u4") << 16).view("<f4") if entry.dtype == BF16 else x
