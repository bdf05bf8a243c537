"""Checkpoints: arrays and a few numbers in one .npz file that is either whole or not there."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from minitransformer.errors import CheckpointError
from minitransformer.files import open_regular, write_file

META = "meta.json"  # the entry of the file that holds `meta`, as the bytes of a JSON text


def save_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write `arrays` and `meta` (anything that JSON can hold) to `path`, replacing it only once all is on disk."""
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise CheckpointError(f"checkpoints hold numbers only, never pickled objects; got {objects[0]!r}")
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    write_file(path, lambda file: np.savez(file, **{META: text, **arrays}))  # type: ignore[arg-type, unused-ignore]


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the numbers of a checkpoint. Raises CheckpointError if it is missing or damaged.

    Arrays hold finite numbers; `meta` is a JSON object. Nothing is unpacked that is larger than the file itself.
    """
    try:
        with open_regular(path) as opened:  # here, because np.load leaves a damaged file open
            _check_sizes(opened)
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(META).tobytes())
        if not isinstance(meta, dict):
            raise ValueError(f"{META} is not a JSON object")
        for name, x in arrays.items():
            if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
                raise ValueError(f"{name}: expected finite numbers, got {_odd(x)}")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file") from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: too large for this machine's memory, or damaged ({error})") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for files that they cannot read
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({error}); move it away, and use an earlier one, or other weights"
        ) from None
    return arrays, meta


def _check_sizes(file: IO[bytes]) -> None:
    """Raise an error unless the file is a .npz file, and ValueError if its arrays, unpacked, are larger than it is."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > size:
        raise ValueError(f"{unpacked:,} bytes packed into {size:,}")
    file.seek(0)


def _odd(x: np.ndarray) -> str:
    """The dtype of an array, or a number in it that is not finite, in words."""
    if x.dtype.kind not in "fiu":
        return f"{x.dtype}"
    return f"{x[~np.isfinite(x)].ravel()[0]} among {x.size:,}"
