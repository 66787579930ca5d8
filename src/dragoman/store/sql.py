"""Opens the store that a URL names. Light to import: SQLAlchemy comes with the first store that is opened, as many servers have none.

Called by the server's composition and by the commands that look into the store.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from dragoman.core.errors import Kind, ServingError
from dragoman.store import Store
from dragoman.store.addresses import exists, sqlite_path, store_url

__all__ = ["exists", "open_store", "store_url"]


async def open_store(url: str) -> Store:
    """The store at `sqlite:///PATH` or `postgresql://...`, made or migrated first where that is due. Close it in the end.

    Raises ServingError: INVALID_INPUT for other URLs, UNSUPPORTED without PostgreSQL's driver, UNAVAILABLE when the database cannot be used,
    with what to do about it.
    """
    # In a thread: it imports, which takes longer than the loop may stand still.
    return await (await asyncio.to_thread(_opener, url))()


def _opener(url: str) -> Callable[[], Awaitable[Store]]:
    path = sqlite_path(url)
    from dragoman.store.sqlstore import SqlStore

    if path is not None:
        from dragoman.store.sqlite import SqliteFile

        return partial(SqlStore.over, SqliteFile(path))
    try:
        from dragoman.store.postgres import Postgres
    except ImportError as missing:
        words = "a store in PostgreSQL needs the package psycopg, which is not installed: pip install 'dragoman[postgres]'"
        raise ServingError(Kind.UNSUPPORTED, words, what="store") from missing
    return partial(SqlStore.over, Postgres(url))
