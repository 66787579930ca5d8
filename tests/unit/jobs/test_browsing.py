"""Folders shown to clients while programs write into them (serving/jobs/browsing.py)."""

import asyncio
import io
import os
import tarfile
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs import browsing
from dragoman.serving.jobs.browsing import Content, Entry, Listing, browse_folder, download_folder, measure
from dragoman.serving.jobs.trees import DEEPEST
from tests.jobs_files import run, unpacked


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A job's folder, and beside it what the job must not show."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("key")
    folder = tmp_path / "home"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("hello")
    (folder / "sub" / "b.bin").write_bytes(b"\0\1" * 5000)
    return folder


def read(folder: Path, path: str) -> bytes:
    async def go() -> bytes:
        found = browse_folder(folder, path)
        assert isinstance(found, Content)
        content = b"".join([chunk async for chunk in found.chunks])
        assert len(content) == found.size
        return content

    return run(go())


def refused(folder: Path, path: str) -> Kind:
    for look in (browse_folder, download_folder):
        with pytest.raises(ServingError) as caught:
            look(folder, path)
    return caught.value.kind


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_listings(home: Path) -> None:
    """By name, with sizes of files."""
    assert browse_folder(home, "") == Listing((Entry("a.txt", False, 5), Entry("sub", True)))
    assert browse_folder(home, "/sub/") == Listing((Entry("b.bin", False, 10000), Entry("deep", True)))
    assert browse_folder(home, "./sub/./deep") == Listing(())


def test_files(home: Path) -> None:
    """As they are."""
    assert read(home, "a.txt") == b"hello"
    assert read(home, "sub//b.bin") == b"\0\1" * 5000


@pytest.mark.parametrize("path", ["..", "../secret/key", "sub/../../secret", "a\0b", "x" * 5000, "d/" * 70, "\ud800"])
def test_paths_that_are_none(path: str, home: Path) -> None:
    """Refused before anything is looked for."""
    assert refused(home, path) is Kind.INVALID_INPUT


@pytest.mark.parametrize("path", ["nothing", "a.txt/x", "sub/nothing/x", "n" * 300])
def test_paths_that_are_not_there(path: str, home: Path) -> None:
    """Not found, whatever the disk says."""
    assert refused(home, path) is Kind.NOT_FOUND
    assert refused(home / "nowhere", path) is Kind.NOT_FOUND


def test_links_that_stay_inside(home: Path) -> None:
    """They are followed: a folder, a file, over each other."""
    (home / "to-sub").symlink_to("sub")
    (home / "sub" / "up").symlink_to("../a.txt")
    (home / "chain").symlink_to("to-sub/up")
    assert read(home, "to-sub/b.bin") == b"\0\1" * 5000
    assert read(home, "sub/up") == b"hello"
    assert read(home, "chain") == b"hello"
    assert browse_folder(home, "to-sub") == browse_folder(home, "sub")


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret/key", "sub/../../secret/key", "loop", "gone", "/"])
def test_links_that_lead_out(target: str, home: Path) -> None:
    """A job may not show another's files, nor the server's: what such a link means is not there."""
    (home / "loop").symlink_to("loop2")
    (home / "loop2").symlink_to("loop")
    (home / "l").symlink_to(target)
    assert refused(home, "l") is Kind.NOT_FOUND
    assert refused(home, "l/key") is Kind.NOT_FOUND


def test_a_folder_that_becomes_a_link(home: Path) -> None:
    """Between the look and the first byte the job puts a link in the place of its folder: nothing of where it leads is shown."""

    async def go() -> None:
        (home / "sub" / "key").write_text("mine")
        found = browse_folder(home, "sub/key")
        download = download_folder(home, "sub")
        (home / "sub").rename(home / "old")
        (home / "sub").symlink_to("../secret")
        assert isinstance(found, Content)
        with pytest.raises(ServingError) as caught:
            _ = [chunk async for chunk in found.chunks]
        assert caught.value.kind is Kind.NOT_FOUND
        with pytest.raises(ServingError):
            _ = [chunk async for chunk in download.chunks]

    run(go())


