"""Uploads of files that are all there, for tests of what becomes of them."""

from collections.abc import AsyncIterator

from dragoman.serving.uploads import Uploads


async def put(uploads: Uploads, data: bytes, name: str = "", declared_type: str = "") -> str:
    """Store one; returns its key."""

    async def whole() -> AsyncIterator[bytes]:
        yield data

    return (await uploads.add(whole(), name, declared_type)).key
