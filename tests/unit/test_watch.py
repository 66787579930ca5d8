"""Several workers over one store: every deploy is everybody's, whoever starts, dies, lags behind or loses the store in between."""

import asyncio
import time
from pathlib import Path

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.serving.late_store import LateStore
from dragoman.serving.wishes import entry
from dragoman.store import Store
from tests.fakes_store import FakeStore
from tests.servables import run, settle, spec
from tests.workers import FakeWorker, reason_of, register, stages, until, with_workers

DOWN = ServingError(Kind.UNAVAILABLE, "the server's database is locked")


def test_a_deploy_returns_when_every_worker_serves(tmp_path: Path) -> None:
    """And an undeploy when none does, whichever worker was asked."""

    async def test(workers: list[FakeWorker]) -> None:
        await register(workers[0].store, "1", "2")
        slow = workers[2].opener.hold_version("1")
        serving = asyncio.ensure_future(workers[0].deployments.serve("iris", "1"))
        await until(lambda: workers[0].serves() == workers[1].serves() == ["1"])
        assert not serving.done()
        slow.set()
        await serving
        await workers[1].deployments.serve("iris", "2")
        assert [worker.serves() for worker in workers] == [["1", "2"]] * 3
        await workers[2].deployments.stop("iris", "1")
        assert [worker.serves() for worker in workers] == [["2"]] * 3

    with_workers(tmp_path, 3, test)


def test_a_version_that_fails_in_one_worker_is_withdrawn_everywhere(tmp_path: Path) -> None:
    """A deploy happens as a whole or not at all."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        await register(store, "1", "2")
        await workers[0].deployments.serve("iris", "1")
        workers[1].opener.fails["2"] = RuntimeError("no memory here")
        answer = await reason_of(workers[0].deployments.serve("iris", "2"))
        assert answer == ("UNAVAILABLE", "load", "model 'iris' version 2 failed to load: RuntimeError: no memory here")
        assert [worker.serves() for worker in workers] == [["1"]] * 2
        assert await stages(store) == {"1": "Production", "2": ""}
        reasons = [[d.reason for d in worker.deployments.deployed()] for worker in workers]
        assert reasons == [["RuntimeError: no memory here", ""]] * 2

    with_workers(tmp_path, 2, test)


def test_a_worker_that_starts_later_has_everything_before_it_listens(tmp_path: Path) -> None:
    """Also what is wished for while it starts: it is counted before it reads."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        await register(store, "1", "2")
        await workers[0].deployments.serve("iris", "1")
        late = FakeWorker(store, tmp_path)
        slow = late.opener.hold_version("1")
        starting = asyncio.ensure_future(late.start())
        await until(lambda: late.opener.running == 1)
        serving = asyncio.ensure_future(workers[0].deployments.serve("iris", "2"))
        await until(lambda: workers[0].serves() == ["1", "2"])
        for _ in range(20):
            await asyncio.sleep(0)
        assert not serving.done()
        slow.set()
        await asyncio.gather(starting, serving)
        assert late.serves() == ["1", "2"]
        await late.close()

    with_workers(tmp_path, 1, test)


def test_the_dead_are_not_waited_for(tmp_path: Path) -> None:
    """One of this machine is seen to be dead at once, and removed; one of another machine when its lease is over."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        await register(store, "1")
        place = workers[0].registry.members.name.partition(".")[0]
        dead = f"{place}.{'0' * 32}"
        await store.join(dead, time.time() + 1000)
        await store.join("elsewhere", time.time() + 0.2)
        begin = time.time()
        await workers[0].deployments.serve("iris", "1")
        assert time.time() >= begin + 0.2
        assert dead not in await store.workers(now=0.0)
        assert "elsewhere" in await store.workers(now=0.0)

    with_workers(tmp_path, 1, test)


def test_a_worker_that_leaves_in_the_middle_of_a_deploy_is_not_waited_for(tmp_path: Path) -> None:
    """Those that stay decide."""

    async def test(workers: list[FakeWorker]) -> None:
        await register(workers[0].store, "1")
        workers[1].opener.hold_version("1")
        serving = asyncio.ensure_future(workers[0].deployments.serve("iris", "1"))
        await until(lambda: workers[1].opener.running == 1)
        await workers[1].close()
        await serving

    with_workers(tmp_path, 2, test)


def test_a_worker_whose_lease_was_taken_for_over_comes_back(tmp_path: Path) -> None:
    """It is counted again with all that it has, so that later deploys wait for it and find its reports."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        await register(store, "1", "2")
        await workers[0].deployments.serve("iris", "1")
        await store.leave([workers[1].registry.members.name])
        while len(await store.reports("iris")) < 2:
            workers[1].registry.changes.tell()
            await asyncio.sleep(0.01)
        slow = workers[1].opener.hold_version("2")
        serving = asyncio.ensure_future(workers[0].deployments.serve("iris", "2"))
        await until(lambda: workers[0].serves() == ["1", "2"])
        assert not serving.done()
        slow.set()
        await serving

    with_workers(tmp_path, 2, test, lease_s=0.1)


