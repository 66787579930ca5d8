"""The schema: what migrations make, when they run, and which databases are refused."""

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection

import dragoman
from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.store import Change, predictions
from dragoman.store.sql import open_store, store_url
from dragoman.store.sqlite import SqliteFile
from dragoman.store.upgrades import HEAD, MIGRATIONS
from tests.stores import SQLITE, claimed


def made(tmp_path: Path) -> SqliteFile:
    file = SqliteFile(tmp_path / "dragoman.db")
    file.prepare()
    return file


def sql(path: Path, *statements: str) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


def refusal(path: Path) -> ServingError:
    with pytest.raises(ServingError) as caught:
        SqliteFile(path).prepare()
    assert caught.value.kind is Kind.UNAVAILABLE
    return caught.value


def test_the_newest_migration_is_the_one_that_the_code_asks_for() -> None:
    """HEAD is a constant, so that a start need not read the migrations."""
    names = sorted(path.name for path in (MIGRATIONS / "versions").glob("*.py"))
    assert names[-1].startswith(f"{HEAD}_")


def test_a_database_of_a_newer_server_is_refused(tmp_path: Path) -> None:
    """And is left as it is; the message says what to do."""
    path = made(tmp_path).path
    sql(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    error = refusal(path)
    assert "9999" in error.message
    assert "newer" in error.message
    assert str(tmp_path) not in error.message
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """Nothing is added to it."""
    path = tmp_path / "other.db"
    sql(path, "CREATE TABLE recipes (name TEXT)")
    assert "another program" in refusal(path).message
    assert sql(path, "SELECT name FROM sqlite_master")[0] == [("recipes",)]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """All of it is one transaction: here a table of ours is in the way of the first revision, after others were made."""
    path = tmp_path / "dragoman.db"
    sql(path, "CREATE TABLE alembic_version (version_num TEXT NOT NULL)", "CREATE TABLE predictions (id TEXT)")
    assert "start the server anew" in refusal(path).message
    assert sorted(sql(path, "SELECT name FROM sqlite_master")[0]) == [("alembic_version",), ("predictions",)]
    sql(path, "DROP TABLE predictions")
    SqliteFile(path).prepare()
    assert sql(path, "SELECT version_num FROM alembic_version", "SELECT count(*) FROM predictions") == [[(HEAD,)], [(0,)]]


def test_a_database_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    """Only its revision is looked at: what a start costs."""
    made(tmp_path)
    script = (
        "import asyncio, sys\nfrom dragoman.store.sql import open_store\n"
        "async def run():\n    store = await open_store(sys.argv[1])\n    await store.versions()\n    await store.close()\n"
        "asyncio.run(run())\nprint('alembic' in sys.modules, 'sqlalchemy' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(dragoman.__file__).parents[1])}
    command = [sys.executable, "-c", script, store_url(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "False True\n"


def test_a_path_may_have_any_characters(tmp_path: Path) -> None:
    """Percent signs, question marks, hashes, spaces: of no meaning in a path."""
    place = tmp_path / "a %20?x=1#y" / "ü"

    async def run() -> None:
        store = await open_store(store_url(place))
        await store.versions()
        await store.close()

    asyncio.run(run())
    assert (place / "dragoman.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["a %20?x=1#y"]


@pytest.mark.parametrize("url", ["", "sqlite://", "sqlite:///", "sqlite:///:memory:", "postgres://x/y", "/var/x.db", "http://x"])
def test_other_urls_are_refused(url: str) -> None:
    """With an example of a good one."""
    with pytest.raises(ServingError) as caught:
        asyncio.run(open_store(url))
    assert caught.value.kind is Kind.INVALID_INPUT
    assert "sqlite:///" in caught.value.message


def test_the_files_are_nobody_elses(tmp_path: Path) -> None:
    """Database, log and folder, whatever the umask would give; the journal is WAL."""

    async def run() -> None:
        store = await SQLITE.open(tmp_path / "data" / "deep")
        await store.versions()
        await store.add_prediction(claimed())
        for path in (tmp_path / "data").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path
        assert len(list((tmp_path / "data" / "deep").glob("dragoman.db*"))) == 3
        await store.close()

    asyncio.run(run())
    assert sql(tmp_path / "data" / "deep" / "dragoman.db", "PRAGMA journal_mode") == [[("wal",)]]


@pytest.mark.parametrize(
    ("index", "work"),
    [
        ("waiting_predictions", lambda c: predictions.claim(c, predictions.Claim("me", ("m",), 1.0, 5))),
        ("owned_predictions", lambda c: predictions.orphans(c, 1.0, ["x"])),
        ("owned_predictions", predictions.owners),
        ("sqlite_autoindex_predictions_1", lambda c: predictions.renew(c, "me", ["a"], 1.0)),
        ("ended_predictions", lambda c: predictions.remove(c, 1.0, 5)),
        ("undelivered_predictions", lambda c: predictions.undelivered(c, 5)),
        ("payload_files", lambda c: predictions.unknown_files(c, ["a"])),
        ("sqlite_autoindex_predictions_1", lambda c: predictions.find(c, ["a"])),
        ("sqlite_autoindex_predictions_1", lambda c: predictions.change(c, [(Change("a", Progress.RUNNING), [])])),
    ],
    ids=["claim", "orphans", "owners", "renew", "remove", "undelivered", "files", "find", "change"],
)
def test_queries_use_their_index(index: str, work: Callable[[Connection], object], tmp_path: Path) -> None:
    """None of them reads the whole table, which may hold the results of an hour; with the statistics of a full one."""
    file = made(tmp_path)
    transactions = file.transactions(write=True)
    with transactions() as connection:
        some = [claimed(id=f"{n:032x}", progress=Progress.SUCCEEDED, finished=float(n)) for n in range(500)]
        predictions.add(connection, [(one, [predictions.Payload("outputs", b"x", None, 1)]) for one in some])
        connection.exec_driver_sql("ANALYZE")
    statements: list[str] = []
    with transactions() as connection:
        connection.connection.driver_connection.set_trace_callback(statements.append)  # type: ignore[union-attr]
        work(connection)
        connection.connection.driver_connection.set_trace_callback(None)  # type: ignore[union-attr]
    transactions.disconnect()
    read = [text for text in statements if text.startswith(("SELECT", "UPDATE"))]
    plans = sql(file.path, *(f"EXPLAIN QUERY PLAN {text}" for text in read))
    assert index in str(plans[0])
    assert "SCAN predictions'" not in str(plans)