def test_what_is_no_file(home: Path) -> None:
    """A pipe holds nobody up, and is left out."""
    os.mkfifo(home / "pipe")
    assert browse_folder(home, "") == Listing((Entry("a.txt", False, 5), Entry("pipe", False), Entry("sub", True)))
    with pytest.raises(ServingError):
        browse_folder(home, "pipe")
    assert set(run(unpacked(download_folder(home).chunks))) == {"a.txt", "sub", "sub/b.bin", "sub/deep"}


def test_many_entries(home: Path) -> None:
    """The rest is counted."""
    for index in range(browsing.MOST_SHOWN + 5):
        (home / "sub" / "deep" / f"{index:06d}").touch()
    found = browse_folder(home, "sub/deep")
    assert isinstance(found, Listing)
    assert (len(found.entries), found.skipped) == (browsing.MOST_SHOWN, 5)
    assert measure(home) == (browsing.MOST_SHOWN + 7, 10005)


def test_downloads(home: Path) -> None:
    """Files, folders, links that stay inside, modes and long names; the size is right when nothing changes."""
    (home / "l").symlink_to("sub/b.bin")
    (home / "out").symlink_to("../secret")
    (home / "run.sh").write_text("#!/bin/sh\n")
    (home / "run.sh").chmod(0o4755)
    (home / ("n" * 200)).write_text("long")
    (home / "ü").write_text("x")
    found = run(unpacked(download_folder(home).chunks))
    assert found == {
        "a.txt": b"hello",
        "l": "sub/b.bin",
        "n" * 200: b"long",
        "run.sh": b"#!/bin/sh\n",
        "sub": "/",
        "sub/b.bin": b"\0\1" * 5000,
        "sub/deep": "/",
        "ü": b"x",
    }
    assert run(unpacked(download_folder(home, "sub/b.bin").chunks)) == {"b.bin": b"\0\1" * 5000}

    async def whole() -> bytes:
        return b"".join([chunk async for chunk in download_folder(home).chunks])

    with tarfile.open(fileobj=io.BytesIO(run(whole()))) as tar:
        assert tar.getmember("run.sh").mode == 0o755


def test_names_that_are_no_text(home: Path) -> None:
    """Nobody could ask for them: they are left out of listings, and of tar files."""
    (home / os.fsdecode(b"caf\xe9")).write_text("x")
    found = browse_folder(home, "")
    assert isinstance(found, Listing)
    assert [entry.name for entry in found.entries] == ["a.txt", "sub"]


def test_files_that_change_while_they_are_sent(home: Path) -> None:
    """A file has the length that was announced: cut where it grew, filled with zeros where it shrank. What comes behind it is whole."""

    async def go() -> None:
        (home / "a.txt").write_bytes(b"x" * 1_000_000)
        (home / "b.txt").write_text("behind")
        found = download_folder(home)
        first = await anext(found.chunks)
        (home / "a.txt").write_bytes(b"y")
        rest = b"".join([chunk async for chunk in found.chunks])
        with tarfile.open(fileobj=io.BytesIO(first + rest)) as tar:
            assert tar.getmember("a.txt").size == 1_000_000
            source = tar.extractfile("b.txt")
            assert source is not None
            assert source.read() == b"behind"

    run(go())


def test_a_client_that_goes_away(home: Path) -> None:
    """Whether nothing, something or all was taken: no file stays open."""
    (home / "large").write_bytes(bytes(2_000_000))

    async def go() -> None:
        await asyncio.to_thread(int)  # the thread pool has descriptors of its own
        before = descriptors()
        for taken in (0, 1, 100):
            for found in (browse_folder(home, "large"), download_folder(home)):
                assert not isinstance(found, Listing)
                for _ in range(taken):
                    if not await anext(found.chunks, b""):
                        break
                await found.chunks.aclose()
        assert descriptors() == before

    run(go())


def test_folders_without_end(home: Path) -> None:
    """A job that nests folders holds up nobody: what is deeper than a path may be is left out."""
    at = os.open(home, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    assert measure(home) == (2, 10005)
    found = run(unpacked(download_folder(home).chunks))
    assert max(name.count("/") for name in found) == DEEPEST
