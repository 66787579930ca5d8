"""Uploads and archives for tests of what jobs keep."""

import asyncio
import io
import tarfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dragoman.core.errors import ServingError
from dragoman.serving.late_store import LateStore
from dragoman.store import Store
from tests.fakes_store import FakeStore

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """In a loop of its own, for no longer than a minute."""
    return asyncio.run(asyncio.wait_for(work, 60))


async def refused(work: Awaitable[object]) -> ServingError:
    """Why it is."""
    with pytest.raises(ServingError) as caught:
        await work
    return caught.value


def late(store: Store | None = None) -> LateStore:
    kept = store or FakeStore()

    async def opened() -> Store:
        return kept

    return LateStore(opened, lambda: True)


async def pieces(content: bytes, step: int = 1 << 20) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), step):
        yield content[at : at + step]


async def broken(content: bytes, error: Exception) -> AsyncGenerator[bytes, None]:
    """So much, then the line breaks."""
    yield content
    raise error


async def until(look: Callable[[], Awaitable[T]], true: Callable[[T], bool]) -> T:
    """What `look` says once that is `true`; within half a minute."""
    async with asyncio.timeout(30):
        while not true(found := await look()):
            await asyncio.sleep(0.01)
    return found


def form(files: Mapping[str, bytes], json: bytes | None = b'{"name": "alice/x"}', boundary: str = "B") -> bytes:
    """Files as floyd-cli sends them: names as they are in quotes, the JSON last."""
    mark = b"--" + boundary.encode()
    head = b'\r\nContent-Disposition: form-data; name="code"; filename="%s"\r\nContent-Type: text/plain\r\n\r\n'
    parts = [mark + head % name.encode() + content + b"\r\n" for name, content in files.items()]
    if json is not None:
        parts.append(mark + b'\r\nContent-Disposition: form-data; name="json"\r\n\r\n' + json + b"\r\n")
    return b"".join(parts) + mark + b"--\r\n"


FORM = "multipart/form-data; boundary=B"


def archive(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar file of members as they are given, hostile ones too; (name, content) is a regular file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload] # any of its modes
        for member in members:
            if isinstance(member, tuple):
                tar.addfile(special(member[0], tarfile.REGTYPE, size=len(member[1])), io.BytesIO(member[1]))
            else:
                tar.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return made.getvalue()


def special(name: str, kind: bytes, link: str = "", *, size: int = 0, mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.mode = kind, link, size, mode
    return member


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path; links as what they say."""
    return {
        str(path.relative_to(folder)): b"-> " + str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


async def unpacked(chunks: AsyncGenerator[bytes, None]) -> dict[str, bytes | str]:
    """What a downloaded tar file holds: content of files, targets of links, "/" for folders."""
    data = b"".join([chunk async for chunk in chunks])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found: dict[str, bytes | str] = {}
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            found[member.name] = source.read() if source is not None else member.linkname if member.issym() else "/"
    return found
