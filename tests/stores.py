"""Stores and predictions for tests, and the stores over which the contract suite runs."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dragoman.core.predictions import Prediction, Progress
from dragoman.store import Change, Store, StoredVersion
from dragoman.store.sql import open_store, store_url
from tests import postgres
from tests.fakes_store import FakeStore


@dataclass(frozen=True)
class Case:
    """One kind of store. Opening it twice at one place gives two stores on the same content, where `shared`."""

    name: str
    open: Callable[[Path], Awaitable[Store]]
    shared: bool
    begun: Callable[[Path], bool] = lambda _place: False
    """Whether somebody has begun to make a store at a place."""

    def __str__(self) -> str:
        return self.name


async def _memory(_place: Path) -> Store:
    return FakeStore()


async def _sqlite(place: Path) -> Store:
    return await open_store(store_url(place))


async def _postgres(place: Path) -> Store:
    return await open_store(await asyncio.to_thread(postgres.database_of, place))


MEMORY = Case("memory", _memory, shared=False)
SQLITE = Case("sqlite", _sqlite, shared=True, begun=lambda place: any(place.glob("*")))
POSTGRES = Case("postgres", _postgres, shared=True, begun=postgres.has_database)
CASES = [MEMORY, SQLITE, POSTGRES]
SHARED = [case for case in CASES if case.shared]


def with_store(case: Case, place: Path, body: Callable[[Store], Awaitable[None]]) -> None:
    """Run a test with a store that is open for it, in a loop of its own."""

    async def run() -> None:
        store = await case.open(place)
        try:
            async with asyncio.timeout(60):
                await body(store)
        finally:
            await store.close()

    asyncio.run(run())


def with_stores(case: Case, place: Path, count: int, body: Callable[[list[Store]], Awaitable[None]]) -> None:
    """The same with several stores on one content."""

    async def run() -> None:
        stores = [await case.open(place) for _ in range(count)]
        try:
            async with asyncio.timeout(60):
                await body(stores)
        finally:
            for store in stores:
                await store.close()

    asyncio.run(run())


def waiting(**fields: object) -> Prediction:
    """A PENDING prediction with a fresh id."""
    usual: dict[str, object] = {
        "id": uuid.uuid4().hex,
        "model": "m",
        "version": "1",
        "operation": "predict",
        "progress": Progress.PENDING,
        "inputs": b"[1]",
        "created": 100.0,
    }
    return Prediction(**{**usual, **fields})  # type: ignore[arg-type]


def claimed(owner: str = "me", **fields: object) -> Prediction:
    """A CLAIMED one, in its first attempt."""
    usual: dict[str, object] = {"progress": Progress.CLAIMED, "owner": owner, "attempt": 1, "lease_until": 200.0}
    return waiting(**{**usual, **fields})


def ended(progress: Progress = Progress.SUCCEEDED, **fields: object) -> Prediction:
    return claimed(**{"progress": progress, "started": 110.0, "finished": 120.0, **fields})  # type: ignore[arg-type]


def done(prediction: Prediction, **fields: object) -> Change:
    """The change by which its owner ends it well."""
    usual: dict[str, object] = {"progress": Progress.SUCCEEDED, "owner": prediction.owner, "attempt": prediction.attempt, "finished": 130.0}
    return Change(prediction.id, **{**usual, **fields})  # type: ignore[arg-type]


def version(model: str = "m", number: str = "1", **fields: object) -> StoredVersion:
    usual: dict[str, object] = {"digest": "d" * 64, "created": 100.0}
    return StoredVersion(model, number, **{**usual, **fields})  # type: ignore[arg-type]


def as_stored(version: StoredVersion, number: int = 1) -> StoredVersion:
    """As it comes back from a store that it was given to as its `number`th."""
    return replace(version, updated=version.updated or version.created, number=number)
