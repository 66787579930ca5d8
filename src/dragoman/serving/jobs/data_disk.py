"""What uploads of data sets are on the disk: uploads/ID while they come, data/ID when they are unpacked. All of it blocks; called by data_uploads.py.

Whoever writes or unpacks an upload has its file locked: workers of one server share the folders.
"""

import fcntl
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.jobs.browsing import measure
from dragoman.serving.jobs.data_records import DataVersion
from dragoman.serving.jobs.data_unpacking import DataLimits, unpack
from dragoman.serving.paths import private_folder


class DataDisk:
    """`folder` is the data directory's jobs/. Set `stopped` to break off what is being unpacked. Methods raise OSError when the disk refuses."""

    def __init__(self, folder: Path, limits: DataLimits) -> None:
        self._coming = folder / "uploads"
        self._data = folder / "data"
        self._limits = limits
        self.stopped = threading.Event()

    def empty(self, upload_id: str, length: int) -> int | None:
        """Make the file. The room that there is, when that is too little."""
        private_folder(self._coming)
        room = int(shutil.disk_usage(self._coming).free * 0.9)
        if length > room:
            return room
        file = self.open(upload_id, make=True)
        try:
            os.ftruncate(file, 0)
        finally:
            os.close(file)
        return None

    def open(self, upload_id: str, *, make: bool = False) -> int:
        """The file to append to, locked until it is closed. Raises FileNotFoundError, unless it is made, and CONFLICT (what="busy")."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if make else 0)
        file = os.open(self._coming / upload_id, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise ServingError(Kind.CONFLICT, "another piece of the upload is being written", what="busy", retry_after_s=1.0) from None
        return file

    def size(self, upload_id: str) -> int:
        """How much has come. Raises CONFLICT (what="busy")."""
        try:
            file = self.open(upload_id)
        except FileNotFoundError:
            return 0
        try:
            return os.fstat(file).st_size
        finally:
            os.close(file)

    def last(self, version: DataVersion) -> float:
        """When something came last, in seconds since the epoch."""
        try:
            return (self._coming / version.id).stat().st_mtime
        except OSError:
            return version.created

    def remove(self, upload_id: str) -> None:
        """What has come of an upload; what is unpacked stays."""
        (self._coming / upload_id).unlink(missing_ok=True)

    def unpack(self, version: DataVersion) -> tuple[int, int] | None:
        """How many files it holds and their bytes; None when another worker does it, has done it, or this one is stopping."""
        target, part = self._data / version.id, self._data / f".{version.id}.part"
        private_folder(self._data)
        try:
            file = self.open(version.id)
        except FileNotFoundError:
            if target.is_dir():
                return measure(target)
            raise invalid("what was uploaded is no longer there") from None
        except ServingError:
            return None
        try:
            if target.is_dir():  # the server ended before it could say so
                return measure(target)
            shutil.rmtree(part, ignore_errors=True)
            found = unpack(self._coming / version.id, part, self._limits, self.stopped.is_set)
            if found is not None:
                part.rename(target)
            return found
        finally:
            shutil.rmtree(part, ignore_errors=True)
            os.close(file)

    def forget(self, version_id: str) -> None:
        """Out of sight at once, whatever is being done with it."""
        self.remove(version_id)
        gone = self._data / f".{version_id}.gone"
        with suppress(OSError):
            (self._data / version_id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def append(file: int, piece: bytes, *, flush: bool = False) -> None:
    """Write all of it; with `flush` everything that was written is on the disk on return."""
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]
    if flush:
        os.fsync(file)
