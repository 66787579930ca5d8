"""Uploads on a disk that is not as it should be. What uploads do otherwise is tested where they are used."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.owners import Owner
from dragoman.serving.uploads import Uploads
from tests.uploading import put


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def made(folder: Path) -> tuple[Uploads, Clock]:
    clock = Clock()
    return Uploads(folder, expiry_s=60.0, clock=clock), clock


def test_nobody_else_can_look_into_the_folders(tmp_path: Path) -> None:
    """Names of uploads are all that it takes to read them, so they are for the server's user; so is everything beside them."""
    uploads, _ = made(tmp_path / "data" / "uploads")
    asyncio.run(put(uploads, b"content", "a.txt"))
    Owner(tmp_path / "data" / "owners").close()
    for path in (tmp_path / "data").rglob("*"):
        rights = stat.S_IMODE(path.stat().st_mode)
        assert rights & 0o077 == 0 or path.name == "place", f"{path} has {rights:o}"
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_description_that_cannot_be_read_is_no_internal_error(tmp_path: Path) -> None:
    """As after a machine that went down with a full disk: the file cannot be had, and that is said."""
    uploads, _ = made(tmp_path)
    for content in (b"", b"{", b"[]", b'{"name": "a"}', b"\xff"):
        key = asyncio.run(put(uploads, b"content", "a.txt"))
        (tmp_path / f"{key[:32]}.json").write_bytes(content)
        with pytest.raises(ServingError) as caught:
            asyncio.run(uploads.get(key))
        assert caught.value.kind is Kind.UNAVAILABLE


def test_what_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    """A folder where files belong, say: the sweep goes on with the rest, and raises nothing."""
    uploads, clock = made(tmp_path)
    (tmp_path / "a-folder").mkdir()
    os.utime(tmp_path / "a-folder", (0, 0))
    key = asyncio.run(put(uploads, b"content"))
    clock.now += 61
    asyncio.run(uploads.sweep(now=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a-folder"]
    with pytest.raises(ServingError):
        asyncio.run(uploads.get(key))


def test_a_description_without_its_file_is_removed(tmp_path: Path) -> None:
    """Left by a server that was killed between the two."""
    uploads, clock = made(tmp_path)
    (tmp_path / f"{'0' * 32}.json").write_text("{}")
    os.utime(tmp_path / f"{'0' * 32}.json", (clock.now, clock.now))
    asyncio.run(uploads.sweep(now=True))
    assert len(list(tmp_path.iterdir())) == 1
    clock.now += 61
    asyncio.run(uploads.sweep(now=True))
    assert not list(tmp_path.iterdir())
