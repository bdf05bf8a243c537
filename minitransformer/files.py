"""Files that are either whole or not there: the one place in which runs, pictures and exercises are written.

A file is first written under a temporary name, flushed, and only then renamed. A link in its place is replaced, never
followed, and the temporary file is removed if writing fails.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from minitransformer.errors import ConfigError, InputError

# NAME.PID.tmp: a file that process PID is writing
TEMPORARY = re.compile(r"(.+)\.([0-9]{1,9})\.tmp", re.DOTALL)
# the byte order marks with which text in UTF-16 begins, as some Windows programs write it
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def write_file(path: Path, fill: Callable[[IO[bytes]], object], new: bool = False) -> None:
    """Have `fill` write a file, which is then either the old or the new one, never half of it.

    With `new`, raises FileExistsError if there is an old one, even one that came a moment ago. An OSError names `path`.
    """
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # of an earlier process with this number
        with open(temporary, "xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _link(temporary, path)
        else:
            os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes, new: bool = False) -> None:
    """Write `content` by `write_file`."""
    write_file(path, lambda file: file.write(content), new)


def write_text(path: Path, text: str, new: bool = False) -> None:
    """Write a text in UTF-8 by `write_file`."""
    write_bytes(path, text.encode("utf-8"), new)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file. Raises OSError, which names `path`, for a link, or a full disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOFOLLOW, 0o666)
    try:
        with open(descriptor, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    except OSError as error:  # a full disk
        error.filename = str(path)
        raise


def open_in_place(path: Path) -> IO[bytes]:
    """Open a file to lock it, made if it is missing. Raises OSError if a link, a pipe or a folder is in its place."""
    flags = os.O_RDWR | os.O_CREAT | NOFOLLOW | getattr(os, "O_NONBLOCK", 0)
    file = open(os.open(path, flags, 0o666), "wb", buffering=0)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a file, but a pipe or a device", str(path))
    return file


def sweep(folder: Path, names: re.Pattern[str]) -> None:
    """Remove the temporary files of processes that have ended, if they are of files with these names."""
    for path in folder.glob("*.tmp"):
        found = TEMPORARY.fullmatch(path.name)
        if found and names.fullmatch(found[1]) and not _is_alive(int(found[2])):
            with contextlib.suppress(OSError):
                path.unlink()


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read. Raises OSError for a pipe, a device or a folder, which could block or never end."""
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a file, but a folder, a pipe or a device", str(path))
    return open(path, "rb")


def absolute(name: str, path: str) -> str:
    """The absolute path of the file that the setting `name` gives; "" for none.

    Raises ConfigError for a `~` whose folder is not known.
    """
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except RuntimeError as error:  # ~name, for a user who has no home directory
        raise ConfigError(f"{name}: {path}: {error}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises InputError for one in UTF-16, UnicodeDecodeError for other bytes, OSError as `open_regular` does.
    """
    content = read_bytes(path)
    refuse_utf_16(content)
    return content.decode("utf-8-sig")


def refuse_utf_16(content: bytes) -> None:
    """Raise InputError for text in UTF-16, if its byte order mark shows it."""
    if content.startswith(UTF_16):
        raise InputError("expected UTF-8, got UTF-16; save it as UTF-8")


def as_json(record: dict[str, Any], indent: int | None = None) -> str:
    """A JSON object. Numbers that are not finite, which JSON does not have, are null, and listed under "not_finite"."""
    odd: list[str] = []
    plain = _finite(record, "", odd)
    return json.dumps({**plain, "not_finite": odd} if odd else plain, indent=indent, allow_nan=False)


def _finite(x: Any, path: str, odd: list[str]) -> Any:
    """`x` with None for numbers that are not finite, whose paths and values are added to `odd`."""
    if isinstance(x, dict):
        return {name: _finite(value, f"{path}.{name}".lstrip("."), odd) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(value, f"{path}.{i}", odd) for i, value in enumerate(x)]
    if isinstance(x, float) and not math.isfinite(x):
        odd.append(f"{path}: {x}")
        return None
    return x


def _link(temporary: Path, path: Path) -> None:
    """Give the finished file its name, unless something has that name already."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as memory sticks and some mounts have
        with open(path, "xb") as file:
            file.write(temporary.read_bytes())
            file.flush()
            os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Have the folder's list of names on disk too, or else a power cut could lose a name, though not the data."""
    if os.name == "nt":  # folders cannot be opened there
        return
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_alive(pid: int) -> bool:
    """Whether there is a process with this number."""
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True
