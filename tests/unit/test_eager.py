"""Running a coroutine without a task: it behaves as if it were in one, but for current_task."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from dragoman.server.eager import Stepped

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on a loop of each kind."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(test, 20))

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


class Watched:
    """Runs work with Stepped and records how it ends."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.endings: list[BaseException | None] = []
        self.over = asyncio.Event()
        self.stepped = Stepped(work, self._ended, asyncio.get_running_loop())

    def _ended(self, exc: BaseException | None) -> None:
        self.endings.append(exc)
        self.over.set()


def test_work_that_waits_for_futures_needs_no_task(run: Run) -> None:
    """Two futures one after the other, one of them done already; no task is made, and the end is told once."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        first, second = loop.create_future(), loop.create_future()
        second.set_result("b")
        seen: list[object] = []

        async def work() -> None:
            seen.append(await first)
            seen.append(await second)
            seen.append(asyncio.current_task())

        watched = Watched(work())
        assert not watched.stepped.go_on()
        assert watched.endings == []
        first.set_result("a")
        await watched.over.wait()
        assert seen == ["a", "b", None]
        assert watched.endings == [None]
        assert watched.stepped.task is None

    run(test())


def test_work_that_ends_at_once_says_so(run: Run) -> None:
    """Ended in its first step, well or badly: told before go_on returns."""

    async def test() -> None:
        async def good() -> None: ...

        async def bad() -> None:
            raise LookupError("at once")

        watched = Watched(good())
        assert watched.stepped.go_on()
        assert watched.endings == [None]
        watched = Watched(bad())
        assert watched.stepped.go_on()
        assert isinstance(watched.endings[0], LookupError)

    run(test())


def test_work_that_yields_wants_a_task(run: Run) -> None:
    """After a bare yield there is a task, so time-outs and task groups work."""

    async def test() -> None:
        seen: list[object] = []
        later = asyncio.get_running_loop().create_future()

        async def work() -> None:
            await later
            await asyncio.sleep(0)
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            seen.append(asyncio.current_task())

        watched = Watched(work())
        watched.stepped.go_on()
        later.set_result(None)
        await watched.over.wait()
        assert watched.endings == [None]
        assert seen == [watched.stepped.task]
        assert seen[0] is not None

    run(test())


@pytest.mark.parametrize("with_task", [False, True])
def test_cancelling_arrives_where_it_waits(run: Run, with_task: bool) -> None:
    """With or without a task: the awaited future is cancelled, the coroutine cleans up, and the end is a CancelledError."""

    async def test() -> None:
        seen: list[object] = []
        never = asyncio.get_running_loop().create_future()

        async def work() -> None:
            if with_task:
                await asyncio.sleep(0)
            try:
                await never
            finally:
                seen.append(never.cancelled())

        watched = Watched(work())
        watched.stepped.go_on()
        if with_task:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        watched.stepped.cancel()
        await watched.over.wait()
        assert seen == [True]
        assert isinstance(watched.endings[0], asyncio.CancelledError)
        assert len(watched.endings) == 1

    run(test())


def test_a_failed_future_arrives_too(run: Run) -> None:
    """The exception of an awaited future is raised in the coroutine, which may handle it."""

    async def test() -> None:
        seen: list[object] = []
        future = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await future
            except LookupError as exc:
                seen.append(exc.args[0])
            raise KeyError("after")

        watched = Watched(work())
        watched.stepped.go_on()
        future.set_exception(LookupError("broken"))
        await watched.over.wait()
        assert seen == ["broken"]
        assert isinstance(watched.endings[0], KeyError)

    run(test())
