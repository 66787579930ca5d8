"""Paths that somebody else wrote, in a configuration, a manifest, an archive or a request: kept inside of a folder, and read within bounds.

None may make the server open what lies elsewhere, wait for a pipe, or fill its memory. Called by whatever reads or writes such files.
"""

import os
import stat
from pathlib import Path, PurePosixPath

from dragoman.core.errors import invalid
from dragoman.serving.settings import quoted

_LARGEST_LABELS = 16 << 20


def check_relative(relative: str, what: str) -> str:
    """The path again. Raises INVALID_INPUT when it is empty, absolute or has "..", or cannot be a path at all."""
    path = PurePosixPath(relative)
    if not relative or "\0" in relative or path.is_absolute() or ".." in path.parts or "\\" in relative or not path.parts:
        raise invalid(f"{what}: expected a path inside the model's folder, without '..', not {quoted(relative)}")
    return relative


def confine(folder: Path, relative: str, what: str) -> Path:
    """Resolve a path below `folder`, links included. It need not exist. Raises INVALID_INPUT when it leads out; `what` begins the message."""
    check_relative(relative, what)
    try:
        root = folder.resolve()
        path = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle; ValueError: not encodable
        raise invalid(f"{what}: {quoted(relative)} cannot be resolved ({_reason(error)})") from None
    if not path.is_relative_to(root):
        raise invalid(f"{what}: {quoted(relative)} leads out of the model's folder")
    return path


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for this user alone; what is there stays as it is. Raises OSError."""
    for path in (*reversed(folder.parents), folder):
        path.mkdir(mode=0o700, exist_ok=True)


def read_bounded(path: Path, largest: int, what: str) -> bytes:
    """The whole of a regular file. Raises INVALID_INPUT when it is missing, not a regular file, unreadable, or larger than `largest` bytes."""
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes would wait for ever.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise invalid(f"{what}: '{path.name}' is not a file")
            content = file.read(largest + 1)
    except OSError as error:
        raise invalid(f"{what}: '{path.name}' cannot be read ({_reason(error)})") from None
    if len(content) > largest:
        raise invalid(f"{what}: '{path.name}' has more than {largest} bytes")
    return content


def read_labels(path: Path, what: str) -> tuple[str, ...]:
    """One label per line, by index; empty lines count, the end of the last line does not make another."""
    try:
        text = read_bounded(path, _LARGEST_LABELS, what).decode()
    except UnicodeDecodeError:
        raise invalid(f"{what}: '{path.name}' is not UTF-8 text") from None
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return tuple(line.removesuffix("\r") for line in lines)


def _reason(error: Exception) -> str:
    return error.strerror or "not readable" if isinstance(error, OSError) else "links lead in a circle or it is no path"
