"""PostgreSQL beneath the store: how it is reached, what a transaction is, and what its failures mean to whoever asked.

Implements database.py over psycopg. Several servers on several machines may share one database. Nothing here waits without bound: not for a
connection, a lock, a statement, nor for a network that has gone silent.
"""

import contextlib
import logging
import select
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.store import Bell
from dragoman.store.addresses import shown
from dragoman.store.database import ClashError, OutageError
from dragoman.store.listening import ListeningBell
from dragoman.store.upgrades import check, upgrade

log = logging.getLogger("dragoman.store")

Driver: TypeAlias = psycopg.Connection[Any]

CHANNEL = "dragoman"
"""Of NOTIFY, in this database."""

_REACH = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "dragoman",
}
"""libpq's parameters, unless the URL says otherwise: a server that has vanished is noticed within 20 s."""

WAIT_S = 10.0
"""For a lock that another process holds."""
MOST_BYTES = 256 << 20
"""Of one payload: PostgreSQL makes a text of twice its length of it, which may have 1 GB."""
_MIGRATING = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '120s'"

_MIGRATION_LOCK = 0x64726167_6F6D0001
_REGISTRY_LOCK = 0x64726167_6F6D0002
"""Of pg_advisory_xact_lock: "dragom" and a number."""

_AGAIN = {"40001", "40P01"}
_SLOW = {"55P03", "57014"}
"""Whoever waits behind would wait as long."""
_WORDS = {
    "28": "refuses the server's user or password: correct what --store says",
    "3D000": "does not exist: make it with CREATE DATABASE, or correct what --store says",
    "42501": "may not be changed by the server's user: grant it the rights on its schema, or make it the owner",
    "25006": "can only be read: --store must lead to the primary server, not to a standby",
    "53100": "cannot grow, as the disk of PostgreSQL is full: free some space",
    "53300": "has no connection left for this server: raise max_connections of PostgreSQL, or run fewer workers",
    "53": "has too little of what it needs: see the log of PostgreSQL",
    "55P03": "is locked by another process: try again, or end the process that holds it",
    "57014": "took too long to answer: see what keeps PostgreSQL busy",
    "57P": "is being stopped or started: try again",
    "08": "cannot be reached: see that PostgreSQL runs and that --store leads to it",
    "58": "cannot be read or written by PostgreSQL's system: see the log of PostgreSQL",
    "XX": "is damaged or failed inside: see the log of PostgreSQL",
}
"""The beginning of an SQLSTATE -> what is wrong and what to do; the longest one counts."""
_REFUSALS = {
    "starting up": "57P03",
    "shutting down": "57P03",
    "recovery": "57P03",
    "too many": "53300",
    "connection slots": "53300",
    "authentication": "28000",
    "no password": "28000",
    "pg_hba": "28000",
    'role "': "28000",
    'database "': "3D000",
}
"""Words of a refusal to connect, in their order -> its SQLSTATE. In another language than English they mean that it cannot be reached."""


class Postgres:
    """One database. A write waits `wait_s` for what others have locked, a statement takes three times as long at most.

    Raises ServingError INVALID_INPUT for a URL that is none.
    """

    blobs = None
    """Large payloads stay in the database: machines that share it share no folder."""

    def __init__(self, url: str, *, wait_s: float = WAIT_S, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._shown = shown(url)
        try:
            given = conninfo_to_dict(url.replace("postgresql+psycopg://", "postgresql://", 1))
        except psycopg.Error:  # its words may hold a piece of the password
            raise invalid(f"'{self._shown}' is no store: its port, host or options are not as PostgreSQL writes them") from None
        self._connect = partial(_connected, {**_REACH, **given}, wait_s)

    def prepare(self) -> None:
        """Migrate, one process at a time. The database itself must be there."""
        transactions = self.transactions(write=True)
        try:
            with transactions.unchecked() as connection:
                connection.execute(text(_MIGRATING))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
                upgrade(connection)
        finally:
            transactions.disconnect()

    def transactions(self, *, write: bool) -> "Transactions":
        return Transactions(self._connect, self._shown, write=write)

    def alone(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _REGISTRY_LOCK})

    def ring(self, connection: Connection) -> None:
        connection.execute(text(f"NOTIFY {CHANNEL}"))

    async def bell(self) -> Bell:
        return await ListeningBell.connected(self._connect, CHANNEL)

    def unavailable(self, error: OSError) -> ServingError:
        return _failure(error)


