"""Files in the safetensors format, right and wrong, written byte by byte as the format's page says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}


def header_and_numbers(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], bytes]:
    header: dict[str, Any] = {}
    numbers = b""
    for name, x in arrays.items():
        start, numbers = len(numbers), numbers + x.tobytes()
        header[name] = {
            "dtype": NAMES[str(x.dtype)],
            "shape": [*x.shape],
            "data_offsets": [start, len(numbers)],
        }
    return header, numbers


def file_of(header: Any, numbers: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.write_bytes(file_of(*header_and_numbers(arrays)))
