"""Every write of a run folder: a file is there whole, or the old one still is.

A new file is written beside its place under a temporary name, flushed to the disk, and renamed; then the folder is
flushed, so that the new name survives a power cut too. What fails raises `RunError` and takes the temporary file along.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ..core import RunError


def write_bytes(path: Path, data: bytes) -> None:
    """Make ``path`` hold ``data``: all of it, or, on an error, what it held before.

    Raises:
        RunError: as `replacing`.
    """
    with replacing(path) as file:
        _write_all(file, data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which becomes ``path`` at the end; whatever the body raises, ``path`` stays as it was.

    The file can be read and sought in too; the body's `OSError` is taken for one of its writes.

    Raises:
        RunError: the disk is full, the folder is missing or read-only, and so on; the `OSError` is its cause. If only
            the last flush of the folder fails, the new file is in place, but a power cut might bring back the old.
    """
    # Not tempfile: its files are private (0600), and a run is as readable as anything else its user writes.
    place = Path(os.path.realpath(path))  # a link stays, and what it points to is written
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        _flush_folder(place.parent)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text; the bytes of a file name that are none are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Add a line of JSON for each value to ``path`` and flush it; on an error the file is cut back to what it held.

    Raises:
        RunError: as `write_bytes`.
    """
    lines = b"".join(json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n" for value in values)
    try:
        with open(path, "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                _write_all(file, lines)
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(before)
                raise
            if before == 0:
                _flush_folder(path.parent)
    except OSError as error:
        raise _explained(path, error) from error


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it, where they are missing.

    Raises:
        RunError: as `write_bytes`, or ``path`` is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(path, error) from error


def lock_folder(path: Path) -> int | None:
    """A descriptor of the folder ``path`` that holds its lock until it is closed; None where folders have no locks.

    Raises:
        RunError: another holds the lock, or the folder cannot be read.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise _explained(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EWOULDBLOCK:
            raise RunError(f"{path} is being written by another xwb") from error
        return None  # some network file systems lock nothing
    return descriptor


def remove(path: Path) -> None:
    """Remove a file if it is there.

    Raises:
        RunError: as `write_bytes`.
    """
    try:
        path.unlink(missing_ok=True)
        _flush_folder(path.parent)
    except OSError as error:
        raise _explained(path, error) from error


def _write_all(file: Any, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # an unbuffered write may take a part
        rest = rest[file.write(rest) :]


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems flush no folders
            raise
    finally:
        os.close(descriptor)


def _explained(path: Path, error: OSError) -> RunError:
    return RunError(f"cannot write {path}: {error.strerror or error}")
