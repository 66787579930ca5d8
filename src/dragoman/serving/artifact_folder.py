"""Files that MLflow clients upload for their models: a tree below the data directory that all workers share. Called by the MLflow dialect.

A file appears whole or not at all: it is written under `.incoming`, which no client can name, and renamed when it is complete. Paths come
from strangers; they are confined to the tree, links included. The registry's versions may have their files here (serving/roots.py).
"""

import asyncio
import fcntl
import os
import shutil
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar
from uuid import uuid4

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.paths import confine, private_folder
from dragoman.serving.settings import quoted
from dragoman.serving.threads import to_the_end

SCHEME = "mlflow-artifacts"
"""Of URIs of what lies here: `mlflow-artifacts:/0/models/m-1/artifacts`."""

_INCOMING = ".incoming"
_PIECE = 1 << 20
_MOST_LISTED = 100_000
_LONGEST_PATH = 2000
_LONGEST_NAME = 255
_OPENING_S = 60.0
"""A file of an upload is older than this, or its upload may be about to lock it."""

R = TypeVar("R")

Read = Callable[[], Awaitable[bytes]]
"""Gives the next piece of an upload, b"" at its end."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One entry of a folder. `size` is bytes, 0 for a folder."""

    name: str
    is_folder: bool
    size: int


class ArtifactFolder:
    """`root` is made with the first upload. Every path is relative to it.

    All methods raise INVALID_INPUT for a path that leads out or that this file system cannot have, and UNAVAILABLE when the disk refuses.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._clock = clock

    async def uri_of(self, path: Path) -> str:
        """The URI of a file or folder of this tree, "" for one that lies elsewhere."""

        def found() -> str:
            real, root = Path(os.path.realpath(path)), Path(os.path.realpath(self.root))
            return f"{SCHEME}:/{real.relative_to(root)}" if real != root and real.is_relative_to(root) else ""

        return await asyncio.to_thread(found)

    async def resolve(self, path: str) -> Path:
        """Where a path leads to, links resolved. It need not exist."""
        return await asyncio.to_thread(self._resolved, path)

    async def exists(self, path: str) -> bool:
        target = await self.resolve(path)
        return await _to_the_end(path, target.exists)

    async def put(self, path: str, read: Read) -> None:
        """Store what `read` gives under a path, in the place of what was there. Nothing of it stays when that fails or is cancelled.

        Raises INVALID_INPUT when a folder is there, or a file where a folder would have to be, and whatever `read` raises.
        """
        target = await self.resolve(path)
        part = self.root / _INCOMING / uuid4().hex
        file = await _to_the_end(path, lambda: self._begin(part), undo=partial(_abandon, part))
        try:
            while piece := await read():
                await _to_the_end(path, partial(_write, file, piece))
            await _to_the_end(path, lambda: _finish(file, part, target))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)  # only now: its lock tells others that the upload goes on

    async def open(self, path: str) -> tuple[int, AsyncGenerator[bytes, None]]:
        """The size of a file, and its content in pieces. Raises NOT_FOUND for what is no file."""
        target = await self.resolve(path)
        file = await _to_the_end(path, lambda: _open(target, path), undo=os.close)
        return os.fstat(file).st_size, _pieces(path, file)

    async def listed(self, path: str) -> list[Listed]:
        """What a folder holds, by name; nothing of what is no folder. "" is the whole tree."""
        target = await self.resolve(path) if path.strip("/") else self.root
        return await _to_the_end(path, lambda: self._list(target))

    async def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it; no error when there is none."""
        target = await self.resolve(path)
        await _to_the_end(path, lambda: _remove(target))

    # --- below the surface; all of it blocks ---

    def _resolved(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if len(path) > _LONGEST_PATH or any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in parts):
            raise invalid(
                f"the artifact path {quoted(path)} is too long: at most {_LONGEST_PATH} characters, and {_LONGEST_NAME} bytes a name"
            )
        if any(ord(c) < 32 or ord(c) == 127 for c in path) or parts[:1] == (_INCOMING,):
            raise invalid(f"the artifact path {quoted(path)} is not one that a file here can have")
        return confine(self.root, path, "the artifact path")

    def _begin(self, part: Path) -> int:
        private_folder(part.parent)
        self._sweep()
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH)
        return file

    def _sweep(self) -> None:
        """Remove what uploads left behind whose server was killed: nobody has a lock on it, and it is not just being opened."""
        before = self._clock() - _OPENING_S
        for entry in os.scandir(self.root / _INCOMING):
            try:
                file = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_mtime < before:
                    Path(entry.path).unlink(missing_ok=True)
            except OSError:
                continue
            finally:
                os.close(file)

    def _list(self, folder: Path) -> list[Listed]:
        try:
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found: list[Listed] = []
        with entries:
            for entry in entries:
                if entry.is_symlink() or (entry.name == _INCOMING and folder == self.root):
                    continue
                if len(found) == _MOST_LISTED:
                    raise invalid(f"this folder has more than {_MOST_LISTED} artifacts, which is too many for a list")
                is_folder = entry.is_dir()
                try:
                    found.append(Listed(entry.name, is_folder, 0 if is_folder else entry.stat().st_size))
                except FileNotFoundError:
                    continue  # removed meanwhile
        return sorted(found, key=lambda each: each.name)


async def _to_the_end(path: str, work: Callable[[], R], undo: Callable[[R], object] = lambda _: None) -> R:
    """`to_the_end`, with what a disk says in words about the path."""
    try:
        return await to_the_end(work, undo)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise invalid(f"the artifact path {quoted(path)} is a folder, or leads through a file") from None
    except OSError as error:
        raise ServingError(Kind.UNAVAILABLE, f"the artifact {quoted(path)} cannot be read or stored: {error.strerror}") from error


def _abandon(part: Path, file: int) -> None:
    part.unlink(missing_ok=True)
    os.close(file)


def _finish(file: int, part: Path, target: Path) -> None:
    os.fsync(file)
    private_folder(target.parent)
    part.rename(target)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _open(target: Path, path: str) -> int:
    """Without O_NONBLOCK, opening a pipe that nobody writes would wait for ever."""
    try:
        file = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise _unknown(path) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _unknown(path)
    return file


async def _pieces(path: str, file: int) -> AsyncGenerator[bytes, None]:
    try:
        while piece := await _to_the_end(path, lambda: os.read(file, _PIECE)):
            yield piece
    finally:
        os.close(file)


def _remove(target: Path) -> None:
    try:
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
    except (FileNotFoundError, NotADirectoryError):
        return  # somebody else removes it, too


def _unknown(path: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no artifact {quoted(path)}", what="artifact")
