"""What is removed now and then in the process that runs the jobs (serving/jobs/sweeping.py)."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.jobs import Mode
from dragoman.serving.jobs.board import Board
from dragoman.serving.jobs.code import Code, Home
from dragoman.serving.jobs.data_records import DataState
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.kept import Kept
from dragoman.serving.jobs.service import Allowed, Jobs, Submission
from dragoman.serving.jobs.sweeping import Sweeping
from tests.fakes_store import FakeStore
from tests.jobs_files import FORM, archive, form, late, pieces, run, until


class Place:
    """The parts of a server, as server/jobs.py puts them together."""

    def __init__(self, folder: Path) -> None:
        self.now = 1e9
        self.fake = FakeStore()
        store = late(self.fake)
        board = Board(folder / "jobs")
        self.jobs = Jobs(Kept(store, board), Allowed())
        self.code = Code(store, folder / "jobs" / "files", board.make_place, clock=lambda: self.now)
        self.data = DataSets(store, folder / "jobs", board.make_place)
        self.sweeping = Sweeping(self.jobs, self.code, self.data)

    async def upload(self, content: bytes) -> str:
        async def accept(said: Mapping[str, Any]) -> Home:
            project = await self.jobs.look_up_project("alice", "x", create=True)
            return Home("alice", "x", project.id)

        return (await self.code.add(pieces(form({"./app.py": content})), FORM, accept)).id


def test_code_of_jobs_is_kept(tmp_path: Path) -> None:
    """Also of ended ones, which may be restarted; what no job was made of goes after a day."""

    async def go() -> None:
        place = Place(tmp_path)
        used, unused = await place.upload(b"1"), await place.upload(b"2")
        project = await place.jobs.look_up_project("alice", "x")
        await place.jobs.submit(Submission(project.id, used, Mode.SERVE))
        place.now += 100_000
        await place.sweeping.sweep()
        assert (await place.code.module(used)).id == used
        with pytest.raises(ServingError, match="there is no code"):
            await place.code.module(unused)

    run(go())


def test_at_the_start_of_a_server(tmp_path: Path) -> None:
    """It goes on with what the last one left."""

    async def go() -> None:
        place = Place(tmp_path)
        await place.data.close()
        found = await place.data.look_up("alice", "x", create=True)
        version = await place.data.create(found.id)
        _, token = await place.data.uploads.credentials(version.id)
        content = archive(("a", b"1"))
        await place.data.uploads.begin(version.id, token, len(content))
        await place.data.uploads.append(version.id, token, 0, pieces(content))
        data = DataSets(late(place.fake), tmp_path / "jobs", Board(tmp_path / "jobs").make_place)
        sweeping = Sweeping(place.jobs, place.code, data)
        sweeping.start()

        async def state() -> DataState:
            document = await place.fake.document("floyd_data", version.id)
            assert document is not None
            return DataState(document["state"])

        await until(state, lambda now: now is DataState.VALID)
        await sweeping.close()
        await data.close()

    run(go())


def test_a_store_that_is_away(tmp_path: Path) -> None:
    """Sweeping is tried again later; it ends when it is told to."""

    async def go() -> None:
        place = Place(tmp_path)
        await place.upload(b"1")
        place.fake.failure = ServingError(Kind.UNAVAILABLE, "away")
        place.sweeping.start()
        await asyncio.sleep(0)
        await place.sweeping.close()
        await Place(tmp_path).sweeping.close()

    run(go())
