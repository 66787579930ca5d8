"""Uploads of data sets in pieces (serving/jobs/data_uploads.py)."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs.data_records import DataState, DataVersion
from dragoman.serving.jobs.data_sets import DataSets
from dragoman.serving.jobs.data_unpacking import DataLimits
from dragoman.store import Store
from dragoman.store.sql import open_store, store_url
from tests.fakes_store import FakeStore
from tests.jobs_files import archive, broken, contents, late, pieces, refused, run, until

PACKED = archive(("./a.txt", b"hello"), ("./sub/b.bin", os.urandom(3000)))
HALF = len(PACKED) // 2


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class Place:
    """A data directory, and the servers that use it after each other."""

    def __init__(self, folder: Path, store: Store | None = None, **limits: int) -> None:
        self.folder = folder / "jobs"
        self.store = store or FakeStore()
        self.clock = Clock()
        self.limits = DataLimits(**limits)
        self.data = self.server()

    def server(self) -> DataSets:
        return DataSets(late(self.store), self.folder, lambda: "here", limits=self.limits, clock=self.clock)

    async def version(self) -> tuple[DataVersion, str]:
        """A new one, and the password of its upload."""
        found = await self.data.look_up("alice", "x", create=True)
        version = await self.data.create(found.id, "first")
        _, token = await self.data.uploads.credentials(version.id)
        return version, token

    async def begun(self, length: int = len(PACKED)) -> tuple[str, str]:
        version, token = await self.version()
        upload = await self.data.uploads.begin(version.id, token, length)
        assert (upload.offset, upload.length) == (0, length)
        return version.id, token

    async def settled(self, version_id: str) -> DataVersion:
        return await until(lambda: self.data.version(version_id), lambda found: found.state in (DataState.VALID, DataState.INVALID))

    def waiting(self) -> list[str]:
        """Uploads that lie on the disk."""
        folder = self.folder / "uploads"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_in_pieces(place: Place) -> None:
    """Each begins where the last one ended; after the last one the data set is unpacked and valid (requirement F18)."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        assert (await place.data.version(upload_id)).state is DataState.WAITING
        upload = await uploads.append(upload_id, token, 0, pieces(PACKED[:HALF], 100))
        assert (upload.offset, upload.expires) == (HALF, 1e9 + 7 * 86400)
        assert (await uploads.look(upload_id, token)).offset == HALF
        upload = await uploads.append(upload_id, token, HALF, pieces(PACKED[HALF:]), length=len(PACKED) - HALF)
        assert (upload.offset, upload.expires) == (len(PACKED), 0)
        version = await place.settled(upload_id)
        assert (version.state, version.files, version.size, version.reason) == (DataState.VALID, 2, 3005, "")
        assert set(contents(await place.data.folder(upload_id))) == {"a.txt", "sub/b.bin"}
        await until(lambda: asyncio.to_thread(place.waiting), lambda left: not left)
        again = await uploads.look(upload_id, token)
        assert again.offset == again.length == len(PACKED)
        await place.data.close()

    run(go())


