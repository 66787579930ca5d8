"""Several workers of one server over one store, in one event loop: registries, reconcilers and watches with openers of fakes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from dragoman.core.errors import ServingError
from dragoman.serving.deployments import Deployments
from dragoman.serving.members import Members
from dragoman.serving.watch import Watch
from dragoman.store import RegisteredModel, Store, StoredVersion
from tests.fakes_store import FakeStore
from tests.servables import Parts, run


class FakeWorker(Parts):
    """One worker. `place` is the folder of the server; None for one that is alone on its store."""

    def __init__(self, store: Store, place: Path | None = None, *, lease_s: float = 30.0, **options: Any) -> None:
        members = None if place is None else Members(place / "owners", place / "run", alone=False, lease_s=lease_s)
        super().__init__(store=store, members=members, **options)
        self.watch = Watch(self.registry, self.late)
        self.deployments = Deployments(self.late, self.registry, self.gateway)

    async def start(self) -> None:
        """As server/loading.py does: know what is wished for, then wait until it is there."""
        await self.watch.start()
        for name in self.registry.names():
            await self.registry.settled(name)

    async def close(self) -> None:
        await self.deployments.close()
        await self.reconciler.close()
        await self.watch.close()

    def serves(self, name: str = "iris") -> list[str]:
        """The versions that answer here."""
        return [entry.version for entry in self.gateway.entries() if entry.name == name]


W = TypeVar("W", bound=FakeWorker)


def with_worker(test: Callable[[FakeWorker], Awaitable[None]], **options: Any) -> None:
    """Run a test with one worker that is alone on a store in memory."""
    with_made(lambda: [FakeWorker(FakeStore(), **options)], lambda workers: test(workers[0]))


def with_workers(
    place: Path, count: int, test: Callable[[list[FakeWorker]], Awaitable[None]], store: Store | None = None, **options: Any
) -> None:
    """Run a test with several."""
    (place / "run").mkdir()
    shared = store or FakeStore()
    with_made(lambda: [FakeWorker(shared, place, **options) for _ in range(count)], test)


def with_made(make: Callable[[], list[W]], test: Callable[[list[W]], Awaitable[None]]) -> None:
    """Run a test with workers that are made on the loop, all started; everything that was opened is closed in the end."""

    async def whole() -> None:
        workers = make()
        try:
            await asyncio.gather(*(worker.start() for worker in workers))
            await test(workers)
        finally:
            for worker in workers:
                await worker.close()
        for worker in workers:
            assert [s.closed for s in worker.opener.opened] == [1] * len(worker.opener.opened)

    run(whole)


async def register(store: Store, *versions: str, model: str = "iris", stage: str = "") -> None:
    """Put versions into the registry."""
    if await store.model(model) is None:
        await store.add_model(RegisteredModel(model, 1.0))
    for version in versions:
        await store.add_version(StoredVersion(model, version, f"digest of {version}", float(version), stage=stage))


async def stages(store: Store, model: str = "iris") -> dict[str, str]:
    return {v.version: v.stage for v in await store.versions(model)}


async def reason_of(call: Awaitable[object]) -> tuple[str, str, str]:
    """Kind, what and message of the error that a call ends with."""
    try:
        await call
    except ServingError as error:
        return error.kind.name, error.what, error.message
    raise AssertionError("it did not fail")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that threads or time bring; the test's own time-out ends it."""
    while not condition():
        await asyncio.sleep(0.002)
