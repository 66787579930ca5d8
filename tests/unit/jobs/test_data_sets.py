"""Data sets: names and numbers, folders of the server, files of jobs, what is mounted and removed (serving/jobs/data_sets.py)."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from dragoman.core.errors import Kind
from dragoman.serving.jobs.browsing import Content, Entry, Listing
from dragoman.serving.jobs.data_records import DataState, DataVersion, size_text
from dragoman.serving.jobs.data_sets import DataSets
from tests.fakes_store import FakeStore
from tests.jobs_files import archive, contents, late, pieces, refused, run, unpacked, until


class Place:
    """A data directory, with folders of the operator's beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = FakeStore()
        self.root = folder / "root"
        (self.root / "pets" / "cats").mkdir(parents=True)
        (self.root / "pets" / "cats" / "1.txt").write_text("miau")
        (self.root / "list.csv").write_text("1,2")
        (folder / "secret").mkdir()
        (folder / "secret" / "key").write_text("key")
        self.data = self.server(str(self.root))

    def server(self, *roots: str) -> DataSets:
        return DataSets(late(self.store), self.folder / "data" / "jobs", lambda: "here", roots=roots)

    async def set_id(self, name: str = "x") -> str:
        return (await self.data.look_up("alice", name, create=True)).id

    async def uploaded(self, content: bytes, name: str = "x") -> DataVersion:
        version = await self.data.create(await self.set_id(name))
        _, token = await self.data.uploads.credentials(version.id)
        await self.data.uploads.begin(version.id, token, len(content))
        await self.data.uploads.append(version.id, token, 0, pieces(content))
        return await self.valid(version)

    async def valid(self, version: DataVersion) -> DataVersion:
        return await until(lambda: self.data.version(version.id), lambda found: found.state is DataState.VALID)

    def job(self, job_id: str = "J1", part: str = "output") -> Path:
        folder = self.folder / "data" / "jobs" / "run" / job_id / part
        folder.mkdir(parents=True)
        return folder


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- names ---


def test_the_first_look_up_makes_the_set(place: Place) -> None:
    """By its owner; others only find it (requirement F3)."""

    async def go() -> None:
        error = await refused(place.data.look_up("alice", "mnist"))
        assert (error.kind, error.what) == (Kind.NOT_FOUND, "data")
        made = await asyncio.gather(*(place.data.look_up("alice", "mnist", create=True) for _ in range(4)))
        assert len({found.id for found in made}) == 1
        assert made[0].full_name == "alice/datasets/mnist"
        assert await place.data.look_up("alice", "mnist") == await place.data.data_set(made[0].id) == made[0]
        await place.data.look_up("bob", "mnist", create=True)
        assert [found.owner for found in await place.data.data_sets("bob")] == ["bob"]
        assert [found.owner for found in await place.data.data_sets()] == ["alice", "bob"]
        assert (await refused(place.data.data_set("nothing"))).what == "data"

    run(go())


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "ü", "x" * 65, "a\n"])
def test_names_that_none_can_have(name: str, place: Place) -> None:
    """They become parts of paths and URLs."""
    error = run(refused(place.data.look_up("alice", name, create=True)))
    assert error.kind is Kind.INVALID_INPUT


def test_numbers(place: Place) -> None:
    """From 1, each once, also when many ask at the same time; those of another set do not matter."""

    async def go() -> None:
        found = await place.set_id()
        versions = await asyncio.gather(*(place.data.create(found, "m") for _ in range(5)))
        assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5]
        assert (await place.data.create(await place.set_id("other"))).name == "alice/datasets/other/1"
        assert [version.number for version in await place.data.versions_of(found)] == [5, 4, 3, 2, 1]
        assert (await refused(place.data.create("nothing"))).kind is Kind.NOT_FOUND

    run(go())


def test_every_spelling_of_a_name(place: Place) -> None:
    """By id, with and without `datasets`; without a number the newest that can be used."""

    async def go() -> None:
        first = await place.uploaded(archive(("a", b"1")))
        second = await place.uploaded(archive(("a", b"2")))
        third = await place.data.create(first.data_set_id)
        for name in (second.id, "alice/datasets/x/2", "alice/x/2", "alice/datasets/x", "alice/x", "alice/datasets/x/"):
            assert (await place.data.version(name)).id == second.id
        assert (await place.data.version("alice/x/3")).id == third.id
        for name in ("nothing", "alice/x/4", "alice/x/0", "bob/x", "alice/datasets/y", "a/b/c/d/e", "alice/x/two", "/", "alice/x/²"):
            error = await refused(place.data.version(name))
            assert (error.kind, error.what) == (Kind.NOT_FOUND, "data")
        await place.data.close()

    run(go())


