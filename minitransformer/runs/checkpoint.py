"""Checkpoints: arrays and a few numbers in one .npz file that is either whole or not there."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitransformer.errors import CheckpointError

META = "meta.json"  # the entry of the file that holds `meta`, as the bytes of a JSON text


def save_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write `arrays` and `meta` (anything that JSON can hold) to `path`, replacing it only once all is on disk."""
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise CheckpointError(f"checkpoints hold numbers only, never pickled objects; got {objects[0]!r}")
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **{META: text, **arrays})  # type: ignore[arg-type, unused-ignore]
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The `arrays` and the `meta` of a checkpoint. Raises CheckpointError if it is missing or damaged."""
    try:
        with open(path, "rb") as opened:  # here, because np.load leaves a damaged file open
            if not zipfile.is_zipfile(opened):
                raise ValueError("not an .npz file")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(META).tobytes())
        if not isinstance(meta, dict):
            raise ValueError(f"{META} is not a JSON object")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: expected a checkpoint, found no such file") from None
    except MemoryError as error:
        raise CheckpointError(f"{path}: too large for this machine's memory, or damaged ({error})") from None
    except PermissionError as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds for files that they cannot read
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint ({error}); move it away to go on from an earlier one"
        ) from None
    return arrays, meta


def write_text(path: Path, text: str, new: bool = False) -> None:
    """Write a text in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), new)


def write_bytes(path: Path, content: bytes, new: bool = False) -> None:
    """Write a small file in one piece: at any time `path` is either the old or the new file, never half of it.

    With `new`, raises FileExistsError if there is an old one, even if it was made a moment ago.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    _write(temporary, "wb", content)
    if not new:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as memory sticks and some mounts have
        _write(path, "xb", content)
    finally:
        os.unlink(temporary)


def _write(path: Path, mode: str, content: bytes) -> None:
    with open(path, mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