def test_a_wish_of_the_run_is_everybodys_and_ends_with_the_server(tmp_path: Path) -> None:
    """A target that is unloaded through one worker is unloaded in all, and in one that starts later."""

    async def test(workers: list[FakeWorker]) -> None:
        for worker in workers:
            worker.registry.fix("m", {"1": spec()})
            await worker.registry.settled("m")
        wish = await workers[0].registry.wish("m", lambda _: {}, run="run")
        await workers[0].registry.settled("m", wish.generation, "run")
        assert [worker.serves("m") for worker in workers] == [[], []]
        late = FakeWorker(workers[0].store, tmp_path)
        await late.start()
        late.registry.fix("m", {"1": spec()})
        assert await late.registry.settled("m") == {}
        assert (late.serves("m"), late.opener.begun) == ([], [])
        assert late.statuses() == workers[0].statuses() == [("1", State.GONE, "unloaded")]
        await late.close()

    with_workers(tmp_path, 2, test)


def test_runs_of_servers_that_died_are_forgotten(tmp_path: Path) -> None:
    """Their wishes mean nothing to anybody; those of servers that nobody can judge stay."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        place = workers[0].registry.members.name.partition(".")[0]
        dead = f"{place}.{'f' * 32}"
        for run_id in (dead, "elsewhere"):
            await store.wish("m", lambda _: {"versions": {"1": entry("a", {})}}, run=run_id)
        remaining: list[str] = []
        for _ in range(200):
            remaining = [wish.run for wish in await store.wishes()]
            if remaining == ["elsewhere"]:
                break
            await asyncio.sleep(0.01)
        assert remaining == ["elsewhere"]
        assert workers[0].registry.desired("m") is None

    with_workers(tmp_path, 1, test)


def test_with_the_store_down_workers_serve_on_and_catch_up(tmp_path: Path) -> None:
    """Each sees the store through a connection of its own; the one that could not read reads later."""

    async def test(workers: list[FakeWorker]) -> None:
        store = workers[0].store
        assert isinstance(store, FakeStore)
        await register(store, "1", "2")
        await workers[0].deployments.serve("iris", "1")
        store.failure = DOWN
        assert (await reason_of(workers[1].deployments.serve("iris", "2")))[2] == DOWN.message
        for worker in workers:
            worker.registry.changes.tell()
        await asyncio.sleep(0.02)
        assert [worker.serves() for worker in workers] == [["1"], ["1"]]
        store.failure = None
        await workers[1].deployments.serve("iris", "2")
        assert [worker.serves() for worker in workers] == [["1", "2"]] * 2

    with_workers(tmp_path, 2, test)


def test_a_store_that_is_down_at_the_start_does_not_stop_it(tmp_path: Path) -> None:
    """What was deployed comes when the store does."""

    async def test() -> None:
        store = FakeStore()
        await register(store, "1")
        first = FakeWorker(store)
        await first.deployments.serve("iris", "1")
        await first.close()
        store.failure = DOWN
        second = FakeWorker(store)
        await second.start()
        assert second.serves() == []
        store.failure = None
        await until(lambda: second.serves() == ["1"])
        await second.close()

    run(test)


def test_a_store_that_another_worker_makes_is_noticed(tmp_path: Path) -> None:
    """Nobody opens one before, and the first deploy waits for workers that are not counted in it yet."""
    (tmp_path / "run").mkdir()

    async def test() -> None:
        store = FakeStore()
        made = False

        async def make() -> Store:
            nonlocal made
            made = True
            return store

        workers = [FakeWorker(store, tmp_path, late_store=LateStore(make, lambda: made)) for _ in range(3)]
        slow = workers[2].opener.hold_version("1")
        for worker in workers:
            await worker.start()
        assert not made
        deploying = asyncio.ensure_future(workers[0].deploy(spec()))
        await until(lambda: workers[2].opener.running == 1)
        assert made
        assert not deploying.done()
        slow.set()
        await deploying
        assert [worker.serves("m") for worker in workers] == [["1"]] * 3
        for worker in workers:
            await worker.close()

    run(test)


def test_simultaneous_calls_of_one_version_from_many_clients_and_workers(tmp_path: Path) -> None:
    """Every call ends without an error, no worker opens anything twice at a time, and the last wish is what is served."""

    async def test(workers: list[FakeWorker]) -> None:
        await register(workers[0].store, "1")

        async def client(number: int) -> None:
            deployments = workers[number % len(workers)].deployments
            for turn in range(3):
                await (deployments.serve if (number + turn) % 2 else deployments.stop)("iris", "1")

        await asyncio.gather(*(client(number) for number in range(12)))
        await workers[0].deployments.serve("iris", "1")
        assert [worker.serves() for worker in workers] == [["1"]] * 3
        assert all(worker.opener.most <= 1 for worker in workers)
        await settle(lambda: all(len(worker.opener.open_now()) == 1 for worker in workers))
        await asyncio.gather(*(worker.deployments.stop("iris", "1") for worker in workers))
        assert [worker.serves() for worker in workers] == [[]] * 3

    with_workers(tmp_path, 3, test)