def test_a_line_that_breaks(place: Place) -> None:
    """What had come is kept, and the client goes on behind it."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        error = await refused(uploads.append(upload_id, token, 0, broken(PACKED[:HALF], ServingError(Kind.CANCELLED, "gone"))))
        assert error.message == "gone"
        assert (await uploads.look(upload_id, token)).offset == HALF
        await uploads.append(upload_id, token, HALF, pieces(PACKED[HALF:]))
        assert (await place.settled(upload_id)).state is DataState.VALID
        await place.data.close()

    run(go())


def test_a_task_that_is_cancelled(place: Place) -> None:
    """A server that stops in the middle of a piece has kept what came, and the next may go on at once."""

    async def go() -> None:
        upload_id, token = await place.begun()
        begun = asyncio.Event()

        async def stuck() -> Any:
            yield PACKED[:HALF]
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(place.data.uploads.append(upload_id, token, 0, stuck()))
        await begun.wait()
        assert (await refused(place.data.uploads.look(upload_id, token))).what == "busy"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await place.data.uploads.look(upload_id, token)).offset == HALF

    run(go())


def test_over_a_restart(tmp_path: Path) -> None:
    """The next server, on the same data directory, goes on where the last one was."""

    async def go() -> None:
        url = store_url(tmp_path)
        place = Place(tmp_path, await open_store(url))
        upload_id, token = await place.begun()
        await place.data.uploads.append(upload_id, token, 0, pieces(PACKED[:HALF]))
        await place.data.close()
        await place.store.close()
        place = Place(tmp_path, await open_store(url))
        assert (await place.data.uploads.look(upload_id, token)).offset == HALF
        await place.data.uploads.append(upload_id, token, HALF, pieces(PACKED[HALF:]))
        assert (await place.settled(upload_id)).state is DataState.VALID
        await place.data.close()
        await place.store.close()

    run(go())


def test_a_server_that_died_while_unpacking(place: Place) -> None:
    """The next one unpacks what is whole, at its start or when somebody asks for it; half a folder counts for nothing."""

    async def go() -> None:
        upload_id, token = await place.begun()
        await place.data.close()  # a server that is ending unpacks nothing
        await place.data.uploads.append(upload_id, token, 0, pieces(PACKED))
        assert (await place.data.version(upload_id)).state is DataState.UNPACKING
        half = place.folder / "data" / f".{upload_id}.part"
        half.mkdir(parents=True)
        (half / "old").write_text("half")
        following = place.server()
        await following.sweep()
        version = await until(lambda: following.version(upload_id), lambda found: found.state is DataState.VALID)
        assert set(contents(await following.folder(version.id))) == {"a.txt", "sub/b.bin"}
        await following.close()

    run(go())


def test_a_server_that_died_before_it_could_say_so(place: Place) -> None:
    """What is unpacked already is not unpacked again."""

    async def go() -> None:
        upload_id, token = await place.begun()
        await place.data.close()
        await place.data.uploads.append(upload_id, token, 0, pieces(PACKED))
        done = place.folder / "data" / upload_id
        done.mkdir(parents=True)
        (done / "x").write_text("12345")
        following = place.server()
        version = await until(lambda: following.version(upload_id), lambda found: found.state is DataState.VALID)
        assert (version.files, version.size) == (1, 5)
        await following.close()

    run(go())


def test_two_servers_unpack_once(place: Place) -> None:
    """Workers share a data directory: who finds the upload locked leaves it to the other."""

    async def go() -> None:
        upload_id, token = await place.begun()
        await place.data.close()
        await place.data.uploads.append(upload_id, token, 0, pieces(PACKED))
        workers = [place.server() for _ in range(4)]
        await asyncio.gather(*(worker.version(upload_id) for worker in workers))
        version = await until(lambda: workers[0].version(upload_id), lambda found: found.state is DataState.VALID)
        assert version.files == 2
        for worker in workers:
            await worker.close()
        assert [path.name for path in (place.folder / "data").iterdir()] == [upload_id]

    run(go())


# --- refusals ---


def test_a_wrong_place(place: Place) -> None:
    """A piece that begins elsewhere is refused with the right place, and nothing is written."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        await uploads.append(upload_id, token, 0, pieces(PACKED[:100]))
        for offset in (0, 99, 101, len(PACKED)):
            error = await refused(uploads.append(upload_id, token, offset, pieces(b"x")))
            assert (error.kind, error.what) == (Kind.CONFLICT, "offset")
            assert "expected 100" in error.message
        assert (await uploads.look(upload_id, token)).offset == 100

    run(go())


def test_more_than_was_announced(place: Place) -> None:
    """Refused before it is read where its length is known, else where it goes too far; what fits is kept."""

    async def go() -> None:
        upload_id, token = await place.begun(100)
        uploads = place.data.uploads

        async def untouched() -> Any:
            raise AssertionError("somebody reads")
            yield b""

        error = await refused(uploads.append(upload_id, token, 0, untouched(), length=101))
        assert (error.kind, error.what) == (Kind.INVALID_INPUT, "body")
        assert "100 bytes" in error.message
        await refused(uploads.append(upload_id, token, 0, pieces(bytes(101), 40)))
        assert (await uploads.look(upload_id, token)).offset == 80

    run(go())


