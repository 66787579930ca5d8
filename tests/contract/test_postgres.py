"""What only PostgreSQL does: connections that are lost, a server that is restarted or crashes, locks of others, refusals, bounds."""

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.store import Store
from dragoman.store.postgres import Postgres
from dragoman.store.sql import open_store
from dragoman.store.sqlstore import SqlStore
from tests import postgres
from tests.ports import free_port
from tests.stores import claimed, done, version, waiting
from tests.tcp_line import Line

LONG_S = 3600.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of an empty database."""
    return postgres.database_of(tmp_path)


@pytest.fixture(autouse=True)
def _no_password_is_written(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, the log never has the password."""
    caplog.set_level(logging.DEBUG, "dragoman")
    yield
    assert postgres.PASSWORD not in caplog.text
    assert postgres.QUOTED not in caplog.text


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await body()

    asyncio.run(bounded())


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


async def refused(call: Awaitable[object]) -> str:
    """The words with which a call failed for now."""
    with pytest.raises(ServingError) as caught:
        await call
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.retry_after_s is not None
    assert postgres.PASSWORD not in caught.value.message
    assert postgres.USER not in caught.value.message
    return caught.value.message


def test_connections_that_an_administrator_ends_are_made_again(url: str) -> None:
    """Nobody hears of it: neither who reads nor who writes, and the bell goes on."""

    async def body() -> None:
        async with opened(url) as store:
            bell = await store.bell()
            for n in range(3):
                while await asyncio.to_thread(postgres.clients, url) != 3:  # reader, writer, bell; that of the migration goes
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(postgres.terminate, url)
                await bell.rung(LONG_S)  # it was away: who knows what came in between
                await store.wish("m", lambda _, n=n: {"n": n})  # type: ignore[misc] # a lambda has no types
                await bell.rung(LONG_S)
                assert [wish.generation for wish in await store.wishes()] == [n + 1]
            await bell.close()

    run(body)


