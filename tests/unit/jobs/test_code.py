"""Uploaded code: received, kept once, placed, shown, removed (serving/jobs/code.py)."""

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.jobs.browsing import Content, Entry, Listing
from dragoman.serving.jobs.code import Code, Home, Module
from dragoman.serving.jobs.files import Files
from dragoman.serving.jobs.trees import CodeLimits
from tests.fakes_store import FakeStore
from tests.jobs_files import FORM, broken, contents, form, late, pieces, run, unpacked

FILES = {"./app.py": b"app\n", "./floyd.yml": b"env: x\n", "./a/one.bin": b"\0" * 1000, "./a/b/two.bin": b"\0" * 1000, "./empty": b""}
DAY_S = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


class Place:
    """A data directory with code in it."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self.clock = Clock()
        self.store = FakeStore()
        self.code = Code(late(self.store), folder / "files", lambda: "here", CodeLimits(**limits), clock=self.clock)

    async def add(
        self, files: Mapping[str, bytes], json: bytes | None = b"{}", *, step: int = 1 << 20, length: int | None = None
    ) -> Module:
        return await self.code.add(pieces(form(files, json), step), FORM, accept, length=length)

    def stored(self) -> list[Path]:
        return sorted((self.folder / "files").glob("[0-9a-f][0-9a-f]/*"))

    def coming(self) -> list[Path]:
        return list((self.folder / "files" / "coming").glob("*"))


async def accept(said: Mapping[str, Any]) -> Home:
    return Home("alice", "x", "p1")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def refused(place: Place, files: Mapping[str, bytes], json: bytes | None = b"{}", *, length: int | None = None) -> ServingError:
    """How an upload is refused; nothing of it is left then."""
    with pytest.raises(ServingError) as caught:
        run(place.add(files, json, length=length))
    assert caught.value.what == "body"
    assert (place.stored(), place.coming()) == ([], [])
    return caught.value


def test_a_module_says_what_was_uploaded(place: Place) -> None:
    """Number, bytes, time, whose it is, and what the client said."""
    module = run(place.add(FILES, b'{"mode": "serve", "env": null}'))
    assert (module.owner, module.project, module.project_id, module.place) == ("alice", "x", "p1", "here")
    assert (module.files, module.size, module.created) == (5, 2011, 1e9)
    assert module.request == {"mode": "serve", "env": None}
    assert run(place.code.module(module.id)) == module


def test_placing(place: Place) -> None:
    """The files appear in a new folder, for the job to write in: the store's own stay as they are."""

    async def go() -> None:
        module = await place.add(FILES)
        home = place.folder / "run" / "j1" / "home"
        await place.code.place(module.id, home)
        assert contents(home) == {name[2:]: content for name, content in FILES.items()}
        (home / "app.py").write_text("changed")
        await place.code.place(module.id, place.folder / "again")
        assert (place.folder / "again" / "app.py").read_bytes() == b"app\n"

    run(go())


def test_a_home_that_is_there_stays(place: Place) -> None:
    """A job that is started again finds what it wrote; half a home, left by a server that was killed, is made anew."""

    async def go() -> None:
        module = await place.add(FILES)
        (place.folder / "home").mkdir()
        (place.folder / "home" / "mine").write_text("kept")
        await place.code.place(module.id, place.folder / "home")
        assert contents(place.folder / "home") == {"mine": b"kept"}
        half = place.folder / ".other.part"
        half.mkdir()
        (half / "app.py").write_text("half")
        await place.code.place(module.id, place.folder / "other")
        assert (place.folder / "other" / "app.py").read_bytes() == b"app\n"
        assert not half.exists()

    run(go())


def test_the_same_content_is_kept_once(place: Place) -> None:
    """Within an upload and over uploads (section 10: repeats are cheap)."""

    async def go() -> None:
        first = await place.add(FILES)
        stored = place.stored()
        assert len(stored) == 4 + 1, "app.py, floyd.yml, the zeros, nothing; and the list of them"
        second = await place.add(FILES)
        assert place.stored() == stored
        assert first.id != second.id
        assert first.tree == second.tree
        await place.add({**FILES, "./app.py": b"other\n"})
        assert len(place.stored()) == len(stored) + 2
        assert place.coming() == []

    run(go())


def test_uploads_at_the_same_time(place: Place) -> None:
    """Several at once, all alike: each is whole."""

    async def go() -> None:
        modules = await asyncio.gather(*(place.add(FILES, step=50) for _ in range(8)))
        for module in modules:
            await place.code.place(module.id, place.folder / module.id)
            assert len(contents(place.folder / module.id)) == 5

    run(go())