class Transactions:
    """Implements `database.Transactions`."""

    def __init__(self, connect: Callable[[], Driver], name: str, *, write: bool) -> None:
        self._connect = connect
        self._name = name
        self._write = write
        self._engine = self._made()
        self._connection: Connection | None = None
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
        begun = committing = False
        try:
            connection = self._connected()
            begun = True
            with connection.begin():
                if checked and not self._checked:
                    check(connection)
                    self._checked = True
                yield connection
                committing = True
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, psycopg.IntegrityError):
                raise
            broken = self._broken()
            self.disconnect()
            kind = None if not broken else ClashError if begun and not committing else OutageError
            raise self._reported(_failure(cause, kind), cause) from error
        self._recovered()

    def _connected(self) -> Connection:
        if self._connection is not None and self._broken():
            self.disconnect()
        if self._connection is None:
            self._connection = self._engine.connect()
            self._checked = False
        return self._connection

    def _broken(self) -> bool:
        """Whether PostgreSQL has ended the connection, as far as this machine has heard: between transactions it says nothing else."""
        connection = self._connection
        if connection is None or connection.closed or connection.invalidated:
            return True
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, psycopg.Connection)
        if driver.closed:
            return True
        waiting = select.poll()
        waiting.register(driver, select.POLLIN)
        if waiting.poll(0):
            try:
                driver.pgconn.consume_input()
            except psycopg.Error:
                return True
        return False

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError, psycopg.Error):
                connection.invalidate()
                connection.close()

    def _opened(self) -> Driver:
        connection = self._connect()
        connection.autocommit = False
        if not self._write:  # all that one call reads is of one moment
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        return connection

    def _made(self) -> Engine:
        return create_engine("postgresql+psycopg://", creator=self._opened, poolclass=NullPool)

    def _reported(self, failure: ServingError, cause: BaseException | None) -> ServingError:
        """Logged once for each cause, not for each call."""
        if failure.message != self._failing and not isinstance(failure, ClashError):
            self._failing = failure.message
            log.error("%s (%s: %s)", failure.message, self._name, str(cause).partition("\n")[0])
        return failure

    def _recovered(self) -> None:
        if self._failing:
            self._failing = ""
            log.warning("the server's database works again (%s)", self._name)


def _connected(parameters: Mapping[str, Any], wait_s: float) -> Driver:
    """A connection in which each statement is a transaction, and none takes for ever. Blocks for some seconds at most. Raises psycopg.Error."""
    connection = psycopg.connect(**parameters, autocommit=True)
    bounds = {"lock_timeout": wait_s, "statement_timeout": 3 * wait_s, "idle_in_transaction_session_timeout": 6 * wait_s}
    try:
        connection.execute("; ".join(f"SET {name} = {int(seconds * 1000)}" for name, seconds in bounds.items()))
    except BaseException:
        connection.close()
        raise
    return connection


def _failure(cause: BaseException | None, kind: type[ServingError] | None = None) -> ServingError:
    """What a failure means to whoever asked. The words are for strangers: they name no host and no user."""
    state = cause.sqlstate or "" if isinstance(cause, psycopg.Error) else ""
    if not state and isinstance(cause, psycopg.OperationalError):
        reason = str(cause).lower()  # of a connection that was refused the driver knows nothing but PostgreSQL's words
        state = next((code for words, code in _REFUSALS.items() if words in reason), "08")
    words = next((_WORDS[state[:length]] for length in (5, 3, 2) if state[:length] in _WORDS), "failed: see the server's log")
    kind = kind or (ClashError if state in _AGAIN else OutageError if state in _SLOW else ServingError)
    return kind(Kind.UNAVAILABLE, f"the server's database {words}", retry_after_s=5.0)
