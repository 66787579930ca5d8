"""The folder of uploaded artifacts by itself: what happens when uploads end early, servers die, and disks refuse."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.artifact_folder import ArtifactFolder, Listed, Read
from tests.servables import run


def reading(*pieces: bytes | Exception) -> Read:
    """What a request's body gives, piece by piece; an exception is raised in its place."""
    left = list(pieces)

    async def read() -> bytes:
        piece = left.pop(0) if left else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    return read


async def content(folder: ArtifactFolder, path: str) -> bytes:
    _, stream = await folder.open(path)
    return b"".join([piece async for piece in stream])


def incoming(folder: ArtifactFolder) -> list[Path]:
    return sorted((folder.root / ".incoming").iterdir())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def fails(kind: Kind, doing: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ServingError) as caught:
        await doing()
    assert caught.value.kind is kind


def test_a_large_file_goes_in_and_out_in_pieces(tmp_path: Path) -> None:
    """Nobody has it in memory whole."""
    folder = ArtifactFolder(tmp_path / "artifacts")
    piece = os.urandom(1 << 20)

    async def body() -> None:
        await folder.put("a/b", reading(*[piece] * 5, b"end"))
        size, stream = await folder.open("a/b")
        parts = [part async for part in stream]
        assert size == 5 * len(piece) + 3
        assert b"".join(parts) == piece * 5 + b"end"
        assert max(len(part) for part in parts) <= 1 << 20
        assert await folder.listed("a") == [Listed("b", False, size)]
        assert await folder.exists("a/b")
        assert not await folder.exists("a/c")
        assert incoming(folder) == []

    run(body)


def test_an_upload_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Its error goes to whoever sent it; what was there before stays, and no file stays open."""
    folder = ArtifactFolder(tmp_path)

    async def body() -> None:
        await folder.put("a", reading(b"old"))
        before = open_files()
        await fails(Kind.CANCELLED, lambda: folder.put("a", reading(b"new", ServingError(Kind.CANCELLED, "gone"))))
        assert await content(folder, "a") == b"old"
        assert incoming(folder) == []
        assert open_files() == before

    run(body)


def test_an_upload_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """Wherever it was: while it opened its file, waited for a piece, or wrote one."""
    folder = ArtifactFolder(tmp_path)

    async def body() -> None:
        await folder.put("warm", reading(b"x"))
        before = open_files()
        for steps in range(12):

            async def read() -> bytes:
                return b"x" * (1 << 16)  # for ever

            upload = asyncio.create_task(folder.put("a", read))
            for _ in range(steps):
                await asyncio.sleep(0)
            upload.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upload
            assert incoming(folder) == []
        assert not await folder.exists("a")
        assert open_files() == before

    run(body)


def test_a_download_that_ends_early_closes_its_file(tmp_path: Path) -> None:
    """After the first piece, or while one is read."""
    folder = ArtifactFolder(tmp_path)

    async def body() -> None:
        await folder.put("a", reading(b"x" * (3 << 20)))
        before = open_files()
        _, stream = await folder.open("a")
        await anext(stream)
        await stream.aclose()
        _, stream = await folder.open("a")
        reads = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reads.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reads
        assert open_files() == before

    run(body)


def test_a_download_goes_on_when_the_file_is_replaced(tmp_path: Path) -> None:
    """It is that of the file as it was."""
    folder = ArtifactFolder(tmp_path)

    async def body() -> None:
        await folder.put("a", reading(b"old" * (1 << 20)))
        _, stream = await folder.open("a")
        first = await anext(stream)
        await folder.put("a", reading(b"new"))
        assert first + b"".join([piece async for piece in stream]) == b"old" * (1 << 20)
        assert await content(folder, "a") == b"new"

    run(body)


def test_what_a_killed_server_left_is_removed_by_the_next_upload(tmp_path: Path) -> None:
    """But neither a file that somebody else is writing nor one that is just being opened."""
    now = [10_000.0]
    folder = ArtifactFolder(tmp_path, clock=lambda: now[0])
    place = tmp_path / ".incoming"
    place.mkdir()
    for name in ("dead", "written", "opened"):
        (place / name).write_bytes(b"x")
        os.utime(place / name, (now[0] - 1, now[0] - 1) if name == "opened" else (1.0, 1.0))

    async def body() -> None:
        with (place / "written").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            await folder.put("a", reading(b"x"))
            assert [path.name for path in incoming(folder)] == ["opened", "written"]
        now[0] += 1000
        await folder.put("a", reading(b"x"))
        assert incoming(folder) == []

    run(body)


def test_several_uploads_of_one_path_leave_one_of_them_whole(tmp_path: Path) -> None:
    """Whichever is last."""
    folder = ArtifactFolder(tmp_path)

    async def body() -> None:
        each = [bytes([65 + number]) * 100_000 for number in range(8)]
        await asyncio.gather(*(folder.put("a/b/c", reading(whole[:50_000], whole[50_000:])) for whole in each))
        assert await content(folder, "a/b/c") in each
        assert incoming(folder) == []

    run(body)


def test_a_disk_that_refuses_is_unavailable(tmp_path: Path) -> None:
    """With a reason and without paths of this machine."""
    (tmp_path / "file").write_text("x")
    folder = ArtifactFolder(tmp_path / "artifacts")
    (tmp_path / "artifacts").symlink_to("/proc/self/fdinfo")

    async def body() -> None:
        with pytest.raises(ServingError) as caught:
            await folder.put("a", reading(b"x"))
        assert caught.value.kind is Kind.UNAVAILABLE
        assert str(tmp_path) not in caught.value.message

    run(body)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe would keep its reader waiting for ever; a list has no links."""
    folder = ArtifactFolder(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")

    async def body() -> None:
        for path in ("pipe", "folder", "nothing"):
            await fails(Kind.NOT_FOUND, partial(folder.open, path))
        assert [each.name for each in await folder.listed("")] == ["folder", "pipe"]

    run(body)


def test_removing_a_folder_takes_what_is_in_it_and_nothing_behind_links(tmp_path: Path) -> None:
    """The target of a link stays."""
    folder = ArtifactFolder(tmp_path / "artifacts")
    kept = tmp_path / "kept"
    kept.write_text("x")

    async def body() -> None:
        await folder.put("a/b/c", reading(b"x"))
        (folder.root / "a" / "link").symlink_to(kept)
        await folder.remove("a")
        assert await folder.listed("") == []

    run(body)
    assert kept.read_text() == "x"


def test_uris_are_of_this_folder(tmp_path: Path) -> None:
    """Also where the path of the folder itself goes through a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "artifacts").symlink_to(tmp_path / "real")
    folder = ArtifactFolder(tmp_path / "artifacts")

    async def body() -> None:
        assert await folder.uri_of(tmp_path / "real" / "0" / "m") == "mlflow-artifacts:/0/m"
        assert await folder.uri_of(tmp_path / "artifacts" / "m") == "mlflow-artifacts:/m"
        assert await folder.uri_of(tmp_path / "elsewhere") == ""
        assert await folder.uri_of(tmp_path / "artifacts") == ""

    run(body)