def test_thousands_of_files(place: Place) -> None:
    """A project of many small files arrives whole."""
    files = {f"./d{index % 50}/f{index}.txt": str(index % 100).encode() for index in range(3000)}

    async def go() -> None:
        module = await place.add(files)
        assert module.files == 3000
        assert len(place.stored()) == 101
        listing = await place.code.browse(module.id)
        assert isinstance(listing, Listing)
        assert len(listing.entries) == 50

    run(go())


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("../x", "'..'"),
        ("./a/../../x", "'..'"),
        ("/etc/passwd", "relative"),
        ("C:/x", "relative"),
        ("C:\\x", "relative"),
        ("./a/", "no file"),
        (".", "no file"),
        ("", "relative"),
        ("./a%00b", "relative"),
        ("./" + "d/" * 70 + "x", "64 folders"),
        ("./" + "n" * 256, "255 bytes"),
        ("./" + "ü" * 200, "255 bytes"),
        ("./" + "/".join(["n" * 200] * 6), "1024"),
    ],
)
def test_paths_that_are_refused(name: str, word: str, place: Place) -> None:
    """Nothing leads out of the project, and no path is longer or deeper than a disk takes."""
    error = refused(place, {"./first": b"1", name: b"2"})
    assert error.kind is Kind.INVALID_INPUT
    assert word in error.message


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["./a", "./a"], "'a' twice"),
        (["./a", "a"], "'a' twice"),
        (["./a", "./a/b"], "'a' as a file and as a folder"),
        (["./a/b/c", "./a"], "'a' as a file and as a folder"),
        (["./a/b", "./a/b/c/d"], "'a/b' as a file and as a folder"),
    ],
)
def test_paths_that_clash(names: list[str], words: str, place: Place) -> None:
    """Two files of one name, or a file where a folder must be."""
    body = b"".join(form({name: b"x"}, None).removesuffix(b"--B--\r\n") for name in names) + form({}, b"{}")
    with pytest.raises(ServingError, match=words) as caught:
        run(place.code.add(pieces(body), FORM, accept))
    assert caught.value.kind is Kind.INVALID_INPUT


def test_a_client_on_windows(place: Place) -> None:
    """It writes folders with backslashes; elsewhere those are letters of a name."""
    module = run(place.add({".\\\\a\\\\b.txt": b"1", "./c\\\\d": b"2"}))
    assert set(run(place.code.tree(module.id))) == {"a/b.txt", "c\\d"}


def test_too_many_files(tmp_path: Path) -> None:
    """The refusal has the number."""
    error = refused(Place(tmp_path, max_files=3), FILES)
    assert error.kind is Kind.TOO_LARGE
    assert "limit of 3 files" in error.message


def test_too_many_bytes(tmp_path: Path) -> None:
    """All files count together, and the refusal comes as soon as the limit is passed, not at the end of the body."""
    place = Place(tmp_path, max_bytes=1 << 20)
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        yield form({"./a": b"", "./b": b""}, None).removesuffix(b"\r\n--B--\r\n")
        while True:
            taken += 1 << 16
            yield bytes(1 << 16)

    with pytest.raises(ServingError, match="limit of 1048576 bytes") as caught:
        run(place.code.add(endless(), FORM, accept))
    assert caught.value.kind is Kind.TOO_LARGE
    assert taken <= 2 << 20
    assert place.coming() == []


def test_an_announced_length_that_is_too_long(tmp_path: Path) -> None:
    """Nothing is read of a body that says that it is too long."""
    place = Place(tmp_path, max_bytes=1000, max_files=10)

    async def untouched() -> Any:
        raise AssertionError("somebody reads")
        yield b""

    with pytest.raises(ServingError, match="limit of 1000 bytes"):
        run(place.code.add(untouched(), FORM, accept, length=5 << 20))


def test_a_body_that_never_ends(tmp_path: Path) -> None:
    """What is behind the form is dropped, but not for ever."""
    place = Place(tmp_path, max_bytes=1000, max_files=10)

    async def endless() -> Any:
        yield form({"./a": b"1"})
        for _ in range(1000):
            yield bytes(1 << 16)

    with pytest.raises(ServingError, match="limit of 1000 bytes"):
        run(place.code.add(endless(), FORM, accept))


@pytest.mark.parametrize(
    ("json", "word"),
    [
        (None, "no part 'json'"),
        (b"{", "not JSON"),
        (b"[1]", "must be an object, not list"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "limit of 1000 bytes"),
    ],
)
def test_what_is_said_of_the_code(json: bytes | None, word: str, tmp_path: Path) -> None:
    """It must be there, an object, and no novel."""
    assert word in refused(Place(tmp_path, max_json=1000), FILES, json).message


