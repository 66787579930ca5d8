"""Databases that are locked, full, read-only, damaged, gone: each call says so and what to do, and works again when the cause is gone."""

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.store import Store, sqlite
from dragoman.store.blobs import LEAST_BYTES, LEFT_BEHIND_S
from dragoman.store.sqlstore import SqlStore
from tests.stores import SQLITE, as_stored, claimed, done, ended, version, waiting, with_store

ROOT = Path(__file__).parents[3]
LARGE = b"\x01" * LEAST_BYTES


async def failure(awaitable: Awaitable[object]) -> str:
    """The message; it is for strangers, so it names no path."""
    with pytest.raises(ServingError) as caught:
        await awaitable
    assert caught.value.kind is Kind.UNAVAILABLE
    assert "/" not in caught.value.message
    return caught.value.message


def blobs(place: Path) -> list[Path]:
    return [path for path in (place / "blobs").rglob("*") if path.is_file()]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- the database file ---


def test_a_database_that_is_gone(tmp_path: Path) -> None:
    """Reads and writes fail instead of going to a file that nobody will find; put back, it works."""

    async def body(store: Store) -> None:
        await store.add_version(version())
        (tmp_path / "dragoman.db").rename(tmp_path / "elsewhere")
        assert "put its file back" in await failure(store.add_version(version("n")))
        assert "put its file back" in await failure(store.versions())
        assert not (tmp_path / "dragoman.db").exists()
        (tmp_path / "elsewhere").rename(tmp_path / "dragoman.db")
        await store.add_version(version("n"))
        assert len(await store.versions()) == 2

    with_store(SQLITE, tmp_path, body)


def test_a_database_that_is_replaced(tmp_path: Path) -> None:
    """By a backup: the store goes on with that one. By an empty or foreign file: it says so."""
    place, backup = tmp_path / "place", tmp_path / "backup"

    async def old(store: Store) -> None:
        await store.add_version(version("of-backup"))

    async def body(store: Store) -> None:
        await store.add_version(version("m"))
        for name in ("dragoman.db-wal", "dragoman.db-shm"):
            (place / name).unlink()
        shutil.copy(backup / "dragoman.db", place / "new")
        (place / "new").replace(place / "dragoman.db")
        assert [one.model for one in await store.versions()] == ["of-backup"]
        await store.add_version(version("m"))
        assert len(await store.versions()) == 2

        (place / "new").write_bytes(b"")
        (place / "new").replace(place / "dragoman.db")
        assert "replaced" in await failure(store.versions())
        assert "replaced" in await failure(store.add_version(version("n")))

    with_store(SQLITE, backup, old)
    with_store(SQLITE, place, body)


def test_a_damaged_database(tmp_path: Path) -> None:
    """Rubbish over the file: reported as damaged, and usable again with a good copy in its place."""
    path = tmp_path / "dragoman.db"

    async def fill(store: Store) -> None:
        for n in range(50):
            await store.add_version(version(str(n), manifest={"x": "y" * 1000}))

    with_store(SQLITE, tmp_path, fill)
    good = path.read_bytes()

    async def body(store: Store) -> None:
        path.write_bytes(good[:100] + b"\x55" * (len(good) - 100))
        assert "is damaged" in await failure(store.versions())
        assert "is damaged" in await failure(store.add_version(version("new")))
        path.write_bytes(b"\x55" * len(good))
        assert "is damaged or no database" in await failure(store.versions())
        path.write_bytes(good)
        assert len(await store.versions()) == 50
        await store.add_version(version("new"))

    with_store(SQLITE, tmp_path, body)