def test_two_pieces_at_once(place: Place) -> None:
    """The second is told that the upload is busy: it may come again."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        lock = os.open(place.folder / "uploads" / upload_id, os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        for call in (
            uploads.append(upload_id, token, 0, pieces(b"x")),
            uploads.look(upload_id, token),
            uploads.begin(upload_id, token, 5),
        ):
            error = await refused(call)
            assert (error.kind, error.what, error.retry_after_s) == (Kind.CONFLICT, "busy", 1.0)
        os.close(lock)
        assert (await uploads.append(upload_id, token, 0, pieces(b"x"))).offset == 1

    run(go())


def test_passwords(place: Place) -> None:
    """Only the newest one holds, for its own upload; it is not stored as it is."""

    async def go() -> None:
        upload_id, token = await place.begun()
        _, newer = await place.data.uploads.credentials(upload_id)
        _, foreign = await place.version()
        uploads = place.data.uploads
        for wrong in (token, foreign, "", "ü", "\ud800"):
            for call in (
                uploads.look(upload_id, wrong),
                uploads.append(upload_id, wrong, 0, pieces(b"x")),
                uploads.begin(upload_id, wrong, 1),
                uploads.discard(upload_id, wrong),
            ):
                error = await refused(call)
                assert (error.kind, error.what) == (Kind.UNAUTHENTICATED, "upload")
        assert (await uploads.look(upload_id, newer)).offset == 0
        assert newer not in str(await place.data.version(upload_id))

    run(go())


def test_what_is_no_upload(place: Place) -> None:
    """Unknown, or without credentials so far, or not begun."""

    async def go() -> None:
        uploads = place.data.uploads
        found = await place.data.look_up("alice", "x", create=True)
        version = await place.data.create(found.id)
        for name in ("nothing", "../x", version.id):
            error = await refused(uploads.look(name, "t"))
            assert (error.kind, error.what) == (Kind.NOT_FOUND, "upload")
        assert (await refused(uploads.credentials("nothing"))).what == "data"
        _, token = await uploads.credentials(version.id)
        for call in (uploads.look(version.id, token), uploads.append(version.id, token, 0, pieces(b"x"))):
            assert (await refused(call)).kind is Kind.CONFLICT

    run(go())


@pytest.mark.parametrize("length", [101, 1 << 62, -1])
def test_too_long(length: int, tmp_path: Path) -> None:
    """Refused when it is announced, with both numbers."""

    async def go() -> None:
        place = Place(tmp_path, max_upload=100)
        version, token = await place.version()
        error = await refused(place.data.uploads.begin(version.id, token, length))
        assert error.kind is Kind.TOO_LARGE
        assert f"{length} bytes" in error.message
        assert "limit is 100 bytes" in error.message

    run(go())


def test_more_than_the_disk_has(tmp_path: Path) -> None:
    """Refused at once, not after hours."""

    async def go() -> None:
        place = Place(tmp_path, max_upload=1 << 62)
        version, token = await place.version()
        error = await refused(place.data.uploads.begin(version.id, token, 1 << 61))
        assert error.kind is Kind.TOO_LARGE
        assert "has room for" in error.message

    run(go())


def test_whole_is_whole(place: Place) -> None:
    """An upload that is done takes nothing more and cannot be begun again or given up."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        await uploads.append(upload_id, token, 0, pieces(PACKED))
        await place.settled(upload_id)
        for call in (
            uploads.append(upload_id, token, len(PACKED), pieces(b"x")),
            uploads.begin(upload_id, token, 5),
            uploads.discard(upload_id, token),
        ):
            error = await refused(call)
            assert (error.kind, error.what) == (Kind.CONFLICT, "offset")
        await place.data.close()

    run(go())


