"""What the store asks of a database: SQLite (sqlite.py) and PostgreSQL (postgres.py) each implement it, and sqlstore.py knows neither.

Two kinds of failure are told apart for lanes.py, which runs calls in groups: those after which nobody knows whether a transaction was
committed, and those after which it certainly was not and may be run again.
"""

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Connection

from dragoman.core.errors import ServingError
from dragoman.store import Bell
from dragoman.store.blobs import Blobs


class LostError(ServingError):
    """The connection broke or could not be made. What was being committed may be there or not, so it is never run again by itself."""


class ClashError(ServingError):
    """Another transaction came in between. Nothing of this one was applied: it may be run again at once."""


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
        """What a failure of the files beside it means."""
        ...
