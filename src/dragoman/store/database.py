"""What the store asks of a database: SQLite (sqlite.py) and PostgreSQL (postgres.py) each implement it, and sqlstore.py knows neither.

Two kinds of failure are told apart for lanes.py, which runs calls in groups: those that concern all calls and after which none is made again,
and those after which all may be.
"""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection

from dragoman.core.errors import ServingError
from dragoman.store import Bell
from dragoman.store.blobs import Blobs


class OutageError(ServingError):
    """The database as a whole is out of reach or held by somebody else, or it broke off at a commit, which may have been made or not.

    None of the calls of a transaction is made again: one might be made twice, and all of them would wait as long as this one did.
    """


class ClashError(ServingError):
    """Another transaction, or the loss of the connection before any commit, came in between. Nothing was applied: it may be run again."""


class Transactions(Protocol):
    """One connection, opened when it is needed and again after a failure; used in one thread. Calling it opens one transaction."""

    def __call__(self) -> AbstractContextManager[Connection]:
        """Commits at the end, rolls back on an exception.

        Raises ServingError UNAVAILABLE for whatever goes wrong beneath, but for IntegrityError, which the statements bring about.
        """
        ...

    def disconnect(self) -> None: ...


class Database(Protocol):
    """Every method but `bell` blocks and is called in threads."""

    @property
    def blobs(self) -> Blobs | None:
        """Where large payloads become files; None where they stay in the database."""
        ...

    @property
    def most_bytes(self) -> int | None:
        """Of one payload; None: as many as it has."""
        ...

    def prepare(self) -> None:
        """Make it where it is missing, as far as that is possible, and migrate. Raises ServingError UNAVAILABLE."""
        ...

    def transactions(self, *, write: bool) -> Transactions: ...

    def alone(self, connection: Connection) -> None:
        """From here to its end this transaction is the only one of those, in all processes, that have called this."""
        ...

    def ring(self, connection: Connection) -> None:
        """Ring everybody's bell when, and only when, this transaction is committed."""
        ...

    async def bell(self) -> Bell:
        """A bell of one's own."""
        ...

    def unavailable(self, error: OSError) -> ServingError:
        """What a failure of the files beside it, if there are any, means."""
        ...
