"""Uploads of data sets in pieces, each from where the one before ended, over a broken line and a restart of the server (what tus 1.0.0 needs).

The state of an upload is its file, jobs/uploads/ID: as long as what has come. It is locked while somebody writes or unpacks it, so any worker may
take any piece. When the last piece is there it is unpacked to jobs/data/ID, in a thread. Called by dialects/floydhub and data_sets.py.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.serving.jobs.data_disk import DataDisk, append
from dragoman.serving.jobs.data_kept import KeptData
from dragoman.serving.jobs.data_records import DataState, DataVersion
from dragoman.serving.jobs.data_unpacking import DataLimits
from dragoman.serving.settings import quoted
from dragoman.serving.threads import to_the_end

log = logging.getLogger("dragoman.jobs")

R = TypeVar("R")

EXPIRY_S = 7 * 86400.0
"""An upload that got nothing for so long is given up."""
_PIECE = 256 << 10
_UNPACKED_AT_ONCE = 2
_EXPIRED = "the upload was given up: nothing came for too long"


@dataclass(frozen=True, slots=True)
class Upload:
    """How far one is. Whole when `offset` is `length`."""

    id: str
    offset: int
    length: int
    expires: float = 0.0
    """Seconds since the epoch; 0 for one that is whole."""


class DataUploads:
    """Whatever names an upload raises NOT_FOUND (what="upload"; what="expired" for one that was given up), UNAUTHENTICATED for a wrong token.

    `folder` is the data directory's jobs/.
    """

    def __init__(
        self,
        kept: KeptData,
        folder: Path,
        limits: DataLimits | None = None,
        *,
        expiry_s: float = EXPIRY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or DataLimits()
        self._kept = kept
        self._on_disk = DataDisk(folder, self.limits)
        self._expiry_s = expiry_s
        self._clock = clock
        self._unpacking: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(_UNPACKED_AT_ONCE)

    async def credentials(self, version_id: str) -> tuple[str, str]:
        """The name of a version's upload and a new password for it; older passwords hold no longer. Raises NOT_FOUND (what="data")."""
        token = secrets.token_urlsafe(32)
        version = await self._kept.edit(version_id, lambda found: replace(found, token=_hashed(token)))
        return version.id, token

    async def begin(self, upload_id: str, token: str, length: int) -> Upload:
        """Announce how long it will be; what came before is dropped.

        Raises TOO_LARGE above the limit or what the disk has room for, with the number; CONFLICT for one that is whole, and as `append`.
        """
        version = await self._version(upload_id, token)
        if version.state is not DataState.WAITING:
            raise ServingError(Kind.CONFLICT, f"{version.name} has been uploaded already", what="offset")
        if length < 0 or length > self.limits.max_upload:
            raise _too_large(f"the upload has {length} bytes, the limit is {self.limits.max_upload} bytes")
        room = await self._disk(partial(self._on_disk.empty, upload_id, length))
        if room is not None:
            raise _too_large(f"the upload has {length} bytes, the server has room for {room} bytes")
        version = await self._kept.edit(upload_id, lambda found: replace(found, length=length))
        return await self._went_on(version, 0)

    async def look(self, upload_id: str, token: str) -> Upload:
        """How far it is. Raises CONFLICT (what="busy") while a piece is being written, what="offset" before its `begin`."""
        version = await self._version(upload_id, token)
        if version.state in (DataState.UNPACKING, DataState.VALID):
            self.settle(version)
            return Upload(upload_id, version.length, version.length)
        size = await self._disk(partial(self._on_disk.size, upload_id))
        return await self._went_on(version, size)

    async def append(self, upload_id: str, token: str, offset: int, chunks: AsyncIterator[bytes], *, length: int | None = None) -> Upload:
        """Take a piece that begins at `offset`, of `length` bytes where that was announced. What came is kept when `chunks` raises.

        Raises CONFLICT with what="offset" when it does not begin where the last one ended, and what="busy" while another is being written;
        INVALID_INPUT (what="body") when it is longer than what was announced at the beginning; UNAVAILABLE when the disk refuses.
        """
        version = await self._version(upload_id, token)
        if version.state is not DataState.WAITING:
            raise ServingError(Kind.CONFLICT, f"the upload of {version.name} is whole, nothing can be added", what="offset")
        if version.length < 0:
            raise _not_begun(version)
        if length is not None and offset + length > version.length:
            raise _more(version)
        try:
            file = await to_the_end(partial(self._on_disk.open, upload_id), undo=os.close)
        except OSError as error:
            raise _refused(error) from error
        try:
            size = os.fstat(file).st_size
            if size != offset:
                raise ServingError(Kind.CONFLICT, f"the piece begins at {offset}, expected {size}", what="offset")
            size = await self._write(file, chunks, version, size)
        except OSError as error:
            raise _refused(error) from error
        finally:
            os.close(file)
        return await self._went_on(version, size)

    async def discard(self, upload_id: str, token: str) -> None:
        """Give up one that is not whole. Its version becomes INVALID."""
        version = await self._version(upload_id, token)
        if version.state is not DataState.WAITING:
            raise ServingError(Kind.CONFLICT, f"the upload of {version.name} is whole, it cannot be given up", what="offset")
        await self._disk(partial(self._on_disk.remove, upload_id))
        await self._kept.edit(upload_id, _given_up("the upload was given up by its owner"))

    async def take(self, version: DataVersion, chunks: AsyncIterator[bytes], about: int = 0) -> None:
        """Unpack a tar file that the server makes itself, of `about` this length. What goes wrong makes the version INVALID."""
        try:
            room = await self._disk(partial(self._on_disk.empty, version.id, about))
            if room is not None or about > self.limits.max_upload:
                most = self.limits.max_upload if room is None else min(room, self.limits.max_upload)
                raise _too_large(f"it has {about} bytes, there is room for {most} bytes")
            file = await to_the_end(partial(self._on_disk.open, version.id), undo=os.close)
            try:
                size = await self._write(file, chunks, replace(version, length=self.limits.max_upload), 0)
            finally:
                os.close(file)
            await self._went_on(await self._kept.edit(version.id, lambda found: replace(found, length=size)), size)
        except (ServingError, OSError) as error:
            reason = error.message if isinstance(error, ServingError) else _refused(error).message
            await self._failed(version, invalid(reason))

    def settle(self, version: DataVersion) -> None:
        """See to it that a whole upload is unpacked: by this worker, unless somebody does that already."""
        if version.state is DataState.UNPACKING and version.id not in self._unpacking and not self._on_disk.stopped.is_set():
            task = asyncio.get_running_loop().create_task(self._unpack(version))
            self._unpacking[version.id] = task
            task.add_done_callback(lambda _: self._unpacking.pop(version.id, None))

    async def sweep(self) -> None:
        """Go on with what a server before left, and give up uploads that nothing came for. Called at start, and now and then, by one process."""
        versions = await self._kept.versions(None)
        place = await asyncio.to_thread(self._kept.place) if versions else ""
        for version in versions:
            if version.place != place or version.folder:
                continue
            self.settle(version)
            if version.state is DataState.WAITING and await asyncio.to_thread(self._on_disk.last, version) + self._expiry_s < self._clock():
                with suppress(ServingError):
                    await self._disk(partial(self._on_disk.remove, version.id))
                    await self._kept.edit(version.id, _given_up(_EXPIRED))

    async def forget(self, version_id: str) -> None:
        """Remove the files of a version; one that is being unpacked, when that has ended."""
        await asyncio.to_thread(self._on_disk.forget, version_id)

    async def close(self) -> None:
        """What is being unpacked is broken off; the next server does it again."""
        self._on_disk.stopped.set()
        await asyncio.gather(*self._unpacking.values(), return_exceptions=True)

    # --- inside ---

    async def _version(self, upload_id: str, token: str) -> DataVersion:
        version = await self._kept.version(upload_id)
        if version is None or not version.token:
            raise ServingError(Kind.NOT_FOUND, f"there is no upload {quoted(upload_id)}", what="upload")
        if not hmac.compare_digest(version.token, _hashed(token)):
            raise ServingError(Kind.UNAUTHENTICATED, "the password of the upload is wrong; ask for new credentials", what="upload")
        if version.state is DataState.INVALID:
            raise ServingError(Kind.NOT_FOUND, f"the upload of {version.name} cannot go on: {version.reason}", what="expired")
        return version

    async def _went_on(self, version: DataVersion, size: int) -> Upload:
        """How far it is now; unpacked when it is whole."""
        if version.length < 0:
            raise _not_begun(version)
        if size < version.length:
            return Upload(version.id, size, version.length, self._clock() + self._expiry_s)
        self.settle(await self._kept.edit(version.id, _whole))
        return Upload(version.id, size, version.length)

    async def _write(self, file: int, chunks: AsyncIterator[bytes], version: DataVersion, size: int) -> int:
        """Write what comes; how long the file is then. On the disk on return, also what came before `chunks` raised."""
        waiting = bytearray()
        try:
            async for chunk in chunks:
                if size + len(waiting) + len(chunk) > version.length:
                    raise _more(version)
                waiting += chunk
                if len(waiting) >= _PIECE:
                    piece = bytes(waiting)
                    waiting.clear()
                    size += len(piece)
                    await to_the_end(partial(append, file, piece))
        finally:
            rest = bytes(waiting)
            size += len(rest)
            await to_the_end(partial(append, file, rest, flush=True))
        return size

    async def _unpack(self, version: DataVersion) -> None:
        async with self._room:
            try:
                found = await to_the_end(partial(self._on_disk.unpack, version))
                if found is not None:
                    files, size = found
                    await self._kept.edit(version.id, lambda now: replace(now, state=DataState.VALID, files=files, size=size))
                    await self._disk(partial(self._on_disk.remove, version.id))
            except ServingError as error:
                await self._failed(version, error)
            except OSError as error:
                log.warning("%s cannot be unpacked: %s", version.name, error)
                await self._failed(version, _refused(error))

    async def _failed(self, version: DataVersion, error: ServingError) -> None:
        """Say why, where that can be said: a store that is away, or a version that was removed meanwhile, leaves it for the next look."""
        if error.kind is Kind.NOT_FOUND:
            await self.forget(version.id)
        elif error.kind is Kind.INVALID_INPUT or error.what == "disk":
            with suppress(ServingError):
                await self._kept.edit(version.id, _given_up(error.message))
                await self._disk(partial(self._on_disk.remove, version.id))

    async def _disk(self, work: Callable[[], R]) -> R:
        try:
            return await to_the_end(work)
        except OSError as error:
            raise _refused(error) from error


def _whole(version: DataVersion) -> DataVersion:
    return replace(version, state=DataState.UNPACKING) if version.state is DataState.WAITING else version


def _given_up(reason: str) -> Callable[[DataVersion], DataVersion]:
    return lambda version: replace(version, state=DataState.INVALID, reason=reason)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _too_large(text: str) -> ServingError:
    return ServingError(Kind.TOO_LARGE, text, what="body")


def _more(version: DataVersion) -> ServingError:
    return invalid(f"the piece goes beyond the {version.length} bytes that the upload was announced with", "body")


def _not_begun(version: DataVersion) -> ServingError:
    return ServingError(Kind.CONFLICT, f"the upload of {version.name} has not been begun", what="offset")


def _refused(error: OSError) -> ServingError:
    return ServingError(Kind.UNAVAILABLE, f"the data set cannot be stored: {error.strerror}", what="disk")
