"""Large payloads as files beside the database: written before their row, removed after it, collected when a crash left one without.

Every function blocks and is called in a thread. Names are made here, never from outside, and are unique: a file never changes.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

LEAST_BYTES = 256 * 1024
"""Content from here on becomes a file: reading it would hold up the lane, and writing it the other processes."""
LEFT_BEHIND_S = 3600.0
"""A file without a row that is younger may belong to a call that is still going on."""
_AT_ONCE = 500


class Blobs:
    """The folder `blobs` beside the database, with files named by 32 hexadecimal digits in 256 folders."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, content: bytes) -> str:
        """The name under which it is kept from now on. Raises OSError; then nothing is left behind."""
        name = secrets.token_hex(16)
        path = self._path(name)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with open(path, "xb", opener=_private) as file:
                file.write(content)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return name

    def read(self, name: str, size: int) -> bytes | None:
        """None when there is no such file, or (a machine that lost its power) only a part of it."""
        try:
            content = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        return content if len(content) == size else None

    def remove(self, names: Iterable[str]) -> None:
        """As far as that goes: what cannot be removed now is collected later."""
        for name in names:
            with contextlib.suppress(OSError):
                self._path(name).unlink()

    def collect(self, unknown: Callable[[Collection[str]], Collection[str]], stopped: Callable[[], bool]) -> int:
        """Remove old files that `unknown` says have no row; how many. Goes on until `stopped`."""
        count = 0
        oldest = time.time() - LEFT_BEHIND_S
        for folder in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            names = [name for name in _old_files(folder, oldest) if not stopped()]
            for start in range(0, len(names), _AT_ONCE):
                gone = unknown(names[start : start + _AT_ONCE])
                self.remove(gone)
                count += len(gone)
        return count

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _old_files(folder: Path, oldest: float) -> list[str]:
    names = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if len(entry.name) == 32 and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    names.append(entry.name)
    return names
