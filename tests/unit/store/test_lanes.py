"""How calls share a thread and transactions, tried over a pretended database that notes what happens to it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from dragoman.core.errors import Kind, ServingError
from dragoman.store.database import ClashError, OutageError
from dragoman.store.lanes import MOST_TOGETHER, MOST_WAITING, Lane


class Database:
    """Notes transactions. While `gate` is closed, the next one waits before it begins."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.groups: list[list[object]] = []
        self.failure: Exception | None = None
        self.commits: list[Exception | None] = []
        """What comes of the next commits."""
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.thread = ""

    def __call__(self) -> AbstractContextManager[Connection]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        self.thread = threading.current_thread().name
        self.inside.set()
        assert self.gate.wait(10)
        if self.failure is not None:
            raise self.failure
        try:
            yield cast("Connection", self)
        except Exception:
            self.notes.append("rollback")
            raise
        if self.commits and (failure := self.commits.pop(0)) is not None:
            self.notes.append("failed")
            raise failure
        self.notes.append("commit")

    def close(self) -> None:
        self.notes.append("closed")

    def double(self, _connection: Connection, numbers: Sequence[int]) -> list[int]:
        """Work; fails for negative numbers."""
        self.groups.append(list(numbers))
        if min(numbers) < 0:
            raise ArithmeticError("negative")
        return [2 * n for n in numbers]

    def text(self, _connection: Connection, numbers: Sequence[int]) -> list[str]:
        """Other work."""
        self.groups.append(list(numbers))
        return [str(n) for n in numbers]


def with_lane(body: Callable[[Lane, Database], Awaitable[None]], *, gate: bool = True) -> Database:
    database = Database()
    if not gate:
        database.gate.clear()

    async def run() -> None:
        lane = Lane("lane", database, disconnect=database.close)
        try:
            async with asyncio.timeout(30):
                await body(lane, database)
        finally:
            database.gate.set()
            await lane.close()

    asyncio.run(run())
    return database


async def held(lane: Lane, database: Database, calls: Sequence[Awaitable[Any]]) -> tuple["asyncio.Task[int]", list["asyncio.Task[Any]"]]:
    """A first call that waits in its transaction, and these that wait behind it."""
    database.gate.clear()
    database.inside.clear()
    first = asyncio.create_task(lane.run(database.double, 0))
    await asyncio.to_thread(database.inside.wait, 10)
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)  # each has asked
    return first, tasks


def test_what_arrives_meanwhile_shares_a_transaction() -> None:
    """Each caller gets its own result; the work runs in the lane's thread."""

    async def body(lane: Lane, database: Database) -> None:
        first, tasks = await held(lane, database, [lane.run(database.double, n) for n in range(1, 6)])
        database.gate.set()
        assert await first == 0
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
        assert database.groups == [[0], [1, 2, 3, 4, 5]]
        assert database.notes == ["commit", "commit"]
        assert database.thread == "lane"

    assert with_lane(body).notes[-1] == "closed"


def test_a_transaction_has_a_bound() -> None:
    """Other processes wait for it."""

    async def body(lane: Lane, database: Database) -> None:
        first, tasks = await held(lane, database, [lane.run(database.double, n) for n in range(MOST_TOGETHER + 3)])
        database.gate.set()
        await asyncio.gather(first, *tasks)
        assert [len(group) for group in database.groups] == [1, MOST_TOGETHER, 3]

    with_lane(body)


def test_kinds_of_work_are_handed_over_apart() -> None:
    """In one transaction, each with its own arguments in order."""

    async def body(lane: Lane, database: Database) -> None:
        calls: list[Awaitable[Any]] = [lane.run(database.double, 1), lane.run(database.text, 2), lane.run(database.double, 3)]
        _, tasks = await held(lane, database, calls)
        database.gate.set()
        assert await asyncio.gather(*tasks) == [2, "2", 6]
        assert database.groups == [[0], [1, 3], [2]]
        assert database.notes == ["commit", "commit"]

    with_lane(body)


def test_one_bad_call_fails_alone() -> None:
    """The group is rolled back and each call made by itself."""

    async def body(lane: Lane, database: Database) -> None:
        _, tasks = await held(lane, database, [lane.run(database.double, n) for n in (1, -2, 3)])
        database.gate.set()
        good, bad, other = await asyncio.gather(*tasks, return_exceptions=True)
        assert (good, other) == (2, 6)
        assert isinstance(bad, ArithmeticError)
        assert database.notes == ["commit", "rollback", "commit", "rollback", "commit"]

    with_lane(body)


def test_a_failing_database_fails_all_and_can_come_back() -> None:
    """Whoever waits is told; the lane goes on."""

    async def body(lane: Lane, database: Database) -> None:
        _, tasks = await held(lane, database, [lane.run(database.double, n) for n in range(3)])
        database.failure = ServingError(Kind.UNAVAILABLE, "full")
        database.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, ServingError) and result.message == "full" for result in results)
        database.failure = None
        assert await lane.run(database.double, 21) == 42

    with_lane(body)


def test_a_caller_that_leaves_hurts_nobody() -> None:
    """Its call is made all the same, and the others get their results."""
    settled: list[object] = []

    async def body(lane: Lane, database: Database) -> None:
        calls = [lane.run(database.double, 1), lane.run(database.double, 2, after=settled.append), lane.run(database.double, 3)]
        _, tasks = await held(lane, database, calls)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        database.gate.set()
        assert [await tasks[0], await tasks[2]] == [2, 6]
        assert database.groups[1] == [1, 2, 3]

    with_lane(body)
    assert settled == [4]