def test_a_set_without_anything_valid(place: Place) -> None:
    """Its newest version, to say how far that is."""

    async def go() -> None:
        found = await place.set_id()
        await place.data.create(found)
        newest = await place.data.create(found)
        assert (await place.data.version("alice/x")).id == newest.id
        error = await refused(place.data.folder("alice/x"))
        assert (error.kind, error.what) == (Kind.NOT_READY, "data")
        assert "waiting" in error.message

    run(go())


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KB"), (12_900_000, "12.3 MB"), (5 << 30, "5.0 GB"), (1 << 60, "1048576.0 TB")],
)
def test_sizes(size: int, text: str) -> None:
    """As people read them."""
    assert size_text(size) == text


# --- folders of the server ---


def test_a_folder_of_the_server(place: Place) -> None:
    """Named and not copied, by a URL, a path or a path below the root (section 10); counted afterwards."""

    async def go() -> None:
        found = await place.set_id()
        for source in (f"file://{place.root}/pets", str(place.root / "pets"), "pets", "pets/"):
            version = await place.data.add_folder(found, source, "mine")
            assert (version.state, version.description) == (DataState.VALID, "mine")
            assert await place.data.folder(version.id) == place.root / "pets"
        counted = await until(lambda: place.data.version(version.id), lambda now: now.files == 1)
        assert (counted.size, counted.name) == (4, "alice/datasets/x/4")
        assert await place.data.browse(version.id, "cats") == Listing((Entry("1.txt", False, 4),))
        await place.data.close()

    run(go())


def test_folders_that_may_not_be_named(place: Place) -> None:
    """Outside of every root, over links too; files; what is not there; and the server's own."""

    async def go() -> None:
        found = await place.set_id()
        (place.root / "out").symlink_to(place.folder / "secret")
        for source in (
            "../secret",
            str(place.folder / "secret"),
            f"file://{place.folder}/secret",
            f"file://{place.root}/../secret",
            "out",
            "list.csv",
            "nothing",
            "",
            "http://host/x",
            "file://host/x",
            str(place.folder / "data"),
            "mlflow-artifacts:/x",
            "a\0b",
        ):
            error = await refused(place.data.add_folder(found, source))
            assert (error.kind, error.what) == (Kind.INVALID_INPUT, "source")
        assert "--data-root" in (await refused(place.data.add_folder(found, "out"))).message
        assert await place.data.versions_of(found) == []

    run(go())


def test_a_folder_with_the_servers_own_in_it(place: Place) -> None:
    """Whoever mounts the whole of a root that the data directory lies in would read keys, records and other people's jobs."""

    async def go() -> None:
        wide = place.server(str(place.folder))
        error = await refused(wide.add_folder(await place.set_id(), str(place.folder)))
        assert "the server's own data directory" in error.message
        assert (await wide.add_folder(await place.set_id(), str(place.root / "pets"))).folder == str(place.root / "pets")

    run(go())


def test_without_a_root(place: Place) -> None:
    """The refusal says what the operator can do."""

    async def go() -> None:
        error = await refused(place.server().add_folder(await place.set_id(), str(place.root)))
        assert "without --data-root" in error.message

    run(go())


def test_a_root_that_was_taken_away(place: Place) -> None:
    """A version that was named under other settings is not mounted any more; nor is one whose folder became a link to elsewhere."""

    async def go() -> None:
        version = await place.data.add_folder(await place.set_id(), "pets")
        assert (await refused(place.server(str(place.folder / "secret")).folder(version.id))).kind is Kind.INVALID_INPUT
        (place.root / "pets").rename(place.root / "dogs")
        (place.root / "pets").symlink_to(place.folder / "secret")
        assert (await refused(place.data.folder(version.id))).kind is Kind.INVALID_INPUT
        await place.data.close()

    run(go())


def test_a_root_that_is_no_folder(place: Place) -> None:
    """Told when the server starts."""
    error = run(refused(place.server(str(place.root / "list.csv")).start()))
    assert "--data-root is" in error.message


# --- files of jobs ---


def test_a_version_out_of_a_job(place: Place) -> None:
    """What it has now, copied: what the job changes afterwards does not matter. Its links that lead out stay behind."""

    async def go() -> None:
        folder = place.job()
        (folder / "sub").mkdir()
        (folder / "sub" / "model.bin").write_bytes(bytes(300_000))
        (folder / "inner").symlink_to("sub/model.bin")
        (folder / "outer").symlink_to("../../../../../secret/key")
        (folder / "absolute").symlink_to(place.folder / "secret")
        os.mkfifo(folder / "pipe")
        version = await place.data.add_job(await place.set_id(), "J1", "output", "made")
        version = await place.valid(version)
        (folder / "sub" / "model.bin").unlink()
        assert (version.files, version.size, version.description) == (1, 300_000, "made")
        assert contents(await place.data.folder(version.id)) == {"sub/model.bin": bytes(300_000), "inner": b"-> sub/model.bin"}
        await place.data.close()

    run(go())


