"""Opens the store that a URL names. Light to import: SQLAlchemy comes with the first store that is opened, as many servers have none.

Called by the server's composition and by the commands that look into the store.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from dragoman.core.errors import invalid
from dragoman.store import Store

_SQLITE = "sqlite:///"


async def open_store(url: str) -> Store:
    """The store at `sqlite:///PATH`, made or migrated first where that is due. Close it in the end.

    Raises ServingError: INVALID_INPUT for other URLs, UNAVAILABLE when the database cannot be used, with what to do about it.
    """
    path = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not path or path.startswith(":"):
        raise invalid(f"'{url}' is no store: expected {_SQLITE}PATH, such as {_SQLITE}/var/lib/dragoman/dragoman.db")
    # In a thread: it imports, which takes longer than the loop may stand still.
    return await (await asyncio.to_thread(_opener, Path(path)))()


def store_url(data_dir: Path) -> str:
    """The URL of the store in this data directory."""
    return f"{_SQLITE}{data_dir / 'dragoman.db'}"


def _opener(path: Path) -> Callable[[], Awaitable[Store]]:
    from dragoman.store.sqlite import SqliteFile
    from dragoman.store.sqlstore import SqlStore

    return partial(SqlStore.over, SqliteFile(path))
