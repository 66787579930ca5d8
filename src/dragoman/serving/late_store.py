"""The store, opened when it is first needed: a server that keeps nothing has no database, and starts without loading its driver.

Predictions and the model store ask here; the worker makes it and closes it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from dragoman.core.errors import Kind, ServingError
from dragoman.store import Store


class LateStore:
    """`opener` opens the store, and makes it where there is none; `exists` says whether there is one. Opening that failed is tried again."""

    def __init__(self, opener: Callable[[], Awaitable[Store]], exists: Callable[[], bool] = lambda: False) -> None:
        self._opener = opener
        self._exists = exists
        self._lock = asyncio.Lock()
        self._store: Store | None = None
        self._closed = False

    @property
    def opened(self) -> Store | None:
        """The store, if somebody has opened it already."""
        return self._store

    async def get(self) -> Store:
        """The open store. Raises UNAVAILABLE when it cannot be opened, or when it is closed."""
        if self._store is not None:
            return self._store
        async with self._lock:
            if self._closed:
                raise ServingError(Kind.UNAVAILABLE, "the server is stopping; its database is closed")
            if self._store is None:
                self._store = await self._opener()
            return self._store

    async def existing(self) -> Store | None:
        """The store if there is one, opened; None where nothing was ever stored."""
        if self._store is None and not await asyncio.to_thread(self._exists):
            return None
        return await self.get()

    async def close(self) -> None:
        """Close it if it was opened; nothing can be opened afterwards."""
        async with self._lock:
            self._closed = True
            store, self._store = self._store, None
            if store is not None:
                await store.close()