def test_other_parts(place: Place) -> None:
    """A part of another name is refused, and so is the JSON twice."""
    for head in (b'name="model"; filename="x"', b'name="code"', b'name="json"; filename="x"'):
        body = b"--B\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n{}\r\n" + form({}, b"{}")
        with pytest.raises(ServingError, match="expected are files named 'code'"):
            run(place.code.add(pieces(body), FORM, accept))
    with pytest.raises(ServingError, match="twice"):
        run(place.code.add(pieces(form({}, b"{}").removesuffix(b"--B--\r\n") + form({}, b"{}")), FORM, accept))


def test_a_body_that_ends_too_early(place: Place) -> None:
    """Nothing of it is kept, and the number of files tells how far it came."""
    whole = form(FILES, b"{}")
    with pytest.raises(ServingError, match="broke off after 5 files"):
        run(place.code.add(pieces(whole.removesuffix(b"--B--\r\n")), FORM, accept))
    assert (place.stored(), place.coming()) == ([], [])


def test_a_client_that_hangs_up(place: Place) -> None:
    """What reading the body raises is raised, and nothing is left."""
    with pytest.raises(ServingError, match="gone"):
        run(place.code.add(broken(form(FILES, None)[:900], ServingError(Kind.CANCELLED, "gone")), FORM, accept))
    assert (place.stored(), place.coming()) == ([], [])


def test_a_task_that_is_cancelled(place: Place) -> None:
    """A server that stops in the middle of an upload leaves nothing of it."""

    async def go() -> None:
        begun = asyncio.Event()

        async def stuck() -> Any:
            yield form(FILES, None)[:900]
            yield bytes(1 << 20)
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(place.code.add(stuck(), FORM, accept))
        await begun.wait()
        assert len(place.coming()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())
    assert place.coming() == []


def test_whoever_may_not_upload(place: Place) -> None:
    """What `accept` raises is raised, before anything is kept."""

    async def never(said: Mapping[str, Any]) -> Home:
        assert said == {"family_id": "p2"}
        raise ServingError(Kind.FORBIDDEN, "not yours")

    with pytest.raises(ServingError, match="not yours"):
        run(place.code.add(pieces(form(FILES, b'{"family_id": "p2"}')), FORM, never))
    assert (place.stored(), place.coming()) == ([], [])


def test_a_store_that_is_away(place: Place) -> None:
    """Nothing counts as uploaded; the files are collected later."""

    async def go() -> None:
        place.store.failure = ServingError(Kind.UNAVAILABLE, "the store is away")
        with pytest.raises(ServingError, match="away"):
            await place.add(FILES)
        place.store.failure = None
        assert place.coming() == []
        assert await place.code.sweep([]) == 5
        assert place.stored() == []

    run(go())


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    """The uploader is told that it is the server's fault."""
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(ServingError, match="cannot be stored") as caught:
        run(Place(tmp_path).add(FILES))
    assert caught.value.kind is Kind.UNAVAILABLE


# --- looking ---


def test_browsing(place: Place) -> None:
    """Folders by name, files with their content."""

    async def go() -> None:
        module = await place.add(FILES)
        assert await place.code.browse(module.id) == Listing(
            (Entry("a", True), Entry("app.py", False, 4), Entry("empty", False), Entry("floyd.yml", False, 7))
        )
        assert await place.code.browse(module.id, "a/") == Listing((Entry("b", True), Entry("one.bin", False, 1000)))
        found = await place.code.browse(module.id, "/a/b/two.bin")
        assert isinstance(found, Content)
        assert (found.name, found.size) == ("two.bin", 1000)
        assert b"".join([chunk async for chunk in found.chunks]) == bytes(1000)
        for path in ("b", "a/on", "app.py/x"):
            with pytest.raises(ServingError) as caught:
                await place.code.browse(module.id, path)
            assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "file")
        with pytest.raises(ServingError) as caught:
            await place.code.browse(module.id, "a/../app.py")
        assert caught.value.kind is Kind.INVALID_INPUT

    run(go())