def test_a_file_that_is_no_database_cannot_be_opened(tmp_path: Path) -> None:
    """It is left as it is."""
    (tmp_path / "dragoman.db").write_bytes(b"a letter to a friend, long enough to be one" * 100)
    before = (tmp_path / "dragoman.db").read_bytes()

    async def run() -> None:
        assert "is damaged or no database" in await failure(SQLITE.open(tmp_path))

    asyncio.run(run())
    assert (tmp_path / "dragoman.db").read_bytes() == before


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "data").write_bytes(b"")

    async def run() -> None:
        assert "cannot be read or written" in await failure(SQLITE.open(tmp_path / "data"))

    asyncio.run(run())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes and does not end."""
    holder = sqlite3.connect(path, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
    finally:
        holder.close()


def test_a_locked_database(tmp_path: Path) -> None:
    """A writer waits, then fails, all that wait with it, while reads are served; afterwards writing works."""

    async def impatient(place: Path) -> Store:
        return await SqlStore.over(sqlite.SqliteFile(place / "dragoman.db", wait_s=0.2))

    async def body(store: Store) -> None:
        one, large = claimed(), claimed(inputs=LARGE)
        await store.add_prediction(one)
        with locked(tmp_path / "dragoman.db"):
            calls = [store.change_prediction(done(one)), store.add_prediction(waiting()), store.add_prediction(large)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [str(result) for result in results] == [str(results[0])] * 3
            assert isinstance(results[0], ServingError)
            assert "locked by another process" in results[0].message
            assert await store.prediction(one.id) == one
        assert blobs(tmp_path) == []
        assert await store.change_prediction(done(one))
        await store.add_prediction(large)

    with_store(replace(SQLITE, open=impatient), tmp_path, body)


def test_a_lock_that_is_let_go_in_time(tmp_path: Path) -> None:
    """The writer waited for it, and nobody noticed."""

    async def body(store: Store) -> None:
        with locked(tmp_path / "dragoman.db"):
            adding = asyncio.create_task(store.add_version(version()))
            assert await store.versions() == []
        await adding
        assert await store.versions() == [as_stored(version())]

    with_store(SQLITE, tmp_path, body)


def test_a_failure_is_logged_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the path, for the operator; not once for each of thousands of calls."""

    async def body(store: Store) -> None:
        (tmp_path / "dragoman.db").rename(tmp_path / "elsewhere")
        for _ in range(5):
            await failure(store.versions())
        (tmp_path / "elsewhere").rename(tmp_path / "dragoman.db")
        await store.versions()
        await store.versions()

    with caplog.at_level(logging.INFO, "dragoman.store"):
        with_store(SQLITE, tmp_path, body)
    texts = [record.message for record in caplog.records if record.name == "dragoman.store" and "migrating" not in record.message]
    assert len(texts) == 2
    assert "is gone" in texts[0]
    assert str(tmp_path) in texts[0]
    assert "works again" in texts[1]


# --- what needs a process of its own: limits and users ---


def alone(place: Path, body: str) -> None:
    """Run the body of `async def run()` in a fresh process; assertions in it are the test's."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    script = (
        "import asyncio, os, resource, sys\nfrom pathlib import Path\nimport alembic.command, dragoman.store.sqlstore\n"
        "from tests.stores import *\nfrom tests.unit.store.test_faults import LARGE, blobs, failure\nplace = Path(sys.argv[1])\n"
        f"async def run():\n{lines}\nasyncio.run(run())\nprint('fine')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    run = subprocess.run([sys.executable, "-c", script, str(place)], env=environment, capture_output=True, text=True, timeout=60)
    assert run.stdout == "fine\n", run.stderr


def test_a_database_that_cannot_grow(tmp_path: Path) -> None:
    """The system refuses to write more: calls fail and say so, nothing half is left, the process goes on, and with space again all works."""
    alone(
        tmp_path,
        """
store = await SQLITE.open(place)
one = claimed()
await store.add_prediction(one)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))
big = [waiting(inputs=bytes(100_000)) for _ in range(3)]
for prediction in big:
    assert "space" in await failure(store.add_prediction(prediction))
