"""Several workers, one set of model processes: who has leases, whose requests meet, and who decides that a process must die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, ModelSpec
from dragoman.core.spec_json import spec_to_json
from dragoman.engines import Context, Engines
from dragoman.engines.keeper import Event, Keeper, Keeping
from dragoman.engines.keeping import KeeperService, RemoteKeeper
from dragoman.engines.remote import RemoteServable
from dragoman.hosting.frames import Kind as FrameKind
from dragoman.hosting.frames import encode
from tests.contract.test_engines import failure, out, until
from tests.contract.test_process_engine import alive, pids
from tests.scripted import noted, rows, runs, scripted_runtime
from tests.servables import run


@asynccontextmanager
async def workers(kind: str, folder: Path, count: int = 2) -> AsyncIterator[list[Keeping]]:
    """The keeper as `count` workers see it: the very object, or over a socket."""
    sockets = folder / "run"
    sockets.mkdir(mode=0o700)
    keeper = Keeper(folder=sockets)
    with scripted_runtime(folder):
        if kind == "here":
            try:
                yield [keeper] * count
            finally:
                await keeper.close()
            return
        service = KeeperService(keeper, sockets / "keeper")
        await service.start()
        try:
            yield [RemoteKeeper(str(sockets / "keeper")) for _ in range(count)]
        finally:
            await service.close()


def spec(folder: Path, **changes: Any) -> ModelSpec:
    arguments = {"journal": str(folder / "journal"), **changes.pop("arguments", {})}
    return ModelSpec(
        "m",
        runtime="scripted",
        engine="process",
        batch=BatchPolicy(max_size=8, levels=2, default_level=1, level_max_queue={2: 1}),
        arguments=arguments,
        **changes,
    )


async def arrived(servable: RemoteServable) -> None:
    """Wait until the process has all that was sent to it before: it refuses a second request of a level that takes one."""
    asked: list[asyncio.Task[object]] = []
    before = servable.pending()
    while not any(each.done() for each in asked):
        asked.append(asyncio.ensure_future(servable.infer(rows({}, priority=2))))
        await asyncio.sleep(0.001)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert servable.pending() == before


def both(kind: str, folder: Path, test: Callable[[RemoteServable, RemoteServable], Awaitable[None]], **changes: Any) -> None:
    """Two workers that serve the same model."""

    async def whole() -> None:
        async with workers(kind, folder) as (one, other):
            of = spec(folder, **changes)
            servables = await asyncio.gather(RemoteServable.open(of, one), RemoteServable.open(of, other))
            try:
                await test(*servables)
            finally:
                for gate in ("gate", "second"):
                    (folder / gate).touch()
                await asyncio.gather(*(each.close() for each in servables))
                await until(lambda: not any(alive(pid) for pid in pids(folder)))

    run(whole)


KINDS = pytest.mark.parametrize("kind", ["here", "over a socket"])


@KINDS
def test_requests_of_all_workers_meet_in_one_batch(kind: str, tmp_path: Path) -> None:
    """And each gets its own answer."""

    async def test(one: RemoteServable, other: RemoteServable) -> None:
        first = asyncio.ensure_future(one.infer(rows({"name": "first", "do": "gate", "gate": str(tmp_path / "gate")})))
        await until(lambda: runs(tmp_path) == [["first"]])
        asked = [asyncio.ensure_future(each.infer(rows({"name": f"{n}", "value": n}))) for n, each in enumerate((one, other, one, other))]
        await until(lambda: one.pending() == other.pending() == 2)
        await asyncio.gather(arrived(one), arrived(other))
        (tmp_path / "gate").touch()
        assert [out(await each) for each in asked] == [[0], [1], [2], [3]]
        await first
        assert sorted(name for names in runs(tmp_path)[1:] for name in names if name) == ["0", "1", "2", "3"]
        responses = [await each for each in asked]
        assert max(r.timings.batch_size for r in responses) > 2
        assert len(pids(tmp_path)) == 1

    both(kind, tmp_path, test)


@KINDS
def test_a_death_is_told_to_every_worker(kind: str, tmp_path: Path) -> None:
    """What each had running fails, what each had waiting runs in the next process."""

    async def test(one: RemoteServable, other: RemoteServable) -> None:
        first = asyncio.ensure_future(one.infer(rows({"name": "first", "do": "gate", "gate": str(tmp_path / "gate")})))
        await until(lambda: runs(tmp_path) == [["first"]])
        waits = [asyncio.ensure_future(each.infer(rows({"value": 1}))) for each in (one, other)]
        await until(lambda: one.pending() == other.pending() == 1)
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        assert "signal 9" in (await failure(first)).message
        assert [out(await each) for each in waits] == [[1], [1]]
        assert len(pids(tmp_path)) == 2

    both(kind, tmp_path, test)


@KINDS
def test_processes_stay_while_somebody_has_a_lease(kind: str, tmp_path: Path) -> None:
    """The last one who leaves ends them; whoever comes then gets new ones."""

    async def test() -> None:
        async with workers(kind, tmp_path) as (one, other):
            servables = [await RemoteServable.open(spec(tmp_path), each) for each in (one, other)]
            await servables[0].close()
            assert out(await servables[1].infer(rows({"value": 1}))) == [1]
            assert alive(pids(tmp_path)[0])
            await servables[1].close()
            await until(lambda: not alive(pids(tmp_path)[0]))
            assert len(noted(tmp_path, "close")) == 1
            again = await RemoteServable.open(spec(tmp_path), one)
            assert len(pids(tmp_path)) == 2
            await again.close()

    run(test)


@KINDS
def test_a_load_that_fails_is_told_to_everybody_who_waits(kind: str, tmp_path: Path) -> None:
    """There is one attempt, and afterwards another may be made."""

    async def test() -> None:
        async with workers(kind, tmp_path) as (one, other):
            broken = spec(tmp_path, arguments={"setup": [{"do": "raise", "text": "no weights"}]})
            results = await asyncio.gather(*(RemoteServable.open(broken, each) for each in (one, other)), return_exceptions=True)
            for result in results:
                assert isinstance(result, ServingError)
                assert (result.kind, result.message) == (Kind.MODEL_FAILED, "model 'm' failed: ValueError: no weights")
            assert len(pids(tmp_path)) == 1
            with pytest.raises(ServingError):
                await RemoteServable.open(broken, one)
            assert len(pids(tmp_path)) == 2

    run(test)


@KINDS
def test_one_worker_may_give_up_while_another_waits_for_the_load(kind: str, tmp_path: Path) -> None:
    """The load goes on for the other; when nobody waits any more it ends."""

    async def test() -> None:
        async with workers(kind, tmp_path) as (one, other):
            slow = spec(tmp_path, arguments={"setup": [{"do": "gate", "gate": str(tmp_path / "gate")}]})
            opening = [asyncio.ensure_future(RemoteServable.open(slow, each)) for each in (one, other)]
            await until(lambda: bool(pids(tmp_path)))
            opening[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening[0]
            (tmp_path / "gate").touch()
            servable = await opening[1]
            assert len(pids(tmp_path)) == 1
            await servable.close()
            (tmp_path / "gate").unlink()
            alone = asyncio.ensure_future(RemoteServable.open(slow, one))
            await until(lambda: len(pids(tmp_path)) == 2)
            alone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await alone
            await until(lambda: not alive(pids(tmp_path)[1]))

    run(test)


@KINDS
def test_a_process_is_not_killed_while_another_worker_waits_for_it(kind: str, tmp_path: Path) -> None:
    """Native code holds the interpreter; the worker that has cancelled complains, the other one objects and gets its answer."""

    async def test(one: RemoteServable, other: RemoteServable) -> None:
        first = asyncio.ensure_future(one.infer(rows({"name": "first", "do": "gate", "gate": str(tmp_path / "gate")})))
        await until(lambda: runs(tmp_path) == [["first"]])
        leaves = asyncio.ensure_future(one.infer(rows({"name": "a"})))
        await until(lambda: one.pending() == 1)
        stays = asyncio.ensure_future(other.infer(rows({"name": "b", "do": "busy for long", "value": 2})))
        await until(lambda: other.pending() == 1)
        await asyncio.gather(arrived(one), arrived(other))
        (tmp_path / "gate").touch()
        await until(lambda: len(runs(tmp_path)) == 2)
        assert {"a", "b"} <= set(runs(tmp_path)[1])
        await until(lambda: one.pending() == other.pending() == 0)
        leaves.cancel()
        assert out(await stays) == [2]
        await first
        assert len(pids(tmp_path)) == 1

    both(kind, tmp_path, test, interrupt_grace_s=0.1)


@KINDS
def test_a_process_is_killed_when_no_worker_waits_for_it(kind: str, tmp_path: Path) -> None:
    """The other worker has nothing there that runs, so it does not object."""

    async def test(one: RemoteServable, other: RemoteServable) -> None:
        hangs = asyncio.ensure_future(one.infer(rows({"name": "hangs", "do": "native"})))
        await until(lambda: runs(tmp_path) == [["hangs"]])
        waits = asyncio.ensure_future(other.infer(rows({"value": 1})))
        hangs.cancel()
        assert out(await waits) == [1]
        assert len(pids(tmp_path)) == 2

    both(kind, tmp_path, test, interrupt_grace_s=0.1)


@KINDS
def test_a_crash_loop_is_lost_for_every_worker_and_may_be_tried_again(kind: str, tmp_path: Path) -> None:
    """By whoever asks next."""

    async def test(one: RemoteServable, other: RemoteServable) -> None:
        for _ in range(5):
            await failure(one.infer(rows({"do": "exit"})))
        assert "ended 5 times" in await one.lost()
        assert "ended 5 times" in await other.lost()

    both(kind, tmp_path, test)


def test_leases_end_with_the_connection_of_the_worker(tmp_path: Path) -> None:
    """A worker that was killed says nothing; what it had running is broken off, and its processes end with its last lease."""

    async def test() -> None:
        async with workers("over a socket", tmp_path, 1) as _:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run" / "keeper"))
            writer.writelines(encode(FrameKind.ACQUIRE, {"spec": spec_to_json(spec(tmp_path))}, "hello"))
            await reader.readexactly(24)
            await until(lambda: bool(pids(tmp_path)))
            writer.close()
            await until(lambda: not alive(pids(tmp_path)[0]))

    run(test)


def test_a_worker_that_talks_nonsense_is_dropped(tmp_path: Path) -> None:
    """The keeper goes on for the others."""

    async def test() -> None:
        async with workers("over a socket", tmp_path, 1) as (keeper,):
            for nonsense in (
                b"GET / HTTP/1.1\r\n\r\n" * 3,
                b"".join(map(bytes, encode(FrameKind.INFER, {}, "hello"))),
                b"".join(map(bytes, encode(FrameKind.ACQUIRE, {"spec": {"colour": "red"}}, "hello"))),
                b"".join(map(bytes, encode(FrameKind.COMPLAINT, {}, "hello"))),
            ):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "run" / "keeper"))
                writer.write(nonsense)
                assert await reader.read() == b""
                writer.close()
            servable = await RemoteServable.open(spec(tmp_path), keeper)
            assert out(await servable.infer(rows({"value": 1}))) == [1]
            await servable.close()

    run(test)


def test_a_keeper_that_is_gone_is_a_loss(tmp_path: Path) -> None:
    """A worker cannot have processes without it, and says why."""

    async def test() -> None:
        async with workers("over a socket", tmp_path, 1) as (keeper,):
            servable = await RemoteServable.open(spec(tmp_path), keeper)
        assert await servable.lost() == "the keeper of the model processes is gone"
        assert (await failure(servable.infer(rows({})))).kind is Kind.UNAVAILABLE
        await servable.close()
        engines = Engines(Context(keeper=str(tmp_path / "nowhere")))
        assert "cannot be had" in (await failure(engines.open(spec(tmp_path)))).message
        await engines.close()

    run(test)


def test_whoever_asks_hears_of_all_processes_before_the_answer(tmp_path: Path) -> None:
    """So that a servable knows where to connect when it is opened."""

    async def test() -> None:
        async with workers("over a socket", tmp_path, 1) as (keeper,):
            heard: list[Event] = []
            lease = await keeper.acquire(spec(tmp_path, instances=2), heard.append)
            assert [type(event).__name__ for event in heard] == ["Up", "Up"]
            assert lease.facts.platform == "scripted"
            await lease.release()

    run(test)
