"""Large payloads as files: written, read, removed, collected."""

import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

import pytest

from dragoman.store.blobs import LEFT_BEHIND_S, Blobs


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def age(folder: Path, name: str, seconds: float) -> None:
    path = folder / name[:2] / name
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_content_comes_back(tmp_path: Path) -> None:
    """Under a name of its own each time, readable by its owner only."""
    blobs = Blobs(tmp_path / "blobs")
    names = [blobs.write(b"abc"), blobs.write(b"abc"), blobs.write(b"")]
    assert len(set(names)) == 3
    assert [blobs.read(name, size) for name, size in zip(names, (3, 3, 0), strict=True)] == [b"abc", b"abc", b""]
    for path in (tmp_path / "blobs").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_what_is_gone_or_not_whole_is_none(tmp_path: Path) -> None:
    """Never a part of the content."""
    blobs = Blobs(tmp_path)
    name = blobs.write(b"abcdef")
    assert blobs.read(name, 7) is None
    blobs.remove([name, "00" * 16])
    assert blobs.read(name, 6) is None
    assert files(tmp_path) == []


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """The reason is the system's."""
    (tmp_path / "blobs").write_bytes(b"in the way")
    with pytest.raises(OSError, match="directory"):
        Blobs(tmp_path / "blobs").write(b"x")
    assert files(tmp_path) == ["blobs"]


def test_only_old_files_without_a_row_are_collected(tmp_path: Path) -> None:
    """What is known stays, what is young stays, what is no blob stays."""
    blobs = Blobs(tmp_path)
    known, lost, young = blobs.write(b"1"), blobs.write(b"2"), blobs.write(b"3")
    age(tmp_path, known, LEFT_BEHIND_S + 60)
    age(tmp_path, lost, LEFT_BEHIND_S + 60)
    stranger = tmp_path / lost[:2] / "README"
    stranger.write_bytes(b"x")
    os.utime(stranger, (0, 0))
    asked: list[str] = []

    def unknown(names: Collection[str]) -> set[str]:
        asked.extend(names)
        return set(names) - {known}

    assert blobs.collect(unknown, lambda: False) == 1
    assert sorted(asked) == sorted([known, lost])
    assert files(tmp_path) == sorted([known, young, "README"])
    assert Blobs(tmp_path / "none").collect(unknown, lambda: False) == 0


def test_collecting_stops_when_told(tmp_path: Path) -> None:
    """A server that ends does not wait for it."""
    blobs = Blobs(tmp_path)
    age(tmp_path, blobs.write(b"1"), LEFT_BEHIND_S + 60)
    stopped = threading.Event()
    stopped.set()
    assert blobs.collect(set, stopped.is_set) == 0
    assert len(files(tmp_path)) == 1
