"""Files that clients upload once and name in their inputs. Kept in a folder that all workers share, until nobody has used them for a while.

An upload is two files: `ID` with its content, whose time is that of its last use, and `ID.json` beside it. Ids cannot be guessed. What a
client calls its file is only ever text inside of the json: it names nothing on the disk.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from dragoman.core.data_uris import bare_name
from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob
from dragoman.serving.fetch import media_type
from dragoman.serving.paths import private_folder
from dragoman.serving.threads import to_the_end

log = logging.getLogger("dragoman")

_ID = re.compile(r"([0-9a-f]{32})(?:[-._/][^\0]*)?\Z")
_PIECE = 1 << 20
_SWEEP_S = 30.0
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Upload:
    """One stored file. `name` is what the client called it, made safe, "" where it had none."""

    id: str
    name: str
    media_type: str
    size: int

    @property
    def key(self) -> str:
        """What it is asked for by, one segment of a URL before escaping: its id, and for people its name."""
        return f"{self.id}-{self.name}" if self.name else self.id


class Uploads:
    """`max_file` and `max_total` are bytes; an upload that nobody asked for during `expiry_s` is removed."""

    def __init__(
        self,
        folder: Path,
        *,
        max_file: int = 1 << 30,
        max_total: int = 4 << 30,
        expiry_s: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._max_file = max_file
        self._max_total = max_total
        self._expiry_s = expiry_s
        self._clock = clock
        self._swept = 0.0
        self._coming = 0
        """Bytes of the uploads that are being received now, by this worker."""

    async def add(self, chunks: AsyncIterator[bytes], name: str = "", declared_type: str = "") -> Upload:
        """Store what the chunks hold, as they come.

        Raises TOO_LARGE above `max_file`, OVERLOADED when all uploads together leave no room, UNAVAILABLE when the disk refuses.
        """
        try:
            return await self._add(chunks, name, declared_type)
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the upload cannot be stored: {error.strerror}") from error

    async def find(self, key: str) -> Upload:
        """What is known of an upload by its key; the id alone will do. That counts as a use. Raises NOT_FOUND."""
        return await asyncio.to_thread(self._find, key)

    async def get(self, key: str) -> Blob:
        """Its content. That counts as a use. Raises NOT_FOUND."""
        return await asyncio.to_thread(self._read, key)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """Its content in pieces. Raises NOT_FOUND when the first is asked for."""
        upload = await self.find(key)
        try:
            with await asyncio.to_thread(open, self._folder / upload.id, "rb") as file:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    yield piece
        except FileNotFoundError:
            raise _unknown(key) from None

    async def sweep(self, *, now: bool = False) -> None:
        """Remove what has not been used for too long, at most twice a minute unless it is to be now."""
        if now or self._clock() - self._swept >= _SWEEP_S:
            self._swept = self._clock()
            await asyncio.to_thread(self._sweep)

    # --- below the surface; all of it blocks ---

    async def _add(self, chunks: AsyncIterator[bytes], name: str, declared_type: str) -> Upload:
        await self.sweep()
        key = uuid4().hex
        part = self._folder / f"{key}.part"
        room = await asyncio.to_thread(self._room)
        file = await to_the_end(lambda: _create(part), undo=partial(_abandon, part))
        size, waiting = 0, bytearray()
        try:
            async for chunk in chunks:
                waiting += chunk
                size += len(chunk)
                self._coming += len(chunk)
                if size > self._max_file:
                    raise ServingError(Kind.TOO_LARGE, f"the file is larger than the limit of {self._max_file} bytes", what="body")
                if self._coming > room:
                    raise _no_room()
                if len(waiting) >= _PIECE:
                    await to_the_end(partial(_write, file, bytes(waiting)))
                    waiting.clear()
            name = bare_name(name)
            upload = Upload(key, name, media_type(declared_type, name), size)
            await to_the_end(partial(self._finish, file, bytes(waiting), part, upload))
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            self._coming -= size
            os.close(file)
        return upload

    def _finish(self, file: int, rest: bytes, part: Path, upload: Upload) -> None:
        _write(file, rest)
        facts = {"name": upload.name, "media_type": upload.media_type, "size": upload.size}
        described = _create(self._folder / f"{upload.id}.json")
        try:
            _write(described, json.dumps(facts).encode())
        finally:
            os.close(described)
        now = self._clock()
        os.utime(part, (now, now))
        part.rename(self._folder / upload.id)

    def _find(self, key: str) -> Upload:
        match = _ID.match(key)
        if match is None:
            raise _unknown(key)
        path = self._folder / match[1]
        now = self._clock()
        try:
            if path.stat().st_mtime + self._expiry_s <= now:
                raise _unknown(key)
            facts = json.loads((self._folder / f"{match[1]}.json").read_text("utf-8"))
            upload = Upload(match[1], facts["name"], facts["media_type"], facts["size"])
        except FileNotFoundError:
            raise _unknown(key) from None
        except (OSError, ValueError, LookupError, TypeError) as error:  # a disk that fails, or was full when the machine went down
            log.warning("the upload %s cannot be read: %s", match[1], error)
            raise ServingError(Kind.UNAVAILABLE, "the uploaded file cannot be read", what="file") from error
        with contextlib.suppress(OSError):  # on a disk that nobody may write to it will expire, used or not
            os.utime(path, (now, now))
        return upload

    def _read(self, key: str) -> Blob:
        upload = self._find(key)
        try:
            data = (self._folder / upload.id).read_bytes()
        except FileNotFoundError:
            raise _unknown(key) from None
        except OSError as error:
            raise ServingError(Kind.UNAVAILABLE, f"the uploaded file cannot be read: {error.strerror}", what="file") from error
        return Blob(data, upload.media_type, upload.name)

    def _room(self) -> int:
        """Bytes that are left for all uploads together."""
        private_folder(self._folder)
        used = count = 0
        for entry in os.scandir(self._folder):
            try:
                used += entry.stat().st_size
            except FileNotFoundError:
                continue
            count += 1
        if used >= self._max_total or count >= 2 * _MOST_FILES:
            raise _no_room()
        return self._max_total - used

    def _sweep(self) -> None:
        """Raises nothing: what cannot be removed now is tried again."""
        before = self._clock() - self._expiry_s
        try:
            entries = list(os.scandir(self._folder))
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("old uploads cannot be looked for: %s", error)
            return
        for entry in entries:
            path = Path(entry.path)
            if path.suffix == ".json" and path.with_suffix("").exists():
                continue  # goes with its content
            try:
                if entry.stat().st_mtime <= before:
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("the old upload %s cannot be removed: %s", entry.name, error)


def _abandon(part: Path, file: int) -> None:
    part.unlink(missing_ok=True)
    os.close(file)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _unknown(key: str) -> ServingError:
    return ServingError(Kind.NOT_FOUND, f"there is no uploaded file '{key[:64]}'", what="file")


def _no_room() -> ServingError:
    return ServingError(Kind.OVERLOADED, "there is no room for more uploads now", what="file", retry_after_s=60.0)