def test_a_job_that_is_deleted_while_it_is_copied(place: Place) -> None:
    """The version is invalid and says why."""

    async def go() -> None:
        (place.job() / "x").write_text("1")
        version = await place.data.add_job(await place.set_id(), "J1", "output")
        shutil.rmtree(place.folder / "data" / "jobs" / "run")
        version = await until(lambda: place.data.version(version.id), lambda found: found.state is not DataState.WAITING)
        assert version.state is DataState.INVALID
        assert version.reason
        await place.data.close()

    run(go())


@pytest.mark.parametrize(("part", "folder"), [("output", "output"), ("home", "home"), ("files", "home")])
def test_mounting_what_a_job_has(part: str, folder: str, place: Place) -> None:
    """As if it were a version: by an id that needs no record."""

    async def go() -> None:
        (place.job(part=folder) / "x").write_text("123")
        version = await place.data.of_job("J1", "alice/projects/p/1", "alice", part)
        assert (version.name, version.owner, version.size, version.files) == (f"alice/projects/p/1/{part}", "alice", 3, 1)
        assert version.state is DataState.VALID
        assert await place.data.folder(version.id) == place.folder / "data" / "jobs" / "run" / "J1" / folder
        assert set(await unpacked((await place.data.download(version.id)).chunks)) == {"x"}

    run(go())


def test_jobs_that_are_not_there(place: Place) -> None:
    """Unknown jobs and parts, and ids that are paths."""

    async def go() -> None:
        found = await place.set_id()
        place.job()
        for job_id, part in (("J2", "output"), ("J1", "code"), ("J1", "log"), ("../run/J1", "output"), ("", "output")):
            assert (await refused(place.data.add_job(found, job_id, part))).kind is Kind.NOT_FOUND
            assert (await refused(place.data.of_job(job_id, "a/projects/b/1", "a", part))).kind is Kind.NOT_FOUND
            assert (await refused(place.data.folder(f"{job_id}.{part}"))).kind is Kind.NOT_FOUND

    run(go())


# --- looking and removing ---


def test_browsing_and_downloading(place: Place) -> None:
    """Listings, files and tar files of a version."""

    async def go() -> None:
        version = await place.uploaded(archive(("./a.txt", b"hello"), ("./sub/deep/b.bin", b"\0" * 700)))
        assert await place.data.browse(version.id) == Listing((Entry("a.txt", False, 5), Entry("sub", True)))
        found = await place.data.browse("alice/x/1", "sub/deep/b.bin")
        assert isinstance(found, Content)
        assert b"".join([chunk async for chunk in found.chunks]) == b"\0" * 700
        assert await unpacked((await place.data.download(version.id)).chunks) == {
            "a.txt": b"hello",
            "sub": "/",
            "sub/deep": "/",
            "sub/deep/b.bin": b"\0" * 700,
        }
        assert await unpacked((await place.data.download(version.id, "sub/deep")).chunks) == {"b.bin": b"\0" * 700}
        assert (await refused(place.data.browse(version.id, "nothing"))).what == "file"
        await place.data.close()

    run(go())


def test_removing(place: Place) -> None:
    """The files go with the record; its number is not given again."""

    async def go() -> None:
        version = await place.uploaded(archive(("a", b"1")))
        folder = await place.data.folder(version.id)
        await place.data.remove(version)
        assert not folder.exists()
        for call in (place.data.version(version.id), place.data.folder(version.id), place.data.remove(version)):
            assert (await refused(call)).kind is Kind.NOT_FOUND
        assert (await place.data.create(version.data_set_id)).number == 2
        await place.data.close()

    run(go())


def test_what_jobs_need_stays(place: Place) -> None:
    """A version that is mounted is not removed under its job."""

    async def go() -> None:
        version = await place.uploaded(archive(("a", b"1")))
        error = await refused(place.data.remove(version, {version.id}))
        assert (error.kind, error.what) == (Kind.CONFLICT, "data")
        assert (await place.data.folder(version.id)).is_dir()
        await place.data.close()

    run(go())


def test_a_folder_of_the_server_outlives_its_version(place: Place) -> None:
    """It was only named."""

    async def go() -> None:
        version = await place.data.add_folder(await place.set_id(), "pets")
        await place.data.remove(version)
        assert (place.root / "pets" / "cats" / "1.txt").read_text() == "miau"
        await place.data.close()

    run(go())


def test_files_that_somebody_removed(place: Place) -> None:
    """The version cannot be mounted, and says that it is not there."""

    async def go() -> None:
        version = await place.uploaded(archive(("a", b"1")))
        (await place.data.folder(version.id)).rename(place.folder / "elsewhere")
        assert (await refused(place.data.folder(version.id))).kind is Kind.NOT_FOUND
        await place.data.close()

    run(go())


def test_where_nothing_is_stored(place: Place) -> None:
    """Looking and sweeping make nothing."""

    async def go() -> None:
        assert await place.data.data_sets() == []
        await place.data.start()
        await place.data.sweep()
        assert not (place.folder / "data").exists()

    run(go())