assert "cannot be read or written" in await failure(store.add_prediction(waiting(inputs=LARGE)))
assert blobs(place) == []
assert await store.prediction(one.id) == one
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for prediction in big:
    assert await store.prediction(prediction.id) is None
    await store.add_prediction(prediction)
    assert await store.prediction(prediction.id) == prediction
await store.close()
""",
    )


def test_a_full_database(tmp_path: Path) -> None:
    """SQLite's own words for a full disk, brought about by a bound on the pages of the file."""

    async def run() -> None:
        file = sqlite.SqliteFile(tmp_path / "dragoman.db")
        file.prepare()
        transactions = file.transactions(write=True)
        with transactions() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(ServingError) as caught, transactions() as connection:
            connection.exec_driver_sql("CREATE TABLE more AS SELECT zeroblob(1000000)")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert "the disk is full: free some space" in caught.value.message
        with transactions() as connection:
            connection.exec_driver_sql("CREATE TABLE more AS SELECT zeroblob(1000000)")
        transactions.disconnect()

    asyncio.run(run())


@pytest.fixture
def shared_place() -> Iterator[Path]:
    """A folder that another user can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        yield place


AS_NOBODY = """
data = place / "data"
store = await SQLITE.open(data)
await store.add_version(version())
await store.close()
if os.getuid() == 0:
    for path in (data, *data.iterdir()):
        os.chown(path, 65534, 65534)
    os.setegid(65534)
    os.seteuid(65534)
"""
"""Root may write whatever the rights say. The database is made before, as not everything that is imported may be readable."""


def test_a_read_only_database(shared_place: Path) -> None:
    """Reads are served; writes fail and say what to allow, and work once it is allowed."""
    alone(
        shared_place,
        f"""
{AS_NOBODY}
(data / "dragoman.db").chmod(0o444)
assert "let the server's user" in await failure(SQLITE.open(data))
(data / "dragoman.db").chmod(0o600)
store = await SQLITE.open(data)
await store.add_version(version("m", "2"))
assert len(await store.versions()) == 2
data.chmod(0o555)
assert "let the server's user" in await failure(store.add_prediction(waiting(inputs=LARGE)))
assert len(await store.versions()) == 2
data.chmod(0o755)
await store.add_prediction(waiting(inputs=LARGE))
await store.add_version(version("n"))
await store.close()
""",
    )


def test_a_database_that_becomes_read_only(tmp_path: Path) -> None:
    """SQLite's own words for it, brought about by a connection that may only read."""
    file = sqlite.SqliteFile(tmp_path / "dragoman.db")
    file.prepare()
    transactions = file.transactions(write=False)
    with pytest.raises(ServingError) as caught, transactions() as connection:
        connection.exec_driver_sql("DELETE FROM predictions")
    assert "cannot be written: let the server's user write" in caught.value.message
    transactions.disconnect()


def test_a_folder_that_nobody_may_enter(shared_place: Path) -> None:
    """The store is not opened, and the message says who must be let in."""
    alone(
        shared_place,
        f"""
{AS_NOBODY}
data.chmod(0o000)
assert "let the server's user" in await failure(SQLITE.open(data))
data.chmod(0o755)
""",
    )


# --- large payloads beside the database ---


def test_large_payloads_are_files_and_small_ones_are_not(tmp_path: Path) -> None:
    """Those of removed or replaced parts go, and so do those of writes that were refused."""

    async def body(store: Store) -> None:
        one = claimed(inputs=LARGE)
        await store.add_prediction(one)
        await store.add_prediction(claimed(inputs=LARGE[1:]))
        assert [path.stat().st_size for path in blobs(tmp_path)] == [len(LARGE)]
        with pytest.raises(ServingError):
            await store.add_prediction(one)
        assert not await store.change_prediction(done(one, owner="other", outputs=LARGE))
        assert len(blobs(tmp_path)) == 1
        assert await store.change_prediction(replace(done(one, outputs=LARGE), logs="x" * len(LARGE)))
        assert len(blobs(tmp_path)) == 3
        assert await store.remove_predictions(finished_before=1e9, limit=10) == [one.id]
        assert blobs(tmp_path) == []

    with_store(SQLITE, tmp_path, body)


