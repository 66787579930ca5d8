"""SQLite beneath the store: how a file is opened, what a transaction is, and what its failures mean to whoever asked.

Nothing here knows a table but the one with the schema's revision. Implements database.py; transactions run in the threads of lanes.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from dragoman.core.errors import Kind, ServingError
from dragoman.store import Bell
from dragoman.store.bells import Bells
from dragoman.store.blobs import Blobs
from dragoman.store.database import OutageError
from dragoman.store.upgrades import check, upgrade

log = logging.getLogger("dragoman.store")

WAIT_S = 10.0
"""For another process that writes."""
_RETRY_S = 0.02
_RING = "rings"
"""In `info` of a connection: its transaction is to ring the bells."""

_WORDS = {
    sqlite3.SQLITE_BUSY: "is locked by another process: try again, or end the process that holds it",
    sqlite3.SQLITE_LOCKED: "is locked by another process: try again, or end the process that holds it",
    sqlite3.SQLITE_READONLY: "cannot be written: let the server's user write to the data directory and to every file in it",
    sqlite3.SQLITE_PERM: "may not be opened: let the server's user read and write the data directory and every file in it",
    sqlite3.SQLITE_AUTH: "may not be opened: let the server's user read and write the data directory and every file in it",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: see that the data directory exists and that the server's user may write to it",
    sqlite3.SQLITE_FULL: "cannot grow, as the disk is full: free some space in the data directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written by the system: see that the disk has space and is in order",
    sqlite3.SQLITE_CORRUPT: "is damaged: put a backup in its place, or move it away and start the server anew",
    sqlite3.SQLITE_NOTADB: "is damaged or no database: put a backup in its place, or move it away and start the server anew",
    sqlite3.SQLITE_SCHEMA: "was changed by another program: start the server anew",
    sqlite3.SQLITE_ERROR: "lacks something that this server needs: start the server anew",
}
"""SQLite's primary result code -> what is wrong and what to do."""


class SqliteFile:
    """One database file. It is made, brought up to date and checked by `prepare`; then each lane opens transactions of its own.

    A write waits `wait_s` for other processes.
    """

    def __init__(self, path: Path, *, wait_s: float = WAIT_S) -> None:
        self.path = path
        self.blobs = Blobs(path.parent / "blobs")
        self.most_bytes = None
        self._bells = Bells(path.parent / "bells", path)
        self._wait_s = wait_s

    def prepare(self) -> None:
        """Make the file and its folder where missing, and migrate. Blocks. Raises ServingError UNAVAILABLE."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Made by ourselves so that nobody else can read it; its companions (-wal, -shm) get the same rights from SQLite.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise unavailable(error, self.path) from error
        transactions = self.transactions(write=True)
        try:
            transactions.make_wal()
            with transactions.unchecked() as connection:
                upgrade(connection)
        finally:
            transactions.disconnect()

    def transactions(self, *, write: bool) -> "Transactions":
        return Transactions(self.path, write=write, wait_s=self._wait_s, committed=self._bells.ring)

    def alone(self, connection: Connection) -> None:
        """Every transaction that writes is, from its begin."""

    def ring(self, connection: Connection) -> None:
        connection.info[_RING] = True

    async def bell(self) -> Bell:
        return self._bells.new()

    def unavailable(self, error: OSError) -> ServingError:
        return unavailable(error, self.path)


class Transactions:
    """Implements `database.Transactions`. `committed` is called after a transaction that rings."""

    def __init__(self, path: Path, *, write: bool, wait_s: float, committed: Callable[[], None]) -> None:
        self._path = path
        self._committed = committed
        self._write = write
        self._wait_s = wait_s
        self._engine = self._made()
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._checked = False
        """Whether the schema of this connection's database has been looked at."""
        self._failing = ""

    def __call__(self) -> contextlib.AbstractContextManager[Connection]:
        return self._transaction(checked=True)

    def unchecked(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction in a database that need not be up to date."""
        return self._transaction(checked=False)

    @contextlib.contextmanager
    def _transaction(self, *, checked: bool) -> Iterator[Connection]:
        try:
            connection = self._connected()
            connection.info.pop(_RING, None)
            with connection.begin():
                if checked and not self._checked:
                    check(connection)
                    self._checked = True
                yield connection
            rings = connection.info.pop(_RING, False)
        except (DBAPIError, sqlite3.Error, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, sqlite3.IntegrityError):
                raise
            self.disconnect()
            raise self._reported(unavailable(cause, self._path)) from error
        self._recovered()
        if rings:
            self._committed()

    def _connected(self) -> Connection:
        """The connection to the file that is there now: SQLite would go on writing to one that was moved away or replaced."""
        found = os.stat(self._path)
        if self._connection is not None and self._file != (found.st_dev, found.st_ino):
            self.disconnect()
        if self._connection is None:
            self._connection = self._engine.connect()
            self._file = (found.st_dev, found.st_ino)
            self._checked = False
        return self._connection

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError, sqlite3.Error):
                connection.close()

    def make_wal(self) -> None:
        """Readers and the writer do not block each other from here on. SQLite does not wait for others here, so this does."""
        until = time.monotonic() + self._wait_s
        while True:
            try:
                with contextlib.closing(self._opened()) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.Error as error:
                if not isinstance(error, sqlite3.OperationalError) or _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise self._reported(unavailable(error, self._path)) from error
            time.sleep(_RETRY_S)

    def _opened(self) -> sqlite3.Connection:
        # rw: a database that is gone must not come back as an empty one.
        uri = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=self._wait_s, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            if not self._write:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _made(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._opened, poolclass=NullPool)
        # A writer takes its lock at once: one that began by reading could not wait for another writer, only fail.
        begin = "BEGIN IMMEDIATE" if self._write else "BEGIN"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _reported(self, failure: ServingError) -> ServingError:
        """Logged once for each cause, not for each call."""
        if failure.message != self._failing:
            self._failing = failure.message
            log.error("%s (%s)", failure.message, self._path)
        return failure

    def _recovered(self) -> None:
        if self._failing:
            self._failing = ""
            log.warning("the server's database works again (%s)", self._path)


def unavailable(error: BaseException | None, path: Path) -> ServingError:
    """What a failure of the database or of its folder means. The message is for strangers, so it names no path."""
    if isinstance(error, FileNotFoundError):
        words = "is gone: put its file back, or start the server anew with an empty one"
    elif isinstance(error, PermissionError):
        words = _WORDS[sqlite3.SQLITE_PERM]
    elif isinstance(error, sqlite3.Error):
        words = _WORDS.get(_code(error), "failed: see the server's log")
    elif isinstance(error, OSError):
        words = f"cannot be read or written: {error.strerror or type(error).__name__}"
    else:
        words = "failed: see the server's log"
    log.debug("%s: %r", path, error)
    held = isinstance(error, sqlite3.Error) and _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    kind = OutageError if held else ServingError  # who holds it for so long would hold it for the next call as well
    return kind(Kind.UNAVAILABLE, f"the server's database {words}", retry_after_s=5.0)


def _code(error: sqlite3.Error) -> int:
    """The primary one; 0 when Python raised it by itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
