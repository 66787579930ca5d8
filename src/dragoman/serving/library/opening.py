"""Open the library in a data directory. Called by the command line, and by the server to look up targets that are names."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.library import Library, Stored
from dragoman.store.sql import open_store, store_url

FOLDER = "models"


def exists(data_path: Path) -> bool:
    """Whether anything was ever stored: looking for a model makes no database."""
    return Path(store_url(data_path).removeprefix("sqlite:///")).exists()


@asynccontextmanager
async def opened(data_path: Path) -> AsyncIterator[Library]:
    """The library, with a connection of its own. Raises UNAVAILABLE when the database cannot be used."""
    store = await open_store(store_url(data_path))
    try:
        yield Library(store, data_path / FOLDER)
    finally:
        await store.close()


async def resolved(data_path: Path, text: str = "") -> Stored:
    """The stored model that a name means, "" the newest. Raises NOT_FOUND, INVALID_INPUT for what is no name."""
    if not exists(data_path):
        missing = f"no model '{text}' is stored" if text else "no model is stored; make one with `dragoman build`"
        raise ServingError(Kind.NOT_FOUND, missing, what="model")
    async with opened(data_path) as library:
        return await library.resolve(text)


async def newest(data_path: Path) -> Stored | None:
    """What a server serves that nobody told what to serve: the newest model that was built. None when there is none, or any is deployed."""
    if not exists(data_path):
        return None
    store = await open_store(store_url(data_path))
    try:
        if any(wish.document.get("versions") and not wish.run for wish in await store.wishes()):
            return None
        return await Library(store, data_path / FOLDER).resolve()
    except ServingError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return None
    finally:
        await store.close()


def lookup(data_path: Path) -> Callable[[str], Stored]:
    """`resolved` for threads without a loop."""
    return lambda text: asyncio.run(resolved(data_path, text))
