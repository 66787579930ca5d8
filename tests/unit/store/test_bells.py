"""Bells beside a SQLite file: long paths, folders without sockets, and what killed processes leave."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from dragoman.store import Bell, Store
from dragoman.store.bells import Bells, PollingBell, SocketBell
from tests.stores import SQLITE, with_store

LONG_S = 3600.0


def try_out(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(run())


async def rings(bells: Bells, bell: Bell) -> None:
    """It is heard, and only once."""
    bells.ring()
    await bell.rung(LONG_S)
    waiting = asyncio.ensure_future(bell.rung(LONG_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    bells.ring()
    await waiting


def test_a_folder_may_lie_deep(tmp_path: Path) -> None:
    """The address of a socket has 107 bytes, the path of a data directory may have thousands."""
    deep = tmp_path
    for _ in range(12):
        deep /= "a-folder-with-a-long-name-é"

    async def body() -> None:
        bells = Bells(deep / "bells", deep / "dragoman.db")
        bell = bells.new()
        assert isinstance(bell, SocketBell)
        await rings(bells, bell)
        await bell.close()
        assert list((deep / "bells").iterdir()) == []

    try_out(body)


def test_nobody_listens(tmp_path: Path) -> None:
    """Ringing needs no bell and no folder."""
    bells = Bells(tmp_path / "bells", tmp_path / "dragoman.db")
    bells.ring()
    assert not (tmp_path / "bells").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """By whoever rings next; bells that are alive stay, and so do files that are none."""
    folder = tmp_path / "bells"

    async def body() -> None:
        bells = Bells(folder, tmp_path / "dragoman.db")
        bell = bells.new()
        dead = SocketBell(folder)
        dead._socket.close()  # as the kernel does it for a process that is killed
        (folder / "README").write_text("not a bell")
        assert len(list(folder.iterdir())) == 3
        bells.ring()
        assert len(list(folder.iterdir())) == 2
        await bell.rung(LONG_S)
        await bell.close()
        assert [path.name for path in folder.iterdir()] == ["README"]

    try_out(body)


def test_a_bell_that_nobody_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    """However often it rings: what does not fit any more is a ring that is there already."""

    async def body() -> None:
        bells = Bells(tmp_path / "bells", tmp_path / "dragoman.db")
        bell = bells.new()
        for _ in range(2000):
            bells.ring()
        await bell.rung(LONG_S)
        await rings(bells, bell)
        await bell.close()

    try_out(body)


def test_where_there_can_be_no_sockets_the_database_is_asked(tmp_path: Path) -> None:
    """Changes of other connections are noticed all the same, and those that are rolled back are none."""
    (tmp_path / "bells").write_text("in the way")

    async def body(store: Store) -> None:
        bell = await store.bell()
        assert isinstance(bell, PollingBell)
        await bell.rung(0.0)
        await store.wish("m", lambda _: {"n": 1})
        await bell.rung(LONG_S)
        waiting = asyncio.ensure_future(bell.rung(LONG_S))
        await store.wishes()
        await asyncio.sleep(0)
        assert not waiting.done()
        await store.wish("m", lambda _: {"n": 2})
        await waiting
        await bell.close()

    with_store(SQLITE, tmp_path, body)


def test_a_database_that_cannot_be_asked_rings_now_and_then(tmp_path: Path) -> None:
    """Whoever waits then looks by itself, and sees what is wrong; when it is back it is asked again."""
    path = tmp_path / "dragoman.db"

    async def body() -> None:
        bell = PollingBell(path)
        await bell.rung(LONG_S)
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE t (n)")
        await bell.rung(LONG_S)
        await bell.rung(0.0)
        with sqlite3.connect(path) as other:
            other.execute("INSERT INTO t VALUES (1)")
        await bell.rung(LONG_S)
        other.close()
        await bell.close()

    try_out(body)