def test_what_comes_after_a_call_learns_how_it_ended() -> None:
    """The result, or None for a failure, also when the lane refused it."""
    settled: list[object] = []

    async def body(lane: Lane, database: Database) -> None:
        await lane.run(database.double, 1, after=settled.append)
        with pytest.raises(ArithmeticError):
            await lane.run(database.double, -1, after=settled.append)
        await lane.close()
        with pytest.raises(ServingError):
            await lane.run(database.double, 1, after=settled.append)

    with_lane(body)
    assert settled == [2, None, None]


def test_what_comes_after_a_call_cannot_end_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged, and the call has its result."""

    def fail(_result: object) -> None:
        raise ArithmeticError("after")

    async def body(lane: Lane, database: Database) -> None:
        assert await lane.run(database.double, 1, after=fail) == 2
        assert await lane.run(database.double, 2) == 4

    with_lane(body)
    assert [record.levelname for record in caplog.records if record.name == "dragoman.store"] == ["ERROR"]


def test_too_many_are_refused() -> None:
    """OVERLOADED, and with a time after which to try again; those that wait are served."""

    async def body(lane: Lane, database: Database) -> None:
        first, tasks = await held(lane, database, [lane.run(database.double, 1) for _ in range(MOST_WAITING)])
        with pytest.raises(ServingError) as caught:
            await lane.run(database.double, 1)
        assert caught.value.kind is Kind.OVERLOADED
        assert caught.value.retry_after_s
        database.gate.set()
        await first
        assert set(await asyncio.gather(*tasks)) == {2}

    with_lane(body)


def test_closing_finishes_what_waits() -> None:
    """And refuses what comes later."""

    async def body(lane: Lane, database: Database) -> None:
        first, tasks = await held(lane, database, [lane.run(database.double, n) for n in range(3)])
        closing = asyncio.create_task(lane.close())
        await asyncio.sleep(0)
        with pytest.raises(ServingError) as caught:
            await lane.run(database.double, 1)
        assert caught.value.kind is Kind.UNAVAILABLE
        database.gate.set()
        await closing
        assert await first == 0
        assert await asyncio.gather(*tasks) == [0, 2, 4]
        assert database.notes[-1] == "closed"

    with_lane(body)


def test_several_loops_share_a_lane() -> None:
    """A command or a test may call from a loop of its own."""

    async def body(lane: Lane, database: Database) -> None:
        async def call(n: int) -> int:
            return await lane.run(database.double, n)

        results = await asyncio.gather(*(asyncio.to_thread(asyncio.run, call(n)) for n in range(4)), call(9))
        assert results == [0, 2, 4, 6, 18]

    with_lane(body)


def test_a_loop_that_is_gone_does_not_stop_the_lane() -> None:
    """Its call is made, nobody is told, and the next caller is served."""

    async def body(lane: Lane, database: Database) -> None:
        database.gate.clear()
        database.inside.clear()

        async def leave() -> None:
            task = asyncio.create_task(lane.run(database.double, 1))
            await asyncio.to_thread(database.inside.wait, 10)
            task.cancel()

        await asyncio.to_thread(asyncio.run, leave())
        database.gate.set()
        assert await lane.run(database.double, 2) == 4
        assert database.groups == [[1], [2]]

    with_lane(body)


# --- what only some databases do ---


def several(database: Database, lane: Lane) -> "list[asyncio.Future[int]]":
    """Three calls that meet in one transaction, while another one is held up."""
    return [asyncio.ensure_future(lane.run(database.double, n)) for n in (1, 2, 3)]


def test_a_transaction_that_clashed_is_run_again() -> None:
    """Nothing of it was applied, so all of its calls are made again together, and nobody hears of it."""

    async def body(lane: Lane, database: Database) -> None:
        first = asyncio.ensure_future(lane.run(database.text, 0))
        await asyncio.to_thread(database.inside.wait, 10)
        calls = several(database, lane)
        await asyncio.sleep(0)
        database.commits = [None, clash(), clash()]
        database.gate.set()
        assert await first == "0"
        assert await asyncio.gather(*calls) == [2, 4, 6]

    database = with_lane(body, gate=False)
    assert database.groups == [[0], [1, 2, 3], [1, 2, 3], [1, 2, 3]]
    assert database.notes == ["commit", "failed", "failed", "commit", "closed"]


def test_what_always_clashes_fails_in_the_end() -> None:
    """The number of attempts is bounded, also for each call by itself."""

    async def body(lane: Lane, database: Database) -> None:
        database.commits = [clash() for _ in range(100)]
        with pytest.raises(ClashError):
            await lane.run(database.double, 1)

    assert len(with_lane(body).groups) == 5


def test_an_outage_is_everybodys_and_nothing_is_tried_again() -> None:
    """What was being committed may be there: no call is made a second time."""

    async def body(lane: Lane, database: Database) -> None:
        first = asyncio.ensure_future(lane.run(database.text, 0))
        await asyncio.to_thread(database.inside.wait, 10)
        calls = several(database, lane)
        await asyncio.sleep(0)
        database.commits = [None, OutageError(Kind.UNAVAILABLE, "it broke off")]
        database.gate.set()
        await first
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, OutageError)

    assert with_lane(body, gate=False).groups == [[0], [1, 2, 3]]


def clash() -> ClashError:
    return ClashError(Kind.UNAVAILABLE, "somebody came in between")
