"""Writes that the store made although their caller was told that they failed: the line to a database broke at a commit."""

import asyncio
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.core.predictions import Progress
from dragoman.hosting.frames import pack_rows
from dragoman.store import Change
from tests.servables import run, settle
from tests.stores import waiting
from tests.unit.predictions.rig import DOWN, LIMITS, bench, no_sleep

P = Progress


def test_an_accepted_one_that_nobody_was_told_of(tmp_path: Path) -> None:
    """Its client got no id. It is not held for ever by a worker that does not know it: it runs once its lease is over."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            known = await it.submit()
            await it.asked(1)
            it.fake.unheard = 1
            with pytest.raises(ServingError, match="the line broke"):
                await it.submit()
            for _ in range(5):  # the worker goes on renewing what it knows
                it.pass_time(LIMITS.lease_s / 2)
                await it.service.beat()
            await it.asked(2)
            it.servable.finish(0, {"y": 1})
            it.servable.finish(1, {"y": 2})
            await it.reach(known, P.SUCCEEDED)
            assert (await it.stored(known)).attempt == 1

    run(scenario)


def test_a_start_that_was_stored(tmp_path: Path) -> None:
    """The worker goes on with it, and what it prints is stored later."""

    async def scenario() -> None:
        async with bench(tmp_path, sleep=no_sleep) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.unheard = 1
            it.servable.start(0, "hello\n")
            await it.stored_as(key, P.RUNNING)
            await it.service.beat()
            assert it.fake.unheard == 0
            assert it.servable.cancelled == 0
            it.servable.finish(0, {"y": 1})
            view = await it.reach(key, P.SUCCEEDED)
            assert (view.outputs, view.logs) == ([{"y": 1}], "hello\n")
            assert it.ended == [("m", P.SUCCEEDED)]

    run(scenario)


@pytest.mark.parametrize("times", [1, 3])
def test_an_ending_that_was_stored(times: int, tmp_path: Path) -> None:
    """It is what callers see and what is counted, once; its webhook is called."""

    async def scenario() -> None:
        async with bench(tmp_path, sleep=no_sleep) as it:
            key = await it.submit(webhook="http://hook.test/")
            await it.asked(1)
            it.fake.unheard = times
            it.servable.finish(0, {"y": 1})
            assert (await it.service.wait(key, 10)).outputs == [{"y": 1}]
            await settle(lambda: len(it.posted.calls) == 1)
            assert it.ended == [("m", P.SUCCEEDED)]
            assert it.fake.unheard < times

    run(scenario)


def test_an_ending_elsewhere_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """After a failure of the store, too: what somebody else decided meanwhile stands, and is counted once."""

    paused, go_on = asyncio.Event(), asyncio.Event()

    async def sleep(_seconds: float) -> None:
        paused.set()
        await go_on.wait()

    async def scenario() -> None:
        async with bench(tmp_path, sleep=sleep) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.failure = DOWN
            it.servable.finish(0, {"y": 1})
            await paused.wait()
            it.fake.failure = None
            assert await it.store.change_prediction(Change(key, P.CANCELLED, error="Canceled", finished=1.0))
            go_on.set()
            assert (await it.reach(key, P.CANCELLED)).error == "Canceled"
            assert it.ended == []

    run(scenario)


def test_a_claim_that_nobody_was_told_of(tmp_path: Path) -> None:
    """What was claimed waits again when the lease is over, and runs."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            one = waiting(inputs=pack_rows([{"x": 1}]))
            await it.store.add_prediction(one)
            it.fake.unheard = 1
            await it.service.beat()
            assert (await it.stored(one.id)).progress is P.CLAIMED
            assert it.servable.asked == []
            it.pass_time(LIMITS.lease_s + 1)
            await it.service.beat()
            await it.service.beat()
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await it.reach(one.id, P.SUCCEEDED)
            assert (await it.stored(one.id)).attempt == 2

    run(scenario)
