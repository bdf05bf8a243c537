"""Prints cupy_api.txt anew: the signatures, in the CuPy that is installed, of all that is listed there.

python tests/device/make_cupy_api.py [NAME ...]          names to add; those of methods begin with a dot
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from pathlib import Path
from typing import Any

UFUNC = ["out", "dtype", "casting"]  # of all of CuPy's elementwise functions


def listed() -> list[str]:
    """The names in cupy_api.txt."""
    return [
        re.split("[( ]", line)[0]
        for line in (Path(__file__).parent / "cupy_api.txt").read_text().splitlines()
    ]


def signature(cupy: Any, name: str) -> str:
    """`name` with the arguments that CuPy's takes, or with its value; alone, if it is neither called nor a number.

    Raises AttributeError if there is none, and ImportError if it is cuBLAS's, and cuBLAS is not installed.
    """
    owner = cupy.ndarray if name[0] == "." else cupy.lib.stride_tricks if name == "as_strided" else cupy
    *path, last = name.lstrip(".").split(".")
    thing = getattr(functools.reduce(getattr, path, owner), last)
    if isinstance(thing, int):  # one of cuBLAS's numbers
        return f"{name} = {thing}"
    if isinstance(thing, cupy.ufunc):
        return f"{name}({', '.join(UFUNC)})"
    if not callable(thing) or isinstance(thing, type):
        return name
    if "." in name:  # compiled: its signature is the first line of its text
        text = re.search(rf"{last}\((.*?)\)( ->|$)", (thing.__doc__ or "").splitlines()[0])
        if text is None:
            return f"{name}()"
        names = [
            re.split(r"[=: ]", part.strip())[-1 if "=" not in part else 0] for part in text[1].split(",")
        ]
        names = [n for n in names if n not in ("self", "", "None")]
    else:
        names = list(inspect.signature(thing).parameters)
    return f"{name}({', '.join(names)})"


if __name__ == "__main__":
    import cupy

    for wanted in sorted({*listed(), *sys.argv[1:]}, key=lambda n: (n[0] == ".", n.lower())):
        print(signature(cupy, wanted))