def test_replaced_logs_leave_no_file(tmp_path: Path) -> None:
    """Also when several changes share a transaction."""

    async def body(store: Store) -> None:
        one, other = claimed(), claimed()
        await store.add_prediction(one)
        await store.add_prediction(other)
        logs = [done(one, progress=None, finished=None, logs=letter * LEAST_BYTES) for letter in "abcdef"]
        results = await asyncio.gather(*(store.change_prediction(c) for c in logs), store.change_prediction(done(other, attempt=7)))
        assert results == [True] * 6 + [False]
        found = await store.prediction(one.id)
        assert found is not None
        assert found.logs in {change.logs for change in logs}
        assert len(blobs(tmp_path)) == 1
        assert await store.change_prediction(done(one, logs="end"))
        assert blobs(tmp_path) == []

    with_store(SQLITE, tmp_path, body)


def test_outputs_whose_file_was_destroyed(tmp_path: Path) -> None:
    """The prediction has failed, with that reason, instead of an error for ever; strangers are served."""

    async def body(store: Store) -> None:
        one, other = ended(outputs=LARGE, webhook="https://x"), ended(outputs=b"x", finished=121.0)
        await store.add_prediction(one)
        await store.add_prediction(other)
        for path in blobs(tmp_path):
            path.write_bytes(b"short")
        found = await store.prediction(one.id)
        assert found is not None
        assert (found.progress, found.outputs, found.error_kind) == (Progress.FAILED, None, "internal")
        assert "outputs" in found.error
        assert [(p.id, p.progress) for p in await store.undelivered(5)] == [(one.id, Progress.FAILED)]
        assert await store.prediction(other.id) == other
        assert await store.remove_predictions(finished_before=1e9, limit=5) == [one.id, other.id]

    with_store(SQLITE, tmp_path, body)


@pytest.mark.parametrize("unreadable", [False, True], ids=["gone", "unreadable"])
def test_inputs_whose_file_was_destroyed(unreadable: bool, tmp_path: Path) -> None:
    """It cannot run: whoever would claim it gets the others, and it has failed with that reason."""

    async def body(store: Store) -> None:
        one, other = waiting(inputs=LARGE, created=1.0), waiting(created=2.0)
        await store.add_prediction(one)
        await store.add_prediction(other)
        for path in blobs(tmp_path):
            path.unlink()
            if unreadable:
                path.mkdir()
        assert [p.id for p in await store.claim_predictions("me", ["m"], lease_until=1.0, limit=5)] == [other.id]
        found = await store.prediction(one.id, inputs=False)
        assert found is not None
        assert (found.progress, found.error_kind) == (Progress.FAILED, "internal")
        assert "inputs" in found.error
        assert found.finished

    with_store(SQLITE, tmp_path, body)


def test_files_that_a_crash_left_are_collected_at_the_next_start(tmp_path: Path) -> None:
    """Old ones without a row; those with a row stay."""
    one = claimed(inputs=LARGE)

    async def fill(store: Store) -> None:
        await store.add_prediction(one)

    async def look(store: Store) -> None:
        await asyncio.to_thread(until, lambda: len(blobs(tmp_path)) == 1)
        assert await store.prediction(one.id) == one

    with_store(SQLITE, tmp_path, fill)
    (kept,) = blobs(tmp_path)
    orphan = tmp_path / "blobs" / "ab" / ("ab" * 16)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    then = time.time() - LEFT_BEHIND_S - 60
    for path in (kept, orphan):
        os.utime(path, (then, then))
    with_store(SQLITE, tmp_path, look)
    assert blobs(tmp_path) == [kept]
