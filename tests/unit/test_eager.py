"""Stepping a coroutine without a task: the rest in a task behaves as if it had been in one from the start."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from dragoman.server.eager import step

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on a loop of each kind."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(asyncio.wait_for(test, 20))

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_what_does_not_suspend_is_over() -> None:
    """A coroutine that ends in its first step needs no task, and no loop."""
    seen = []

    async def work() -> None:
        seen.append(1)

    assert step(work()) is None
    assert seen == [1]


def test_what_raises_at_once_raises_here() -> None:
    """An exception of the first step comes out of `step`."""

    async def work() -> None:
        raise LookupError("at once")

    with pytest.raises(LookupError, match="at once"):
        step(work())


def test_the_rest_goes_on_in_a_task(run: Run) -> None:
    """Futures, bare yields, tasks, timers and time-outs work after the first suspension."""
    seen: list[object] = []

    async def work(first: Awaitable[object]) -> None:
        seen.append(await first)
        await asyncio.sleep(0)
        seen.append(await asyncio.create_task(asyncio.sleep(0, "task")))
        async with asyncio.timeout(10):
            seen.append(await asyncio.sleep(0.001, "timer"))
        seen.append(asyncio.current_task())

    async def test() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.set_result("done")
        later = loop.create_future()
        loop.call_soon(later.set_result, "later")
        for first, expected in ((later, "later"), (done, "done"), (asyncio.sleep(0, "yield"), "yield")):
            seen.clear()
            rest = step(work(first))
            assert rest is not None
            task = asyncio.create_task(rest)
            await task
            assert seen == [expected, "task", "timer", task]

    run(test())


def test_a_failed_future_is_raised_where_it_is_awaited(run: Run) -> None:
    """The exception of the first future arrives in the coroutine, which may handle it and go on."""
    seen: list[object] = []

    async def work(first: Awaitable[object], again: bool) -> None:
        try:
            await first
        except LookupError as exc:
            seen.append(exc.args[0])
        if again:
            await asyncio.sleep(0)
            raise KeyError("later")

    async def test() -> None:
        for again in (False, True):
            future = asyncio.get_running_loop().create_future()
            rest = step(work(future, again))
            assert rest is not None
            task = asyncio.create_task(rest)
            future.set_exception(LookupError("broken"))
            if again:
                with pytest.raises(KeyError, match="later"):
                    await task
            else:
                await task
        assert seen == ["broken", "broken"]

    run(test())


@pytest.mark.parametrize("started", [False, True])
def test_cancelling_cancels_what_is_awaited(run: Run, started: bool) -> None:
    """A cancellation, also one before the task's first step, cancels the awaited future and then arrives in the coroutine."""
    seen: list[object] = []

    async def work(first: "asyncio.Future[None]") -> None:
        try:
            await first
        except asyncio.CancelledError:
            seen.append(first.cancelled())
            await asyncio.sleep(0)
            seen.append("cleaned up")
            raise

    async def test() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rest = step(work(future))
        assert rest is not None
        task = asyncio.create_task(rest)
        if started:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert seen == [True, "cleaned up"]

    run(test())


@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("what", ["done", "yield"])
def test_cancelling_when_there_is_nothing_to_cancel(run: Run, what: str, swallow: bool) -> None:
    """If the awaited future is over already, or was only a yield, the cancellation is raised inside; the coroutine may refuse it."""
    seen: list[object] = []

    async def work(first: Awaitable[None], more: bool) -> None:
        try:
            await first
        except asyncio.CancelledError:
            seen.append("cancelled")
            if not swallow:
                raise
        if more:
            await asyncio.sleep(0)
            seen.append("more")

    async def test() -> None:
        for more in (False, True):
            seen.clear()
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            rest = step(work(future if what == "done" else asyncio.sleep(0), more))
            assert rest is not None
            future.set_result(None)
            task = asyncio.create_task(rest)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() != swallow
            assert seen == ["cancelled", *(["more"] if swallow and more else [])]

    run(test())


def test_cancelled_again_while_cleaning_up(run: Run) -> None:
    """Every cancellation arrives, as in a task."""
    seen: list[object] = []

    async def work(first: "asyncio.Future[None]") -> None:
        for wait in (first, asyncio.get_running_loop().create_future(), asyncio.sleep(0)):
            try:
                await wait
            except asyncio.CancelledError:
                seen.append("cancelled")

    async def test() -> None:
        rest = step(work(asyncio.get_running_loop().create_future()))
        assert rest is not None
        task = asyncio.create_task(rest)
        for count in (1, 2):
            task.cancel()
            while len(seen) < count:
                await asyncio.sleep(0)
        await task
        assert seen == ["cancelled", "cancelled"]

    run(test())


def test_a_rest_that_is_never_run_is_closed() -> None:
    """Closing the rest without a loop runs the coroutine's `finally`."""
    seen = []

    class Pause:
        def __await__(self) -> Any:
            yield

    async def work() -> None:
        try:
            await Pause()
        finally:
            seen.append("closed")

    rest = step(work())
    assert rest is not None
    rest.close()
    assert seen == ["closed"]