def test_reading_one_file(place: Place) -> None:
    """Such as floyd.yml; no large ones."""

    async def go() -> None:
        module = await place.add(FILES)
        assert await place.code.read(module.id, "floyd.yml") == b"env: x\n"
        assert await place.code.read(module.id, "floyd.yaml") is None
        with pytest.raises(ServingError, match="1000 bytes, at most 10"):
            await place.code.read(module.id, "a/one.bin", 10)

    run(go())


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", {"app.py", "floyd.yml", "a/one.bin", "a/b/two.bin", "empty"}),
        ("a", {"one.bin", "b/two.bin"}),
        ("a/b/two.bin", {"two.bin"}),
    ],
)
def test_downloads(path: str, names: set[str], place: Place) -> None:
    """A tar file of all or of a folder; of code its size is known to the byte."""

    async def go() -> None:
        module = await place.add(FILES)
        download = await place.code.download(module.id, path)
        found = await unpacked(download.chunks)
        assert set(found) == names
        assert all(len(content) in (0, 4, 7, 1000) for content in found.values())
        whole = await place.code.download(module.id, path)
        assert sum([len(chunk) async for chunk in whole.chunks]) == whole.size

    run(go())


def test_a_download_of_what_is_not_there(place: Place) -> None:
    """A folder that the code does not have."""

    async def go() -> None:
        module = await place.add(FILES)
        with pytest.raises(ServingError) as caught:
            await place.code.download(module.id, "nowhere")
        assert caught.value.kind is Kind.NOT_FOUND

    run(go())


def test_an_unknown_id(place: Place) -> None:
    """Also where nothing was ever stored."""
    for look in (place.code.module("m"), place.code.place("m", place.folder / "home"), place.code.browse("m"), place.code.download("m")):
        with pytest.raises(ServingError) as caught:
            run(look)
        assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "module")


# --- removing ---


def test_sweeping(place: Place) -> None:
    """Code that a job names, or that was just uploaded, is kept; other code goes after a day, with the files that nobody else has."""

    async def go() -> None:
        named = await place.add({"./app.py": b"1", "./shared": b"s"})
        unused = await place.add({"./app.py": b"2", "./shared": b"s"})
        place.clock.now += DAY_S + 1
        fresh = await place.add({"./app.py": b"3"})
        assert await place.code.sweep([named.id]) == 2
        for module in (named, fresh):
            await place.code.place(module.id, place.folder / module.id)
        with pytest.raises(ServingError):
            await place.code.module(unused.id)
        await place.code.remove(named.id)
        await place.code.remove(named.id)
        assert await place.code.sweep([named.id]) == 3
        assert len(place.stored()) == 2

    run(go())


def test_a_server_with_another_store(place: Place) -> None:
    """It does not take for unneeded what it knows nothing of: the next server may have the first store again."""

    async def go() -> None:
        module = await place.add(FILES)
        other = Place(place.folder)
        other.clock.now += 10 * DAY_S
        foreign = await other.add({"./x": b"1"})
        assert await other.code.sweep([foreign.id]) == 0
        await place.code.place(module.id, place.folder / "home")

    run(go())


def test_sweeping_where_nothing_is(place: Place) -> None:
    """A server that never had any code."""
    assert run(place.code.sweep([])) == 0


def test_sweeping_while_files_are_being_named(place: Place) -> None:
    """Nothing is collected between the moment that an upload finds its files and the moment that it says that it needs them."""

    async def go() -> None:
        lost = await place.add(FILES)
        await place.code.remove(lost.id)
        with Files(place.folder / "files").naming():
            assert await place.code.sweep([]) == 0
        assert len(place.stored()) == 5
        assert await place.code.sweep([]) == 5

    run(go())


def test_what_a_killed_server_left(place: Place) -> None:
    """Half an upload goes when it is old, and not before."""

    async def go() -> None:
        await place.add(FILES)
        (place.folder / "files" / "coming" / "dead").mkdir(parents=True)
        await place.code.sweep([])
        assert len(place.coming()) == 1
        old = place.coming()[0]
        os.utime(old, (1e9, 1e9))
        await place.code.sweep([])
        assert place.coming() == []

    run(go())


@pytest.mark.parametrize("harm", ["gone", "short", "list"])
def test_stored_files_that_are_damaged(harm: str, place: Place) -> None:
    """The job is not started with half its code: the reason is told, and no home is left behind."""

    async def go() -> None:
        module = await place.add({"./app.py": b"12345", "./b": b"1"})
        for path in place.stored():
            content = path.read_bytes()
            if (content == b"12345") == (harm != "list") and content != b"1":
                if harm == "gone":
                    path.unlink()
                else:
                    path.write_bytes(content[:-1])
        with pytest.raises(ServingError) as caught:
            await place.code.place(module.id, place.folder / "home")
        assert caught.value.kind is Kind.UNAVAILABLE
        assert str(place.folder) not in caught.value.message
        assert not (place.folder / "home").exists()
        shutil.rmtree(place.folder / "files")

    run(go())