def test_a_restart_of_the_database(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """While it is away calls fail for now; afterwards they work, and bells ring. The log has one line for each of both."""

    async def body() -> None:
        server = postgres.server()
        async with opened(url) as store:
            bell = await store.bell()
            one = claimed()
            await store.add_prediction(one)
            await asyncio.to_thread(server.stop)
            try:
                waiting_ = asyncio.ensure_future(bell.rung(LONG_S))
                for _ in range(3):
                    assert "see that PostgreSQL runs" in await refused(store.wish("m", lambda _: {}))
                    assert "see that PostgreSQL runs" in await refused(store.prediction(one.id))
                late = await store.bell()
                await late.rung(0.01)
                assert not waiting_.done()
            finally:
                await asyncio.to_thread(server.start)
            await waiting_
            assert await store.change_prediction(done(one))
            await late.rung(LONG_S)
            await bell.rung(0.0)
            await store.wish("m", lambda _: {"n": 1})
            await asyncio.gather(bell.rung(LONG_S), late.rung(LONG_S))
            assert len(await store.wishes()) == 1
            await bell.close()
            await late.close()

    run(body)
    texts = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([words for words in texts if "cannot be reached" in words]) == 2  # who reads and who writes
    assert len([words for words in texts if "works again" in words]) == 2


def test_a_bell_that_is_closed_while_it_connects(url: str) -> None:
    """It leaves no connection behind."""

    async def body() -> None:
        async with opened(url) as store:
            bell = await store.bell()
            await asyncio.to_thread(postgres.terminate, url)
            waiting_ = asyncio.ensure_future(bell.rung(LONG_S))
            await asyncio.sleep(0)
            waiting_.cancel()
            await asyncio.gather(waiting_, return_exceptions=True)
            await bell.close()

    run(body)
    with postgres.administrator() as connection:
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        while connection.execute(count, [postgres.name_of(url)]).fetchone() != (0,):
            pass  # the test's own time-out ends this


def test_a_crash_loses_nothing_that_was_answered(url: str) -> None:
    """It is killed in the middle of many writes, several times: what was answered is there, once, and whole."""
    answered: list[str] = []
    ended: list[str] = []

    async def write(store: Store, stop: asyncio.Event) -> None:
        while not stop.is_set():
            one = claimed(inputs=b"i" * 5000)
            try:
                await store.add_prediction(one)
                answered.append(one.id)
                if await store.change_prediction(done(one, outputs=one.id.encode())):
                    ended.append(one.id)
            except ServingError:
                await asyncio.sleep(0.01)

    async def body() -> None:
        server = postgres.server()
        async with opened(url) as store:
            for _ in range(2):
                stop = asyncio.Event()
                writers = [asyncio.ensure_future(write(store, stop)) for _ in range(8)]
                enough = len(ended) + 50
                while len(ended) < enough:
                    await asyncio.sleep(0.005)
                await asyncio.to_thread(server.stop, signal.SIGQUIT)
                await asyncio.to_thread(server.start)
                enough = len(ended) + 20
                while len(ended) < enough:
                    await asyncio.sleep(0.005)
                stop.set()
                await asyncio.gather(*writers)
            for key in answered:
                found = await store.prediction(key)
                assert found is not None
                assert found.inputs == b"i" * 5000
                if key in ended:
                    assert (found.progress, found.outputs) == (Progress.SUCCEEDED, key.encode())

    run(body)


@pytest.mark.parametrize("answered", [False, True], ids=["before the commit", "after the commit"])
def test_nobody_is_told_more_than_is_known(answered: bool, url: str) -> None:
    """Where the line breaks at a commit, the caller is told so; what was written is written once, whatever it was."""

    async def body() -> None:
        with Line(postgres.server().port) as line:
            async with opened(url.replace(f":{postgres.server().port}/", f":{line.port}/")) as store:
                line.cut_at(b"COMMIT", answered=answered)
                one = waiting()
                await refused(store.add_prediction(one))
                assert (await store.prediction(one.id) is not None) == answered
                line.cut_at(b"COMMIT", answered=answered)
                await refused(store.wish("m", lambda _: {"n": 1}))
                assert [wish.generation for wish in await store.wishes()] == [1] * answered
                line.cut_at(b"COMMIT", answered=answered)
                several = [store.add_prediction(waiting()) for _ in range(20)]
                outcomes = await asyncio.gather(*several, return_exceptions=True)
                lost = sum(isinstance(outcome, ServingError) for outcome in outcomes)
                assert lost > 0
                await store.wish("m", lambda standing: {"n": 2} if standing is None else None)
                found = await store.claim_predictions("me", ["m"], lease_until=1.0, limit=100)
                assert len(found) == (21 if answered else 20 - lost)
                assert line.cuts == 3

    run(body)


def test_what_was_not_committed_for_sure_is_done_again(url: str) -> None:
    """Where the line breaks before the end of a transaction nobody hears of it, and it is written once."""

    async def body() -> None:
        with Line(postgres.server().port) as line:
            async with opened(url.replace(f":{postgres.server().port}/", f":{line.port}/")) as store:
                for answered in (False, True):
                    line.cut_at(b"INSERT INTO predictions", answered=answered)
                    one = waiting()
                    await store.add_prediction(one)
                    assert await store.prediction(one.id) is not None
                line.cut_at(b"SELECT", answered=True)
                assert await store.versions() == []
                assert line.cuts == 3

    run(body)


def test_a_lock_of_somebody_else_ends_the_call_in_time(url: str) -> None:
    """Nothing waits for ever, and what is refused is not written later."""

    async def body() -> None:
        store = await SqlStore.over(Postgres(url, wait_s=0.2))
        with postgres.administrator(postgres.name_of(url)) as connection:
            with connection.transaction():
                connection.execute("LOCK TABLE predictions, model_versions")
                results = await asyncio.gather(*(refused(store.add_prediction(waiting())) for _ in range(50)))
                assert all("is locked by another process" in words for words in results)
                assert "is locked by another process" in await refused(store.versions())
            assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (0,)
        await store.add_prediction(waiting())
        await store.close()

    run(body)


def test_a_statement_that_takes_too_long_is_ended(url: str) -> None:
    """By PostgreSQL itself."""
    database = Postgres(url, wait_s=0.1)
    database.prepare()
    transactions = database.transactions(write=False)
    with pytest.raises(ServingError, match="took too long to answer"), transactions() as connection:
        connection.execute(text("SELECT pg_sleep(600)"))
    with transactions() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    transactions.disconnect()


def test_of_two_that_lock_each_other_out_both_get_through(url: str) -> None:
    """PostgreSQL breaks one of them off; where that is the store's, it is run again."""

    async def body() -> None:
        first, second = sorted((claimed() for _ in range(2)), key=lambda one: one.id)
        async with opened(url) as store:
            await store.add_prediction(first)
            await store.add_prediction(second)
            with postgres.administrator(postgres.name_of(url)) as connection, connection.transaction():
                lock = "SELECT 1 FROM predictions WHERE id = %s FOR UPDATE"
                connection.execute(lock, [second.id])
                changes = [asyncio.ensure_future(store.change_prediction(done(one))) for one in (first, second)]
                await asyncio.to_thread(until_somebody_waits, url)
                with contextlib.suppress(psycopg.errors.DeadlockDetected):
                    await asyncio.to_thread(connection.execute, lock, [first.id])
                    raise psycopg.Rollback
            assert await asyncio.gather(*changes) == [True, True]

    run(body)


def until_somebody_waits(url: str) -> None:
    with postgres.administrator() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        while connection.execute(query, [postgres.name_of(url)]).fetchone() == (0,):
            pass


def test_what_another_is_just_claiming_is_passed_over(url: str) -> None:
    """Nobody waits for a row that somebody else is about to get."""

    async def body() -> None:
        some = [waiting(created=float(n)) for n in range(5)]
        async with opened(url) as store:
            for one in some:
                await store.add_prediction(one)
            with postgres.administrator(postgres.name_of(url)) as connection, connection.transaction():
                connection.execute("SELECT 1 FROM predictions WHERE id = %s FOR UPDATE", [some[1].id])
                found = await store.claim_predictions("me", ["m"], lease_until=1.0, limit=3)
                assert [one.id for one in found] == [some[n].id for n in (0, 2, 3)]

    run(body)


def test_what_one_call_reads_is_of_one_moment(url: str) -> None:
    """Also when somebody writes in the middle of it; and who reads cannot write."""
    database = Postgres(url)
    database.prepare()
    reading, writing = database.transactions(write=False), database.transactions(write=True)
    count = text("SELECT count(*) FROM workers")
    with reading() as reader:
        assert reader.scalar(count) == 0
        with writing() as writer:
            writer.execute(text("INSERT INTO workers (worker, lease_until) VALUES ('w', 1)"))
        assert reader.scalar(count) == 0
    with reading() as reader:
        assert reader.scalar(count) == 1
    with pytest.raises(ServingError, match="can only be read"), reading() as reader:
        reader.execute(text("DELETE FROM workers"))
    reading.disconnect()
    writing.disconnect()


# --- refusals ---


def role(name: str, options: str = "") -> str:
    """The beginning of the URL of another user, who is made with the first call."""
    with postgres.administrator() as connection, contextlib.suppress(psycopg.errors.DuplicateObject):
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'p' {options}")
    return f"postgresql://{name}:p@127.0.0.1:{postgres.server().port}"


def test_a_wrong_password(url: str) -> None:
    run(lambda: says("refuses the server's user or password", url.replace(postgres.QUOTED, "wr0ng")))


def test_a_user_that_does_not_exist(url: str) -> None:
    run(lambda: says("refuses the server's user or password", url.replace("//dragoman:", "//nobody:")))


def test_a_database_that_does_not_exist(url: str) -> None:
    run(lambda: says("make it with CREATE DATABASE", url + "_not"))


def test_a_user_who_may_not_make_tables(url: str) -> None:
    run(lambda: says("grant it the rights on its schema", f"{role('poor')}/{postgres.name_of(url)}"))


def test_a_database_that_can_only_be_read(url: str) -> None:
    """As a standby is."""
    with postgres.administrator() as connection:
        name = sql.Identifier(postgres.name_of(url))
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    run(lambda: says("must lead to the primary server", url))


def test_no_connection_is_left(url: str) -> None:
    run(lambda: says("raise max_connections", f"{role('crowd', 'CONNECTION LIMIT 0')}/{postgres.name_of(url)}"))


def test_nothing_listens() -> None:
    run(lambda: says("see that PostgreSQL runs", f"postgresql://someone@127.0.0.1:{free_port()}/db"))


def test_something_that_never_answers() -> None:
    """A connection is waited for, and not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        run(lambda: says("see that PostgreSQL runs", f"postgresql://someone@127.0.0.1:{port}/db?connect_timeout=2"))


async def says(words: str, url: str) -> None:
    assert words in await refused(open_store(url))


@pytest.mark.parametrize("address", ["postgresql://u:p@h:port/d", "postgresql://u:p@h/d?nonsense=1", "postgresql://u:p@[::1/d"])
def test_an_address_that_is_none(address: str) -> None:
    """It is refused before anything is asked, without its password."""

    async def body() -> None:
        with pytest.raises(ServingError) as caught:
            await open_store(address)
        assert caught.value.kind is Kind.INVALID_INPUT
        assert ":p@" not in caught.value.message

    run(body)


def test_a_database_of_another_program(url: str) -> None:
    """Nothing of it is touched."""
    with postgres.administrator(postgres.name_of(url)) as connection:
        connection.execute("CREATE TABLE accounts (id int)")

    async def body() -> None:
        with pytest.raises(ServingError, match="belongs to another program"):
            await open_store(url)

    run(body)


def test_a_schema_of_its_own_in_a_database_of_another_program(url: str) -> None:
    """The address may name one."""
    with postgres.administrator(postgres.name_of(url)) as connection:
        connection.execute("CREATE TABLE accounts (id int)")
        connection.execute("CREATE SCHEMA serving")

    async def body() -> None:
        async with opened(f"{url}?options=-csearch_path%3Dserving") as store:
            await store.add_version(version())
        async with opened(f"{url.replace('postgresql:', 'postgresql+psycopg:')}?options=-csearch_path%3Dserving") as store:
            assert [found.version for found in await store.versions()] == ["1"]

    run(body)


def test_a_database_of_a_newer_server(url: str) -> None:
    """It is left alone."""

    async def body() -> None:
        async with opened(url):
            pass
        with postgres.administrator(postgres.name_of(url)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(ServingError, match="a newer version wrote it"):
            await open_store(url)

    run(body)


def test_payloads_have_a_bound(url: str) -> None:
    """Inputs beyond it are refused; of outputs beyond it the prediction fails with the reason, instead of never ending."""

    async def body() -> None:
        store = await SqlStore.over(Postgres(url, most_bytes=1000))
        with pytest.raises(ServingError) as caught:
            await store.add_prediction(waiting(inputs=b"i" * 1001))
        assert caught.value.kind is Kind.TOO_LARGE
        one, other = claimed(inputs=b"i" * 1000), claimed()
        await store.add_prediction(one)
        await store.add_prediction(other)
        assert await store.change_prediction(done(one, outputs=b"o" * 1000))
        assert await store.change_prediction(done(other, outputs=b"o" * 1001))
        found = await store.prediction(other.id)
        assert found is not None
        assert (found.progress, found.outputs, found.error_kind) == (Progress.FAILED, None, Kind.TOO_LARGE.value)
        assert "more than the 1000 bytes" in found.error
        await store.close()

    run(body)


def test_without_the_driver_the_extra_is_named(url: str) -> None:
    """The package works without it, and says what is missing when it is asked for."""
    script = (
        "import asyncio, sys\nsys.modules['psycopg'] = None\nfrom dragoman.core.errors import ServingError\n"
        "from dragoman.store.sql import open_store\n"
        "try:\n    asyncio.run(open_store(sys.argv[1]))\nexcept ServingError as error:\n    print(error.kind.value, error.message)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert answer.stdout.startswith("unsupported "), answer.stderr
    assert "dragoman[postgres]" in answer.stdout
