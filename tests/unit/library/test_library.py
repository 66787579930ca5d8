"""Versions, tags and names of stored models, over a store in memory."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace as changed
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.library.library import Library, Prepared, Stored
from dragoman.store import StoredVersion
from tests.fakes_store import FakeStore
from tests.unit.library.projects import put


class Shelf:
    """A library in a folder, with short ways to fill it."""

    def __init__(self, root: Path) -> None:
        self.store = FakeStore()
        self.root = root / "models"
        self.library = Library(self.store, self.root)

    async def add(self, name: str, content: str = "x", tag: str = "", leaf: str = "") -> Stored:
        """One model of one file."""
        place = self.library.stage()
        put(place / "model" / "w.bin", content)
        return await self.library.add(Prepared(place / "model", "onnx", {"leaf": leaf} if leaf else {}), name, tag)

    async def names(self) -> list[str]:
        return [stored.name for stored in await self.library.all()]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def refused(kind: Kind, work: Callable[[], Awaitable[object]]) -> str:
    """The message of the error that this must raise."""

    async def run() -> None:
        await work()

    with pytest.raises(ServingError) as caught:
        asyncio.run(run())
    assert caught.value.kind is kind
    return caught.value.message


def test_a_new_model(shelf: Shelf) -> None:
    """It is version 1, its tag the beginning of its digest, its files lie below the root."""
    stored = asyncio.run(shelf.add("team/iris"))
    version = stored.version
    assert (stored.repository, version.version, stored.tag) == ("team/iris", "1", version.digest[:7])
    assert stored.folder == shelf.root / "team%2Firis" / version.digest[:20] / "model"
    assert (stored.folder / "w.bin").read_text() == "x"
    assert stored.served_name == "iris"
    stored.check()


def test_versions_count_up(shelf: Shelf) -> None:
    """Per repository; what is there already is no new version but may get another tag."""

    async def work() -> None:
        assert [(await shelf.add("a", text, tag)).version.version for text, tag in (("1", "x"), ("2", "y"), ("1", "z"))] == ["1", "2", "1"]
        assert (await shelf.add("b", "1")).version.version == "1"
        first = await shelf.library.resolve("a:x")
        assert first.tags == ("x", "z")
        assert (await shelf.library.resolve("a:z")).version == first.version

    asyncio.run(work())


def test_the_rules_of_names(shelf: Shelf) -> None:
    """T2: a tag exactly; without one `latest`, else the newest of the repository; without a name the newest of all."""

    async def work() -> None:
        for name, text, tag in (("a", "1", "one"), ("a", "2", "two"), ("b", "3", "three")):
            await shelf.add(name, text, tag)
            await asyncio.sleep(0.002)  # their times differ
        resolve = shelf.library.resolve
        assert (await resolve("a:one")).name == "a:one"
        assert (await resolve("a")).name == "a:two"
        assert (await resolve("a:1")).name == "a:one"  # by number
        assert (await resolve()).name == "b:three"
        await shelf.library.tag("a:one", "a:latest")
        assert (await resolve("a")).version.version == "1"
        await shelf.library.tag("a:two", "a:1")
        assert (await resolve("a:1")).version.version == "2"  # a tag wins over a number

    asyncio.run(work())


@pytest.mark.parametrize("name", ["c", "a:nine", "a:latest", "a:7"])
def test_names_that_nothing_has(shelf: Shelf, name: str) -> None:
    """NOT_FOUND, naming what was asked for."""
    asyncio.run(shelf.add("a", tag="one"))
    assert f"'{name}'" in refused(Kind.NOT_FOUND, lambda: shelf.library.resolve(name))
    assert f"'{name}'" in refused(Kind.NOT_FOUND, lambda: shelf.library.remove(name))


def test_an_empty_library(tmp_path: Path) -> None:
    """It says how to fill it."""
    shelf = Shelf(tmp_path)
    assert "dragoman build" in refused(Kind.NOT_FOUND, shelf.library.resolve)
    assert refused(Kind.INVALID_INPUT, lambda: shelf.library.resolve("No Name"))
    assert asyncio.run(shelf.names()) == []
    assert asyncio.run(shelf.library.clear()) == []


def test_a_second_name(shelf: Shelf) -> None:
    """In the same repository it is a tag, in another one a version there that shares the files."""

    async def work() -> None:
        stored = await shelf.add("a", tag="one")
        assert (await shelf.library.tag("a:one", "a")).name == "a:latest"
        other = await shelf.library.tag("a", "b:two")
        assert (other.name, other.folder) == ("b:two", stored.folder)
        await shelf.library.remove("a:latest")
        await shelf.library.remove("a:one")
        (await shelf.library.resolve("b:two")).check()
        await shelf.library.remove("b:two")
        assert not stored.folder.exists()
        assert list(shelf.root.iterdir()) == [shelf.root / ".staging"]

    asyncio.run(work())


def test_a_tag_that_moves(shelf: Shelf) -> None:
    """The old version stays, without a tag, under its number; listed and removable."""

    async def work() -> None:
        await shelf.add("a", "1", "x")
        await shelf.add("a", "2", "x")
        assert sorted(await shelf.names()) == ["a:1", "a:x"]
        assert (await shelf.library.remove("a:1")).version.version == "1"
        assert await shelf.names() == ["a:x"]

    asyncio.run(work())


def test_clear(shelf: Shelf) -> None:
    """One repository, or everything; files included."""

    async def work() -> None:
        for name in ("a", "b"):
            for text in ("1", "2"):
                await shelf.add(name, text)
        assert {stored.repository for stored in await shelf.library.clear("a")} == {"a"}
        assert {stored.repository for stored in await shelf.library.all()} == {"b"}
        assert len(await shelf.library.clear()) == 2
        assert [p.name for p in shelf.root.iterdir()] == [".staging"]

    asyncio.run(work())
    assert "'a'" in refused(Kind.NOT_FOUND, lambda: shelf.library.clear("a"))


def test_a_damaged_copy_is_replaced(shelf: Shelf) -> None:
    """Building the same again repairs it."""

    async def work() -> None:
        stored = await shelf.add("a", tag="x")
        (stored.folder / "w.bin").write_text("other")
        with pytest.raises(ServingError, match="damaged"):
            (await shelf.library.resolve("a:x")).check()
        (await shelf.add("a", tag="x")).check()

    asyncio.run(work())


def test_what_killed_builds_leave(shelf: Shelf) -> None:
    """Is removed after a day, not before: another build may be at work there."""
    old, new = shelf.library.stage(), shelf.library.stage()
    long_ago = time.time() - 100_000
    os.utime(old, (long_ago, long_ago))
    shelf.library.stage()
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(("digest", "number", "tags"), [("another", "2", ("mine",)), ("", "1", ("mine", "other"))], ids=["other", "same"])
def test_somebody_else_is_faster(digest: str, number: str, tags: tuple[str, ...], tmp_path: Path) -> None:
    """The number that another process took meanwhile is not taken again, and what it added is not kept twice."""

    class Raced(FakeStore):
        """Another process adds a version in the last moment."""

        async def add_version(
            self,
            version: StoredVersion,
            *,
            aliases: Iterable[str] = (),
            replace: bool = False,
            reuse: Callable[[StoredVersion], bool] | None = None,
        ) -> StoredVersion:
            await super().add_version(changed(version, digest=digest or version.digest), aliases=["other"])
            return await super().add_version(version, aliases=aliases, replace=replace, reuse=reuse)

    shelf = Shelf(tmp_path)
    shelf.library = Library(Raced(), shelf.root)
    added = asyncio.run(shelf.add("a", tag="mine"))
    assert (added.version.version, added.tag, added.tags) == (number, "mine", tags)


def test_the_same_content_elsewhere_is_another_version(shelf: Shelf, tmp_path: Path) -> None:
    """What was registered where it lies may go at any time: a build does not count on it."""

    async def run() -> None:
        digest = (await shelf.add("b")).version.digest
        await shelf.store.add_version(StoredVersion("a", "1", digest, 0.0, folder=str(tmp_path / "elsewhere" / "model")))
        assert (await shelf.add("a")).version.version == "2"
        assert (await shelf.add("a")).version.version == "2"

    asyncio.run(run())


@pytest.mark.parametrize("folder", ["", "artifacts/7/model", "models/x", "models", "{}/mine/deep/model"])
def test_files_of_others_stay(folder: str, shelf: Shelf, tmp_path: Path) -> None:
    """A version that was registered where it lies, or only by a URI, is forgotten; what is around its folder is not the library's."""
    folder = folder.format(tmp_path)
    place = tmp_path / folder
    put(place / "w.bin", "x")
    put(place.parent / "neighbour", "y")
    put(shelf.root / "b" / "0" / "model", "z")

    async def run() -> None:
        await shelf.store.add_version(StoredVersion("a", "1", "", 0.0, folder=folder))
        await shelf.library.remove("a")
        assert await shelf.names() == []

    asyncio.run(run())
    for path in (place / "w.bin", place.parent / "neighbour", shelf.root / "b" / "0" / "model"):
        assert path.is_file()


def test_a_store_that_is_gone(shelf: Shelf) -> None:
    """Its error is what everybody gets."""
    shelf.store.failure = ServingError(Kind.UNAVAILABLE, "the database is gone")
    assert refused(Kind.UNAVAILABLE, lambda: shelf.add("a")) == "the database is gone"


def test_a_folder_that_must_keep_its_name(shelf: Shelf) -> None:
    """Triton's configuration may say what it is called."""
    assert asyncio.run(shelf.add("a", leaf="iris")).folder.name == "iris"
