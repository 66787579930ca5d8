"""Uploads: stored as they come, found by their key, gone when nobody uses them, bounded, whatever clients call them."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Blob
from dragoman.serving.uploads import Upload, Uploads
from tests.servables import run
from tests.uploading import put


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_an_upload_comes_back(tmp_path: Path) -> None:
    """In pieces or whole, with its name and a type by its name; two of one name are two."""

    async def scenario() -> None:
        uploads = Uploads(tmp_path / "made" / "here")
        one = await uploads.add(chunks(b"abc", b"", b"def"), "cat.png")
        assert one == Upload(one.id, "cat.png", "image/png", 6)
        other = await put(uploads, b"xyz", "cat.png", "Text/Plain; charset=x")
        assert other != one.key
        assert await uploads.get(one.key) == Blob(b"abcdef", "image/png", "cat.png")
        assert await uploads.get(one.id) == Blob(b"abcdef", "image/png", "cat.png")
        assert await uploads.get(other) == Blob(b"xyz", "text/plain", "cat.png")
        assert [piece async for piece in uploads.stream(one.key)] == [b"abcdef"]
        assert stat.S_IMODE((tmp_path / "made" / "here" / one.id).stat().st_mode) == 0o600

    run(scenario)


def test_large_uploads_are_written_as_they_come(tmp_path: Path) -> None:
    """Several megabytes in small chunks, and back in pieces."""

    async def scenario() -> None:
        uploads = Uploads(tmp_path)
        upload = await uploads.add(chunks(*[bytes([n % 256]) * 70_000 for n in range(50)]), "x")
        assert upload.size == 3_500_000
        pieces = [piece async for piece in uploads.stream(upload.id)]
        assert len(pieces) == 4
        assert b"".join(pieces) == b"".join(bytes([n % 256]) * 70_000 for n in range(50))

    run(scenario)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b\\c.png", "x" * 5000, "😀" * 200, "\0\n\r", ".", "..", "", "\ud800", 'a"b;c', ".hidden"]
)
def test_hostile_names(tmp_path: Path, name: str) -> None:
    """A name is only ever a label: nothing on the disk is called so, and it can be asked for all the same."""

    async def scenario() -> None:
        uploads = Uploads(tmp_path / "u")
        key = await put(uploads, b"data", name)
        assert (await uploads.get(key)).data == b"data"
        found = await uploads.find(key)
        assert "/" not in found.name
        assert "\\" not in found.name
        assert len(found.name) <= 120
        assert files(tmp_path) == ["u"]
        assert files(tmp_path / "u") == [found.id, f"{found.id}.json"]

    run(scenario)


@given(st.text(max_size=60))
def test_unknown_keys(key: str) -> None:
    """NOT_FOUND for anything that is no key, without a look outside the folder."""

    async def scenario() -> None:
        for each in (key, f"../{key}", f"{'0' * 32}{key}", f"{'0' * 32}/../{key}"):
            with pytest.raises(ServingError) as caught:
                await Uploads(Path("/nonexistent")).get(each)
            assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "file")

    run(scenario)


def test_unused_uploads_expire(tmp_path: Path) -> None:
    """Ten minutes after the last use; using it keeps it. Leftovers of uploads that broke off go, too."""

    async def scenario() -> None:
        clock = Clock()
        uploads = Uploads(tmp_path, clock=clock, expiry_s=600)
        used, unused = await put(uploads, b"1", "a"), await put(uploads, b"2", "b")
        for name in ("left.part", f"{'a' * 32}.json"):
            (tmp_path / name).write_bytes(b"")
            os.utime(tmp_path / name, (clock.now, clock.now))
        os.utime(tmp_path / f"{used[:32]}.json", (clock.now, clock.now))
        clock.now += 599
        assert (await uploads.get(used)).data == b"1"
        clock.now += 2
        with pytest.raises(ServingError, match="there is no uploaded file"):
            await uploads.get(unused)
        await uploads.sweep()
        assert files(tmp_path) == [used[:32], f"{used[:32]}.json"]
        clock.now += 5000
        await uploads.sweep(now=True)
        assert files(tmp_path) == []

    run(scenario)


def test_workers_share_the_folder(tmp_path: Path) -> None:
    """Uploaded at one, used at another, swept by both."""

    async def scenario() -> None:
        clock = Clock()
        one, other = Uploads(tmp_path, clock=clock), Uploads(tmp_path, clock=clock)
        key = await put(one, b"x", "a")
        assert (await other.get(key)).data == b"x"
        clock.now += 601
        await asyncio.gather(one.sweep(now=True), other.sweep(now=True))
        assert files(tmp_path) == []

    run(scenario)


def test_bounds(tmp_path: Path) -> None:
    """A file that is too large, and a folder that is full; nothing is left of what was refused."""

    async def scenario() -> None:
        uploads = Uploads(tmp_path, max_file=100, max_total=1000)
        with pytest.raises(ServingError) as caught:
            await uploads.add(chunks(b"x" * 60, b"x" * 60), "a")
        assert caught.value.kind is Kind.TOO_LARGE
        assert files(tmp_path) == []
        results = await asyncio.gather(*(put(uploads, b"x" * 100, "a") for _ in range(20)), return_exceptions=True)
        full = [r for r in results if isinstance(r, ServingError)]
        assert full
        assert {(e.kind, e.retry_after_s) for e in full} == {(Kind.OVERLOADED, 60.0)}
        with pytest.raises(ServingError) as caught:
            await put(uploads, b"x" * 100, "a")
        assert (caught.value.kind, caught.value.retry_after_s) == (Kind.OVERLOADED, 60.0)
        assert not [name for name in files(tmp_path) if name.endswith(".part")]

    run(scenario)


def test_a_client_that_breaks_off(tmp_path: Path) -> None:
    """An error while the chunks come, or a cancel, leaves nothing behind."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ServingError(Kind.CANCELLED, "the client went away")

    async def scenario() -> None:
        uploads = Uploads(tmp_path)
        with pytest.raises(ServingError, match="went away"):
            await uploads.add(broken(), "a")
        assert files(tmp_path) == []

    run(scenario)


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    """UNAVAILABLE without a path in its text."""

    async def scenario() -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ServingError) as caught:
            await put(Uploads(tmp_path / "file" / "below"), b"x", "a")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert str(tmp_path) not in caught.value.message

    run(scenario)
