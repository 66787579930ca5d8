"""What every worker knows of the jobs: by endpoint and project, at once for its own changes, by the store's bell for those of others."""

import asyncio
from dataclasses import replace
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Phase
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.watch import Watch
from dragoman.serving.late_store import LateStore
from tests.fakes_jobs import PATIENCE_S, World
from tests.fakes_store import FakeStore


def test_jobs_are_found_by_endpoint_and_project(tmp_path: Path) -> None:
    """Those that have ended by their endpoint only: they are gone, not unknown."""

    async def body() -> None:
        world = World(tmp_path)
        first, second, other = await world.submit(), await world.submit(), await world.submit(project="y")
        board = world.board
        assert board.at(first.endpoint) == first
        assert board.at("nothing") is None
        assert board.of_project("me", "x") == [first, second]
        assert board.of_project("me", "y") == [other]
        assert board.of_project("you", "x") == []
        over = await world.kept.edit(first.id, lambda job: job.to(Phase.FAILED, "it crashed"))
        assert board.at(first.endpoint) == over
        assert board.of_project("me", "x") == [second]
        assert board.folder(second) == world.jobs.folder(second)

    asyncio.run(body())


def test_whoever_waits_hears_of_a_change(tmp_path: Path) -> None:
    """Of this job; of none, the time-out ends the wait."""

    async def body() -> None:
        world = World(tmp_path)
        job, other = await world.submit(), await world.submit()
        waiting = asyncio.create_task(world.board.changed(job, PATIENCE_S))
        await world.kept.edit(other.id, lambda now: now.to(Phase.FAILED))
        assert not waiting.done()
        changed = await world.kept.edit(job.id, lambda now: now.to(Phase.STARTING))
        assert await waiting == changed
        assert await world.board.changed(job, PATIENCE_S) == changed
        assert await world.board.changed(changed, 0.0) == changed
        gone = asyncio.create_task(world.board.changed(changed, PATIENCE_S))
        await asyncio.sleep(0)
        await world.kept.remove(changed)
        assert await gone is None

    asyncio.run(body())


def test_only_a_sleeping_job_is_woken(tmp_path: Path) -> None:
    """Others are answered as they are; of many requests at once one wakes it."""

    async def body() -> None:
        world = World(tmp_path)
        job = await world.submit()
        assert await world.board.wake(job) == job
        asleep = await world.kept.edit(job.id, lambda now: replace(now, phase=Phase.ASLEEP))
        woken = await asyncio.gather(*(world.board.wake(asleep) for _ in range(5)))
        assert {each.phase for each in woken} == {Phase.QUEUED}

    asyncio.run(body())


def test_a_store_that_is_down_at_the_start_is_tried_again(tmp_path: Path) -> None:
    """What it has is shown once it answers; a lone worker then needs to look no more."""

    async def body() -> None:
        store = FakeStore()
        world = World(tmp_path, store=store)
        job = await world.submit()

        async def opened() -> FakeStore:
            return store

        board = Board(tmp_path)
        watch = Watch(Kept(LateStore(opened, lambda: True), board), alone=True)
        store.failure = ServingError(Kind.UNAVAILABLE, "the database is away")
        await watch.start()
        assert board.jobs() == []
        store.failure = None
        async with asyncio.timeout(PATIENCE_S):
            while board.jobs() != [job]:
                await board.changes.after(board.changes.count, 0.05)
        await watch.close()

    asyncio.run(body())


def test_other_workers_hear_of_jobs(tmp_path: Path) -> None:
    """Of new ones, of changes and of deletions, over the store they share; jobs of another data directory are not theirs."""

    async def body() -> None:
        store = FakeStore()
        here, elsewhere = World(tmp_path / "here", store=store), World(tmp_path / "elsewhere", store=store)
        before = await here.submit()

        async def opened() -> FakeStore:
            return store

        board = Board(tmp_path / "here")
        watch = Watch(Kept(LateStore(opened, lambda: True), board), alone=False)
        await watch.start()
        assert board.at(before.endpoint) == before
        job = await here.submit()
        await elsewhere.submit()
        async with asyncio.timeout(PATIENCE_S):
            while board.at(job.endpoint) != job:
                await board.changes.after(board.changes.count, 0.05)
            stopped = await here.jobs.stop(job)
            while board.at(job.endpoint) != stopped:
                await board.changes.after(board.changes.count, 0.05)
            await here.kept.remove(stopped)
            while board.at(job.endpoint) is not None:
                await board.changes.after(board.changes.count, 0.05)
        assert board.jobs() == [before]
        await watch.close()

    asyncio.run(body())


def test_who_asks_for_a_job_that_is_not_known_yet_sees_what_is_written_until_then(tmp_path: Path) -> None:
    """However late the bell is: an endpoint that somebody was just told is not unknown on another worker. Many who ask share a look."""

    async def body() -> None:
        store = FakeStore()
        here = World(tmp_path, store=store)

        async def opened() -> FakeStore:
            return store

        board = Board(tmp_path)
        await board.catch_up()
        watch = Watch(Kept(LateStore(opened, lambda: True), board), alone=False)
        for _ in range(2):  # it is not even started
            job = await here.submit()
            await asyncio.gather(*(board.catch_up() for _ in range(20)))
            assert board.at(job.endpoint) == job
        await watch.close()

    asyncio.run(body())
