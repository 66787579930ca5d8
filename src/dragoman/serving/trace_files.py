"""Writes traces into files that are a whole JSON list after every write, whichever worker writes. Called by serving/tracing.py.

The caller gives paths inside the server's own trace folder; links there are not followed.
"""

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # this platform has one worker, and nobody to lock out
    fcntl = None  # type: ignore[assignment] # the name is a module or nothing

MOST_BYTES = 256 << 20
"""Of one file: tracing is for looking at requests, not a reason to fill a disk."""
MOST_FILES = 1000
_BEGIN, _BETWEEN, _END = b"[\n", b",\n", b"\n]\n"
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def append(path: Path, traces: Sequence[dict[str, Any]]) -> None:
    """Add to the list in a file, which is made when there is none. Raises OSError when it is not such a file, or is full."""
    descriptor = os.open(path, _FLAGS, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a plain file")
        text = _BETWEEN.join(_encoded(trace) for trace in traces) + _END
        if found.st_size + len(text) > MOST_BYTES:
            raise OSError(f"the file would grow beyond {MOST_BYTES >> 20} MiB")
        if not found.st_size:
            _write(descriptor, _BEGIN + text, 0)
            return
        end = found.st_size - len(_END)
        os.lseek(descriptor, max(end, 0), os.SEEK_SET)
        if os.read(descriptor, len(_END)) != _END:
            raise OSError("the file does not end as a list of traces does")
        _write(descriptor, _BETWEEN + text, end)
    finally:
        os.close(descriptor)


def number(path: Path, traces: Sequence[dict[str, Any]]) -> None:
    """Write a new file, named after `path` with the next free number from 0. Raises OSError when there are too many."""
    for index in range(MOST_FILES):
        try:
            descriptor = os.open(path.with_name(f"{path.name}.{index}"), _FLAGS | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        try:
            _write(descriptor, _BEGIN + _BETWEEN.join(_encoded(trace) for trace in traces) + _END, 0)
        finally:
            os.close(descriptor)
        return
    raise OSError(f"there are {MOST_FILES} files of that name")


def _encoded(trace: dict[str, Any]) -> bytes:
    return json.dumps(trace).encode()


def _write(descriptor: int, data: bytes, at: int) -> None:
    os.lseek(descriptor, at, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
