"""Who is waited for: counted workers that live, those of this server that are not counted yet, and nobody who is dead."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from dragoman.core.errors import ServingError
from dragoman.serving.members import Members
from tests.fakes_store import FakeStore
from tests.servables import run


class Folder:
    """Servers of one machine: workers of the same server share its folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.made: list[Members] = []

    async def worker(self, server: str = "one", lease_s: float = 30.0) -> Members:
        (self.place / server).mkdir(exist_ok=True)
        members = Members(self.place / "owners", self.place / server, alone=False, lease_s=lease_s)
        await members.show()
        self.made.append(members)
        return members


def with_folder(place: Path, test: Callable[[Folder, FakeStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        folder = Folder(place)
        await test(folder, FakeStore())
        for members in folder.made:
            await members.leave(None)

    run(whole)


def test_workers_see_each_other(tmp_path: Path) -> None:
    """Counted ones of all servers; of their own server also those that have not come to the store yet."""

    async def test(folder: Folder, store: FakeStore) -> None:
        me, neighbour, stranger, unseen = [await folder.worker(server) for server in ("one", "one", "two", "two")]
        for members in (me, stranger):
            assert await members.join(store) is False
        assert await me.others(store, uncounted=True) == {neighbour.name, stranger.name}
        assert await me.others(store, uncounted=False) == {stranger.name}
        assert await me.others(store, uncounted=True, here=True) == {neighbour.name}
        assert await stranger.others(store, uncounted=True, here=True) == {unseen.name}

    with_folder(tmp_path, test)


def test_who_leaves_is_forgotten(tmp_path: Path) -> None:
    """In the store and in the folder; whoever has left cannot ask any more."""

    async def test(folder: Folder, store: FakeStore) -> None:
        me, neighbour = await folder.worker(), await folder.worker()
        await neighbour.join(store)
        await neighbour.leave(store)
        assert await me.others(store, uncounted=True) == set()
        assert await store.workers(now=0.0) == []
        with pytest.raises(ServingError, match="has left"):
            await neighbour.others(store, uncounted=True)
        await neighbour.leave(store)

    with_folder(tmp_path, test)


def test_the_dead_are_removed_by_whoever_looks(tmp_path: Path) -> None:
    """From the store and from the folder of the server."""

    async def test(folder: Folder, store: FakeStore) -> None:
        me = await folder.worker()
        dead = f"{me.name.partition('.')[0]}.{'0' * 32}"
        (tmp_path / "one" / "workers" / dead).touch()
        await store.join(dead, time.time() + 1000)
        assert await me.others(store, uncounted=True) == set()
        assert await store.workers(now=0.0) == []
        assert os.listdir(tmp_path / "one" / "workers") == [me.name]
        assert await me.dead_runs([dead, "another"]) == [dead]

    with_folder(tmp_path, test)


def test_leases_are_renewed_in_time_and_not_with_every_look(tmp_path: Path) -> None:
    """A worker that the store has forgotten hears it."""

    async def test(folder: Folder, store: FakeStore) -> None:
        patient, quick = await folder.worker(), await folder.worker(lease_s=0.0)
        assert await patient.join(store) is False
        await store.leave([patient.name])
        assert await patient.join(store) is True
        assert await store.workers(now=0.0) == []
        assert await quick.join(store) is False
        assert await quick.join(store) is True
        await store.leave([quick.name])
        assert await quick.join(store) is False

    with_folder(tmp_path, test)


@pytest.mark.parametrize("shared", [True, False])
def test_a_data_directory_that_cannot_be_written_stops_nobody(tmp_path: Path, shared: bool) -> None:
    """The workers of the server know each other all the same."""
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()

    async def whole() -> None:
        store = FakeStore()
        made = [Members(tmp_path / "file" / "owners", tmp_path / "run" if shared else None, alone=False) for _ in range(2)]
        for members in made:
            await members.show()
            await members.join(store)
        assert await made[0].others(store, uncounted=True) == {made[1].name}
        for members in made:
            await members.leave(store)
        assert await store.workers(now=0.0) == []

    run(whole)


def test_who_is_alone_writes_nothing(tmp_path: Path) -> None:
    """No folder, no lease."""

    async def whole() -> None:
        store, members = FakeStore(), Members(tmp_path / "owners")
        await members.show()
        assert await members.join(store) is True
        await members.leave(store)
        assert await store.workers(now=0.0) == []
        assert os.listdir(tmp_path) == []

    run(whole)
