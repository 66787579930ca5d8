"""Open the library in a data directory. Called by the command line, and by the server to look up targets that are names."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.library import Library, Stored
from dragoman.store import sql

FOLDER = "models"


@dataclass(frozen=True, slots=True)
class Place:
    """Where models are stored: their files below a data directory, their records in the store that a URL names."""

    data_path: Path
    store: str

    @property
    def exists(self) -> bool:
        """Whether anything may have been stored: looking for a model makes no database."""
        return sql.exists(self.store)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Library]:
    """The library, with a connection of its own. Raises UNAVAILABLE when the database cannot be used."""
    store = await sql.open_store(place.store)
    try:
        yield Library(store, place.data_path / FOLDER)
    finally:
        await store.close()


async def resolved(place: Place, text: str = "") -> Stored:
    """The stored model that a name means, "" the newest. Raises NOT_FOUND, INVALID_INPUT for what is no name."""
    if not place.exists:
        missing = f"no model '{text}' is stored" if text else "no model is stored; make one with `dragoman build`"
        raise ServingError(Kind.NOT_FOUND, missing, what="model")
    async with opened(place) as library:
        return await library.resolve(text)


async def newest(place: Place) -> Stored | None:
    """What a server serves that nobody told what to serve: the newest model that was built. None when there is none, or any is deployed."""
    if not place.exists:
        return None
    store = await sql.open_store(place.store)
    try:
        if any(wish.document.get("versions") and not wish.run for wish in await store.wishes()):
            return None
        return await Library(store, place.data_path / FOLDER).resolve()
    except ServingError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return None
    finally:
        await store.close()


def lookup(place: Place) -> Callable[[str], Stored]:
    """`resolved` for threads without a loop."""
    return lambda text: asyncio.run(resolved(place, text))