def test_beginning_again(place: Place) -> None:
    """The client may start over, also with another length."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        await uploads.append(upload_id, token, 0, pieces(b"rubbish"))
        upload = await uploads.begin(upload_id, token, 50)
        assert (upload.offset, upload.length) == (0, 50)

    run(go())


@pytest.mark.parametrize(
    "content", [b"", b"this is no archive", PACKED[:-30], archive(("../x", b"1"))], ids=["empty", "text", "cut", "leads out"]
)
def test_what_cannot_be_unpacked(content: bytes, place: Place) -> None:
    """The version is invalid, with the reason; its upload is removed and nothing is left of its files."""

    async def go() -> None:
        upload_id, token = await place.begun(len(content))
        if content:
            await place.data.uploads.append(upload_id, token, 0, pieces(content))
        version = await place.settled(upload_id)
        assert version.state is DataState.INVALID
        assert "archive" in version.reason
        await until(lambda: asyncio.to_thread(place.waiting), lambda left: not left)
        assert list((place.folder / "data").iterdir()) == []
        error = await refused(place.data.uploads.look(upload_id, token))
        assert (error.kind, error.what) == (Kind.NOT_FOUND, "expired")
        assert "archive" in (await refused(place.data.folder(upload_id))).message
        await place.data.close()

    run(go())


def test_a_bomb(tmp_path: Path) -> None:
    """More than the limit comes out of little: invalid, with the number."""

    async def go() -> None:
        place = Place(tmp_path, max_bytes=100_000)
        bomb = archive(("zeros", bytes(10 << 20)))
        upload_id, token = await place.begun(len(bomb))
        await place.data.uploads.append(upload_id, token, 0, pieces(bomb))
        assert "100000 bytes" in (await place.settled(upload_id)).reason
        await place.data.close()

    run(go())


# --- given up ---


def test_giving_up(place: Place) -> None:
    """The client's own wish: the bytes go, and the upload is gone for good."""

    async def go() -> None:
        upload_id, token = await place.begun()
        uploads = place.data.uploads
        await uploads.append(upload_id, token, 0, pieces(b"x"))
        await uploads.discard(upload_id, token)
        assert place.waiting() == []
        assert (await place.data.version(upload_id)).state is DataState.INVALID
        assert (await refused(uploads.append(upload_id, token, 1, pieces(b"x")))).what == "expired"

    run(go())


def test_standing_still(place: Place) -> None:
    """An upload that nothing came for in a week is given up; one that goes on, or that another data directory has, is not."""

    async def go() -> None:
        still, token = await place.begun()
        await place.data.uploads.append(still, token, 0, pieces(b"x"))
        alive, _ = await place.begun()
        never, _ = await place.version()
        elsewhere = DataSets(late(place.store), place.folder, lambda: "elsewhere", clock=place.clock)
        place.clock.now += 8 * 86400
        os.utime(place.folder / "uploads" / still, (1e9, 1e9))
        os.utime(place.folder / "uploads" / alive, (place.clock.now, place.clock.now))
        await elsewhere.sweep()
        assert (await place.data.version(still)).state is DataState.WAITING
        await place.data.sweep()
        states = [(await place.data.version(each)).state for each in (still, alive, never.id)]
        assert states == [DataState.INVALID, DataState.WAITING, DataState.INVALID]
        assert place.waiting() == [alive]
        error = await refused(place.data.uploads.look(still, token))
        assert error.what == "expired"
        assert "nothing came" in error.message

    run(go())


def test_removing_what_is_being_unpacked(place: Place) -> None:
    """Nothing of it is left in the end."""

    async def go() -> None:
        upload_id, token = await place.begun()
        await place.data.uploads.append(upload_id, token, 0, pieces(PACKED))
        await place.data.remove(await place.data.version(upload_id))
        await place.data.close()
        assert place.waiting() == []
        assert list((place.folder / "data").glob("*")) == []

    run(go())


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    """The client is told that it is the server's fault, without a path of it."""

    async def go() -> None:
        place = Place(tmp_path)
        version, token = await place.version()
        place.folder.mkdir(exist_ok=True)
        (place.folder / "uploads").write_text("in the way")
        error = await refused(place.data.uploads.begin(version.id, token, 5))
        assert error.kind is Kind.UNAVAILABLE
        assert str(tmp_path) not in error.message

    run(go())


def test_a_store_that_is_away(place: Place) -> None:
    """The piece is on the disk all the same: the client asks how far it is, and goes on."""

    async def go() -> None:
        upload_id, token = await place.begun()
        fake = place.store
        assert isinstance(fake, FakeStore)

        async def and_then_away() -> Any:
            yield PACKED
            fake.failure = ServingError(Kind.UNAVAILABLE, "away")

        await refused(place.data.uploads.append(upload_id, token, 0, and_then_away()))
        fake.failure = None
        assert (await place.data.uploads.look(upload_id, token)).offset == len(PACKED)
        assert (await place.settled(upload_id)).state is DataState.VALID
        await place.data.close()

    run(go())
