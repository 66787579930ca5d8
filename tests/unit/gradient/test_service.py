"""Deployments among themselves and with the registry: what races, what a store that is gone does, and what other workers report."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.doors import DOOR
from dragoman.serving.gateway import Gateway
from dragoman.serving.gradient.logs import Logs
from dragoman.serving.gradient.models import Model
from dragoman.serving.gradient.records import Record, State
from dragoman.serving.gradient.service import GradientDeployments
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import versions_of
from dragoman.store import Edit
from tests.fakes_store import FakeStore

FIELDS = {"name": "x", "modelId": "iris"}


class FakeModels:
    """Finds one model for every deployment, as soon as it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.failure: ServingError | None = None

    async def fetched(self, fields: Mapping[str, Any], deployment: str) -> dict[str, Any]:
        return dict(fields)

    async def find(self, record: Record) -> Model:
        await self.may.wait()
        if self.failure is not None:
            raise self.failure
        return Model("1", f"r{record.instances}", {"model": "iris", "version": "1"})


class World:
    """Deployments of one worker. Nobody loads: a test that wants a wish applied says so."""

    def __init__(self, folder: Path) -> None:
        self.store = FakeStore()

        async def opened() -> FakeStore:
            return self.store

        late = LateStore(opened, lambda: True)
        self.registry = Registry(late)
        self.gateway = Gateway(Meters())
        self.models = FakeModels()
        self.logs = Logs(folder)
        self.deployments = GradientDeployments(late, self.registry, self.gateway, self.models, self.logs)  # type: ignore[arg-type] # a fake

    def wanted(self, deployment: str) -> bool:
        return bool(versions_of(self.registry.document(deployment)))

    def applied(self, deployment: str, **failures: str) -> None:
        """Say what the reconciler would: it is done, but for what failed."""
        self.registry.report(deployment, {version.removeprefix("v"): reason for version, reason in failures.items()})


def run(folder: Path, test: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(folder)
        try:
            await test(world)
        finally:
            await world.deployments.close()

    asyncio.run(main())


def test_what_is_wished_for(tmp_path: Path) -> None:
    """The model under the deployment's id, with what its door says; nothing once it is stopped."""

    async def test(world: World) -> None:
        record = await world.deployments.create({**FIELDS, "authUsername": "joe", "authPassword": "geheim", "instanceCount": 2})
        document = world.registry.document(record.id)
        assert versions_of(document) == {"1": {"revision": "r2", "origin": {"model": "iris", "version": "1"}}}
        assert document[DOOR]["lock"]["user"] == "joe"
        assert record.generation == world.registry.generation(record.id) > 0
        await world.deployments.stop(record.id)
        assert world.registry.document(record.id) == {}

    run(tmp_path, test)


def test_a_start_that_comes_too_late_for_a_deletion_serves_nothing(tmp_path: Path) -> None:
    """Also when its wish comes after that of the deletion."""

    async def test(world: World) -> None:
        record = await world.deployments.create(FIELDS)
        world.models.may.clear()
        starting = asyncio.ensure_future(world.deployments.start(record.id))
        await asyncio.sleep(0)
        await world.deployments.delete(record.id)
        world.models.may.set()
        with pytest.raises(ServingError) as refusal:
            await starting
        assert (refusal.value.kind, refusal.value.what) == (Kind.NOT_FOUND, "deployment")
        assert not world.wanted(record.id)
        assert await world.deployments.all() == []

    run(tmp_path, test)


def test_a_record_that_goes_while_it_is_wished_for_takes_the_wish_with_it(tmp_path: Path) -> None:
    """The last look at the record decides."""

    async def test(world: World) -> None:
        record = await world.deployments.create(FIELDS)
        real = world.store.edit_document

        async def deleted_before(kind: str, key: str, edit: Edit, *, group: str = "", rings: bool = False) -> Mapping[str, Any]:
            if world.wanted(record.id):  # the edit after the wish: somebody else's deletion comes just before it
                world.store.edit_document = real  # type: ignore[method-assign] # this fake's own method, put back
                await world.deployments.delete(record.id)
            return await real(kind, key, edit, group=group)

        await world.deployments.stop(record.id)
        world.store.edit_document = deleted_before  # type: ignore[method-assign] # the moment in between, which no other door reaches
        with pytest.raises(ServingError):
            await world.deployments.start(record.id)
        assert not world.wanted(record.id)

    run(tmp_path, test)


def test_states_while_it_loads_and_when_it_cannot(tmp_path: Path) -> None:
    """Not running before the reconciler has done its work; withdrawn with its reason when it failed, and tried again by a start."""

    async def test(world: World) -> None:
        record = await world.deployments.create(FIELDS)
        assert (await world.deployments.status(record)).state is State.PROVISIONING
        world.applied(record.id, v1="it is spoilt")
        async with asyncio.timeout(10):
            while world.wanted(record.id):
                await asyncio.sleep(0)
            world.applied(record.id)
            while "it is spoilt" not in "".join(row.message for row in world.logs.read(record.id)):
                await asyncio.sleep(0)
        found = await world.deployments.status(await world.deployments.one(record.id))
        assert (found.state, found.reason) == (State.ERROR, "it is spoilt")
        await world.deployments.start(record.id)
        assert world.wanted(record.id)

    run(tmp_path, test)


def test_what_cannot_be_found_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """A bad change of one that runs, a bad start of one that is stopped."""

    async def test(world: World) -> None:
        record = await world.deployments.create(FIELDS)
        world.models.failure = ServingError(Kind.NOT_FOUND, "there is no such model", what="model")
        with pytest.raises(ServingError, match="no such model"):
            await world.deployments.update(record.id, {"modelId": "nobody", "name": "y"})
        kept = await world.deployments.one(record.id)
        assert kept.fields == record.fields
        assert world.wanted(record.id)
        stopped = await world.deployments.stop(record.id)
        with pytest.raises(ServingError, match="no such model"):
            await world.deployments.start(record.id)
        assert await world.deployments.one(record.id) == stopped
        assert (await world.deployments.update(record.id, {"name": "y"})).get("name") == "y", "what is stopped need not be found"

    run(tmp_path, test)


def test_without_its_store(tmp_path: Path) -> None:
    """Every call says so; nothing is served that is not known."""

    async def test(world: World) -> None:
        record = await world.deployments.create(FIELDS)
        world.store.failure = ServingError(Kind.UNAVAILABLE, "the database is gone")
        for call in (
            world.deployments.create(FIELDS),
            world.deployments.start(record.id),
            world.deployments.stop(record.id),
            world.deployments.delete(record.id),
            world.deployments.all(),
            world.deployments.one(record.id),
        ):
            with pytest.raises(ServingError, match="the database is gone"):
                await call
        world.store.failure = None
        assert [each.id for each in await world.deployments.all()] == [record.id]

    run(tmp_path, test)


def test_ids_that_are_none_are_not_looked_up(tmp_path: Path) -> None:
    """Whatever a path may hold."""

    async def test(world: World) -> None:
        for name in ("", "x", "../x", "des", "desAAAAAAAAAAAA", "des\0aaaaaaaaaaa", "desaaaaaaaaaaaa\n"):
            with pytest.raises(ServingError, match="there is no deployment"):
                await world.deployments.one(name)

    run(tmp_path, test)
