"""Bells of processes that share one SQLite file: each listens on a unix datagram socket in a folder beside it, and whoever has changed
something sends each of them one byte. Where a file system has no sockets, a bell asks SQLite several times a second whether there was a write.

Made by sqlite.py. PostgreSQL has its own way (postgres.py); what both share is how to wait for a descriptor.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

from dragoman.store import Bell

log = logging.getLogger("dragoman.store")

_LONGEST = 107
"""Bytes in the address of a unix socket."""
_NAME = re.compile(r"[0-9a-f]{32}\Z")
_POLL_S = 0.2


class Bells:
    """All bells around one database file. `folder` is made with the first one."""

    def __init__(self, folder: Path, database: Path) -> None:
        self._folder = folder
        self._database = database

    def new(self) -> Bell:
        """Blocks for some tens of microseconds."""
        try:
            return SocketBell(self._folder)
        except OSError as error:
            log.info("there can be no sockets in %s (%s): changes of other processes are noticed within %g s", self._folder, error, _POLL_S)
            return PollingBell(self._database)

    def ring(self) -> None:
        """Send to whoever listens, and forget those that do not any more. Never fails and never waits: who has not read has been rung."""
        with contextlib.suppress(OSError), _opened(self._folder) as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            for name in filter(_NAME.match, os.listdir(place)):
                try:
                    sender.sendto(b".", _address(self._folder, place, name))
                except ConnectionRefusedError:  # its process was killed
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=place)
                except OSError:
                    continue


class SocketBell:
    """Implements `dragoman.store.Bell`. Raises OSError where no socket can be."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._name = uuid4().hex
        draft = f"{self._name}.new"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            with _opened(folder) as place:
                self._socket.bind(_address(folder, place, draft))
                # Under its name only when it hears: one that seems deaf is taken for a dead one and removed.
                os.rename(draft, self._name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            self._socket.close()
            raise

    async def rung(self, timeout_s: float) -> None:
        if not self._drained():
            await readable(self._socket.fileno(), timeout_s)
            self._drained()

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
        self._socket.close()

    def _drained(self) -> bool:
        """Whether it was rung; all of it is read."""
        rung = False
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(1):
                rung = True
        return rung


class PollingBell:
    """Implements `dragoman.store.Bell` by SQLite's own count of what others have written."""

    def __init__(self, database: Path) -> None:
        self._uri = f"file:{quote(str(database.absolute()))}?mode=ro"
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._seen = self._looked()

    async def rung(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while (found := await asyncio.to_thread(self._looked)) == self._seen and found is not None:
            if (left_s := until - time.monotonic()) <= 0:
                return
            await asyncio.sleep(min(_POLL_S, left_s))
        if found is None:  # there is nothing to ask: as if it had rung after a while
            await asyncio.sleep(min(_POLL_S, max(0.0, until - time.monotonic())))
        self._seen = found

    async def close(self) -> None:
        await asyncio.to_thread(self._disconnect)

    def _looked(self) -> int | None:
        """Changes with each commit of another connection; None when the database cannot be asked."""
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = sqlite3.connect(self._uri, uri=True, timeout=0, check_same_thread=False)
                version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
                return version
        except sqlite3.Error:
            self._disconnect()
            return None

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


async def readable(descriptor: int, timeout_s: float) -> bool:
    """Whether it can be read now; waits for that, up to the time-out."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()

    def answer(ready: bool) -> None:
        if not answered.done():
            answered.set_result(ready)

    loop.add_reader(descriptor, answer, True)
    timer = loop.call_later(timeout_s, answer, False)
    try:
        return await answered
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def _address(folder: Path, place: int, name: str) -> str:
    """Where a folder's path is too long for the address of a socket, Linux knows a short one."""
    path = str(folder / name)
    return path if len(os.fsencode(path)) <= _LONGEST else f"/proc/self/fd/{place}/{name}"
