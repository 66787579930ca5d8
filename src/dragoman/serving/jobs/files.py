"""Files of people's code, each kept once under the SHA-256 of its content, however often and by whomever it is uploaded. All of it blocks.

What is kept never changes and is on the disk when its name is given out. Called by code.py and receiving.py, in threads.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dragoman.core.disk import write_whole
from dragoman.core.errors import Kind, ServingError
from dragoman.engines.locks import FileLock
from dragoman.serving.paths import private_folder

_COMING, _NAMED, _LOCK = "coming", "named", "lock"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LEFT_BEHIND_S = 86400.0
"""A folder of an upload that is older belongs to a server that was killed."""
_AT_ONCE = 8
"""Files that are flushed at the same time: they share the waits for the disk."""


class Files:
    """A folder with 256 folders of files. In it, `coming` has a folder for each upload that is being received, and `named` says what is needed.

    That is not left to the store: a server that is started with another one must not take everything for unneeded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where a file is kept. Raises ValueError for what is no SHA-256."""
        if not _DIGEST.match(digest):
            raise ValueError(f"{digest!r} is no SHA-256")
        return self.folder / digest[:2] / digest

    def coming(self) -> Path:
        """A new private folder for what an upload brings, on the same disk. Raises OSError."""
        folder = self.folder / _COMING / secrets.token_hex(16)
        private_folder(folder)
        return folder

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """While somebody adds files and writes down that they are needed; nothing is collected meanwhile, here or in another process."""
        private_folder(self.folder)
        with FileLock.take(self.folder / _LOCK, shared=True):
            yield

    def keep(self, found: Mapping[str, Path]) -> None:
        """Move files here, digest -> where it is; those that are here already are left where they are. Called in `naming`. Raises OSError."""
        new = {digest: path for digest, path in found.items() if not self.path(digest).exists()}
        with ThreadPoolExecutor(_AT_ONCE, "dragoman-flush") as pool:
            list(pool.map(_flush, new.values()))
        folders = {self.path(digest).parent for digest in new}
        for folder in folders:
            private_folder(folder)
        for digest, path in new.items():
            path.rename(self.path(digest))
        for folder in folders | ({self.folder} if folders else set()):
            _flush(folder)

    def keep_text(self, content: bytes) -> str:
        """Keep some bytes; returns their name. Called in `naming`. Raises OSError."""
        digest = hashlib.sha256(content).hexdigest()
        if not self.path(digest).exists():
            folder = self.coming()
            try:
                (folder / "text").write_bytes(content)
                self.keep({digest: folder / "text"})
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        return digest

    def read(self, digest: str) -> bytes:
        """Raises UNAVAILABLE when the file is gone or is not what it was."""
        try:
            content = self.path(digest).read_bytes()
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"a stored file cannot be read: {error.strerror}", what="file") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise ServingError(Kind.UNAVAILABLE, "a stored file is damaged", what="file")
        return content

    def name(self, owner: str, digest: str) -> None:
        """Write down that `owner` (an id) needs a file, and what that names in turn. Called in `naming`. Raises OSError."""
        folder = self.folder / _NAMED
        private_folder(folder)
        write_whole(folder / owner, digest, flush=True)
        _flush(folder)

    def unname(self, owner: str) -> None:
        """It needs nothing any more; no error when it never did."""
        (self.folder / _NAMED / owner).unlink(missing_ok=True)

    def collect(self, names: Callable[[bytes], Collection[str]]) -> int:
        """Remove the files that nobody needs, and what killed uploads left; how many files. 0 when somebody is just adding some.

        `names` answers which files a needed one names. Raises OSError.
        """
        if not self.folder.is_dir():
            return 0
        lock = FileLock.attempt(self.folder / _LOCK)
        if lock is None:
            return 0
        count = 0
        with lock:
            needed = self._needed(names)
            for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
                if path.name not in needed:
                    path.unlink(missing_ok=True)
                    count += 1
        for folder in (self.folder / _COMING).glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if folder.stat().st_mtime < time.time() - _LEFT_BEHIND_S:
                    shutil.rmtree(folder, ignore_errors=True)
        return count

    def _needed(self, names: Callable[[bytes], Collection[str]]) -> set[str]:
        needed = set[str]()
        for path in (self.folder / _NAMED).glob("[!.]*"):
            digest = path.read_text()
            needed.add(digest)
            with contextlib.suppress(ServingError):  # of a damaged one it cannot be told; it cannot be placed anyway
                needed.update(names(self.read(digest)))
        return needed


def _flush(path: Path) -> None:
    """Have a file or folder on the disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
