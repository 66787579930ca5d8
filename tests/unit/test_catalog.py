"""The catalog over a store in memory and over SQLite: what exists, who is told, and what is refused."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.serving.catalog import Catalog
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.library import Library, Prepared
from dragoman.serving.roots import Roots
from dragoman.store import Store, StoredVersion
from tests.stores import CASES, Case

Body = Callable[["Site"], Awaitable[None]]
LOGGED = "m-" + "0" * 32


class Site:
    """A catalog with two models in its root, and what it told whom."""

    def __init__(self, place: Path, store: Store, **options: Any) -> None:
        self.root = place / "models"
        self.data = place / "data"
        for name, content in (("iris", "a"), ("wine", "b")):
            self.put(name, content)
        self.store = store
        self.told: list[str] = []
        self.deployed: set[tuple[str, str]] = set()
        self.broken = False

        async def opened() -> Store:
            return store

        async def after(model: str) -> None:
            self.told.append(model)
            if self.broken:
                raise ServingError(Kind.UNAVAILABLE, "no deployment can follow")

        roots = Roots.of([str(self.root)], [], self.data)
        self.catalog = Catalog(
            LateStore(opened, lambda: True), roots, self.data, after=after, served=lambda m, v: (m, v) in self.deployed, **options
        )

    def put(self, name: str, content: str = "x", file: str = "model.onnx") -> Path:
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
        return folder

    async def iris(self, count: int = 1, **fields: Any) -> list[StoredVersion]:
        """The model `iris` with that many versions."""
        if count and not any(m.name == "iris" for m in await self.catalog.models()):
            await self.catalog.create_model("iris")
        return [await self.catalog.create_version("iris", "iris", **fields) for _ in range(count)]


class World:
    def __init__(self, case: Case, place: Path) -> None:
        self._case, self._place = case, place

    def run(self, body: Body, **options: Any) -> None:
        async def inside() -> None:
            store = await self._case.open(self._place)
            try:
                async with asyncio.timeout(60):
                    await body(Site(self._place, store, **options))
            finally:
                await store.close()

        asyncio.run(inside())


@pytest.fixture(params=CASES, ids=str)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(request.param, tmp_path.resolve())


def refused(kind: Kind, what: str = "", match: str | None = None) -> AbstractContextManager[pytest.ExceptionInfo[ServingError]]:
    def same(error: ServingError) -> bool:
        return error.kind is kind and error.what == what

    return pytest.raises(ServingError, check=same, match=match)


# --- models ---


def test_models(world: World) -> None:
    """Made with what is said of them, listed by name, found again, and taken once."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        made = await catalog.create_model("wine", "red", {"team": "a", "x": ""})
        await catalog.create_model("iris")
        assert [m.name for m in await catalog.models()] == ["iris", "wine"]
        found = await catalog.model("wine")
        assert (found, found.description, dict(found.tags)) == (made, "red", {"team": "a", "x": ""})
        assert found.created == found.updated > 1e9
        assert found.number >= 1
        with refused(Kind.CONFLICT, "model"):
            await catalog.create_model("wine")

    world.run(body)


@pytest.mark.parametrize("name", ["", "a/b", "a..b", "stats", "x" * 300, "\ud800", "a\0"])
def test_names_are_checked_when_they_are_made(world: World, name: str) -> None:
    """Both when a model is made and when it is renamed; asking for such a name finds nothing."""

    async def body(site: Site) -> None:
        await site.iris()
        with refused(Kind.INVALID_INPUT, "model"):
            await site.catalog.create_model(name)
        with refused(Kind.INVALID_INPUT, "model"):
            await site.catalog.change_model("iris", new_name=name)
        with refused(Kind.NOT_FOUND, "model"):
            await site.catalog.model(name)
        assert await site.catalog.versions(name or "other") == []
        assert await site.catalog.aliases(name) == {}

    world.run(body)


def test_changing_a_model(world: World) -> None:
    """Description, tags, name; versions and aliases go along, and both names are told."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(2)
        await catalog.set_alias("iris", "champion", "2")
        assert (await catalog.change_model("iris", description="new")).description == "new"
        await catalog.tag_model("iris", "k", "v")
        await catalog.tag_model("iris", "gone", "v")
        await catalog.tag_model("iris", "gone", None)
        await catalog.tag_model("iris", "never", None)
        site.told.clear()
        renamed = await catalog.change_model("iris", new_name="flower")
        assert (renamed.name, renamed.description, dict(renamed.tags)) == ("flower", "new", {"k": "v"})
        assert site.told == ["iris", "flower"]
        assert await catalog.aliases("flower") == {"champion": "2"}
        assert [v.version for v in await catalog.versions("flower")] == ["2", "1"]
        with refused(Kind.NOT_FOUND, "model"):
            await catalog.model("iris")
        assert (await catalog.change_model("flower", new_name="flower", description="")).description == ""
        await catalog.create_model("other")
        with refused(Kind.CONFLICT, "model"):
            await catalog.change_model("flower", new_name="other")

    world.run(body)


def test_what_is_served_stays(world: World) -> None:
    """A version that is served cannot be removed, nor its model removed or renamed; its description may change."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(2)
        site.deployed.add(("iris", "2"))
        for change in (
            catalog.remove_version("iris", "2"),
            catalog.remove_model("iris"),
            catalog.change_model("iris", new_name="flower"),
        ):
            with refused(Kind.CONFLICT, "serving", "while version 2 of it is served"):
                await change
        await catalog.change_model("iris", description="x")
        await catalog.remove_version("iris", "1")
        site.deployed.clear()
        await catalog.remove_model("iris")
        assert await catalog.models() == []
        assert site.told.count("iris") == 4
        assert (site.root / "iris" / "model.onnx").is_file()

    world.run(body)


@pytest.mark.parametrize("call", ["model", "remove_model", "versions", "latest", "change_model", "aliases"])
def test_unknown_models(world: World, call: str) -> None:
    """NOT_FOUND, but for lists, which are empty (requirement R12)."""

    async def body(site: Site) -> None:
        if call in ("versions", "aliases"):
            assert not await getattr(site.catalog, call)("nobody")
            return
        with refused(Kind.NOT_FOUND, "model", "there is no registered model 'nobody'"):
            await getattr(site.catalog, call)("nobody")

    world.run(body)


def test_unknown_versions(world: World) -> None:
    """Every call on a version that is not there says whether the model or the version is missing."""

    async def body(site: Site) -> None:
        await site.iris()
        catalog = site.catalog
        for model, version, what in (("nobody", "1", "model"), ("iris", "2", "version")):
            for change in (
                catalog.version(model, version),
                catalog.change_version(model, version, description="x"),
                catalog.remove_version(model, version),
                catalog.tag_version(model, version, "k", "v"),
                catalog.set_alias(model, "champion", version),
            ):
                with refused(Kind.NOT_FOUND, what):
                    await change
        for version in ("0", "x", "1.5", "\ud800", "9" * 30):
            with refused(Kind.INVALID_INPUT, "version"):
                await catalog.version("iris", version)
        for wrong in (catalog.tag_model("nobody", "k", "v"), catalog.remove_alias("nobody", "a"), catalog.create_version("nobody", "iris")):
            with refused(Kind.NOT_FOUND, "model"):
                await wrong

    world.run(body)


def test_without_a_store(tmp_path: Path) -> None:
    """Asking makes no database."""

    async def opener() -> Store:
        raise AssertionError

    async def body() -> None:
        catalog = Catalog(LateStore(opener, lambda: False), Roots([], tmp_path), tmp_path)
        assert await catalog.models() == []
        assert await catalog.versions() == []
        assert await catalog.aliases("m") == {}
        with refused(Kind.NOT_FOUND, "model"):
            await catalog.model("m")

    asyncio.run(body())


# --- versions ---


def test_registering(world: World) -> None:
    """Numbers count up; files stay where they are, and the record says what they are."""

    async def body(site: Site) -> None:
        source = f"file://{site.root}/iris"
        await site.catalog.create_model("iris")
        first = await site.catalog.create_version(
            "iris", source, description="d", tags={"k": "v"}, facts={"user_id": "u"}, stage="Production"
        )
        assert (first.model, first.version, first.kind, first.folder, first.source) == (
            "iris",
            "1",
            "onnx",
            str(site.root / "iris"),
            source,
        )
        assert (first.description, first.stage, dict(first.tags)) == ("d", "Production", {"k": "v"})
        assert dict(first.facts) == {"user_id": "u", "model_type": "onnx"}
        assert [file["path"] for file in first.manifest["files"]] == ["model.onnx"]
        assert first.created == first.updated
        second = await site.catalog.create_version("iris", "wine/model.onnx", kind="special")
        assert (second.version, second.facts["model_type"], second.kind) == ("2", "special", "onnx")
        assert second.digest != first.digest
        assert await site.catalog.version("iris", "01") == first
        assert [v.version for v in await site.catalog.versions("iris")] == ["2", "1"]
        assert site.told == ["iris", "iris"]

    world.run(body)


def test_the_same_content_twice(world: World) -> None:
    """Each registration is a version of its own, also of the same files."""

    async def body(site: Site) -> None:
        first, second = await site.iris(2)
        assert (first.version, second.version) == ("1", "2")
        assert first.digest == second.digest

    world.run(body)


def test_two_at_once(world: World) -> None:
    """Simultaneous registrations get different numbers."""

    async def body(site: Site) -> None:
        await site.catalog.create_model("iris")
        made = await asyncio.gather(*(site.catalog.create_version("iris", "iris") for _ in range(8)))
        assert sorted(int(v.version) for v in made) == list(range(1, 9))

    world.run(body)


@pytest.mark.parametrize(
    ("source", "kind", "told"),
    [
        ("/etc", Kind.INVALID_INPUT, "--model-root"),
        ("nothing", Kind.INVALID_INPUT, "does not exist"),
        ("empty", Kind.INVALID_INPUT, "holds nothing"),
        ("", Kind.INVALID_INPUT, "empty"),
        ("models:/nobody/1", Kind.INVALID_INPUT, "no registered model 'nobody'"),
        ("models:/iris/9", Kind.INVALID_INPUT, "no version 9"),
        ("models:/iris@none", Kind.INVALID_INPUT, "no alias 'none'"),
        ("models:/iris", Kind.INVALID_INPUT, "names no model version"),
        (f"models:/{LOGGED}", Kind.INVALID_INPUT, "logged model"),
        ("s3://bucket/iris", Kind.INVALID_INPUT, "--model-root"),
        ("runs:/abc/model", Kind.INVALID_INPUT, "--model-root"),
        ("nonsense:x", Kind.INVALID_INPUT, "--model-root"),
    ],
)
def test_sources_that_are_refused(world: World, source: str, kind: Kind, told: str) -> None:
    """With what="source", and nothing is registered."""

    async def body(site: Site) -> None:
        (site.root / "empty").mkdir()
        await site.catalog.create_model("iris")
        with refused(kind, "source", told):
            await site.catalog.create_version("iris", source)
        assert await site.catalog.versions("iris") == []
        assert site.told == []

    world.run(body)


def test_sources_in_the_registry(world: World) -> None:
    """A version of another model, by number, stage or alias, has the same files under its own number."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        first, second = await site.iris(2)
        await catalog.set_alias("iris", "champion", "2")
        await catalog.change_version("iris", "1", stage="Staging", facts={"user_id": "u"})
        await catalog.create_model("copy")
        for source, expected in (("models:/iris/1", first), ("models:/iris@champion", second), ("models:/iris/Staging", first)):
            made = await catalog.create_version("copy", source)
            assert (made.folder, made.digest, made.source) == (expected.folder, expected.digest, source)
            assert dict(made.facts) == {"model_type": "onnx"}
            assert made.manifest == expected.manifest
        assert [v.version for v in await catalog.versions("copy")] == ["3", "2", "1"]

    world.run(body)


def test_logged_models_and_remote_ones(world: World, tmp_path: Path) -> None:
    """Whoever knows them says where they lie; what they say is checked like any source."""
    asked: list[str] = []

    async def logged(model_id: str) -> str:
        asked.append(model_id)
        return "iris" if len(asked) == 1 else f"models:/{LOGGED}"

    async def fetch(uri: str) -> Path:
        if uri.startswith("gs:"):
            raise ServingError(Kind[uri.rpartition("/")[2]], "nobody answers")
        place = tmp_path / ("data/cache/x" if uri.startswith("s3:") else "elsewhere")
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.onnx").write_text("fetched")
        return place

    async def body(site: Site) -> None:
        catalog = site.catalog
        await catalog.create_model("iris")
        made = await catalog.create_version("iris", f"models:/{LOGGED}")
        assert (made.folder, made.source, asked) == (str(site.root / "iris"), f"models:/{LOGGED}", [LOGGED])
        with refused(Kind.INVALID_INPUT, "source", "from model to model"):
            await catalog.create_version("iris", f"models:/{LOGGED}")
        made = await catalog.create_version("iris", "s3://bucket/iris")
        assert made.folder == str(site.data / "cache" / "x")
        with refused(Kind.INTERNAL):
            await catalog.create_version("iris", "https://host/iris")
        for kind in (Kind.UNAVAILABLE, Kind.FORBIDDEN, Kind.TIMEOUT, Kind.TOO_LARGE, Kind.NOT_FOUND):
            with refused(Kind.INVALID_INPUT, "source", "cannot be fetched: nobody answers"):
                await catalog.create_version("iris", f"gs://bucket/{kind.name}")
        with refused(Kind.INTERNAL):
            await catalog.create_version("iris", "gs://bucket/INTERNAL")

    world.run(body, logged=logged, fetch=fetch)


def test_changing_a_version(world: World) -> None:
    """Description, facts, stage and tags; a stage may archive the others that have it. Stages are stored as given (requirement R10)."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(3)
        await catalog.change_version("iris", "1", stage="Production")
        await catalog.change_version("iris", "2", stage="Production")
        changed = await catalog.change_version("iris", "3", stage="Production", archive="Archived", facts={"dataset": "d"}, description="x")
        assert (changed.stage, changed.description, dict(changed.facts)) == ("Production", "x", {"model_type": "onnx", "dataset": "d"})
        assert [v.stage for v in await catalog.versions("iris")] == ["Production", "Archived", "Archived"]
        await catalog.tag_version("iris", "3", "k", "v")
        await catalog.tag_version("iris", "3", "x", "")
        await catalog.tag_version("iris", "3", "k", None)
        assert dict((await catalog.version("iris", "3")).tags) == {"x": ""}
        assert (await catalog.change_version("iris", "1", stage="Developing")).stage == "Developing"
        assert not site.deployed

    world.run(body)


def test_texts_are_checked(world: World) -> None:
    """What is too long or no text is bad input before anything is written."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris()
        bad = "\0"
        for change in (
            catalog.create_model("other", bad),
            catalog.create_model("other", tags={"k": bad}),
            catalog.change_model("iris", description="x" * 100_001),
            catalog.tag_model("iris", "", "x"),
            catalog.tag_version("iris", "1", "k", "v" * 5001),
            catalog.change_version("iris", "1", stage="x" * 257),
            catalog.change_version("iris", "1", description=bad),
            catalog.change_version("iris", "1", facts={"dataset": bad}),
            catalog.create_version("iris", "iris", stage="\ud800"),
            catalog.create_version("iris", "iris", kind=bad),
            catalog.create_version("iris", "iris", facts={"user_id": "\ud800"}),
        ):
            with refused(Kind.INVALID_INPUT):
                await change
        assert [m.name for m in await catalog.models()] == ["iris"]
        assert len(await catalog.versions()) == 1

    world.run(body)


def test_a_deployment_that_cannot_follow(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """What was written stays written: the caller would only write it again."""

    async def body(site: Site) -> None:
        site.broken = True
        await site.iris()
        assert len(await site.catalog.versions("iris")) == 1
        assert "could not follow a change in the registry: no deployment can follow" in caplog.text

    world.run(body)


def test_removing(world: World) -> None:
    """Aliases go with their version, the model stays; what a client registered stays on the disk."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(2)
        await catalog.set_alias("iris", "champion", "2")
        await catalog.remove_version("iris", "2")
        assert await catalog.aliases("iris") == {}
        with refused(Kind.NOT_FOUND, "version"):
            await catalog.remove_version("iris", "2")
        await catalog.remove_version("iris", "1")
        assert [m.name for m in await catalog.models()] == ["iris"]
        assert (site.root / "iris" / "model.onnx").is_file()

    world.run(body)


def test_what_was_built(world: World) -> None:
    """Versions from `dragoman build` are in the same registry; their files go with their last record, and never those of others."""

    async def body(site: Site) -> None:
        library = Library(site.store, site.data / "models")
        folder = library.stage() / "model"
        folder.mkdir()
        (folder / "model.onnx").write_text("built")
        built = await library.add(Prepared(folder, "onnx", {}, "src"), "iris", "latest")
        catalog = site.catalog
        assert [m.name for m in await catalog.models()] == ["iris"]
        assert (await catalog.resolve("models:/iris/1")).digest == built.version.digest
        await catalog.create_version("iris", "models:/iris/1")
        await catalog.remove_version("iris", "1")
        assert (built.folder / "model.onnx").is_file()
        await catalog.remove_version("iris", "2")
        assert not built.folder.exists()

    world.run(body)


def test_the_librarys_commands_leave_registered_files(world: World) -> None:
    """`dragoman remove` and `clear` take the record away, never files that lie elsewhere; the newest model is one that was built."""

    async def body(site: Site) -> None:
        library = Library(site.store, site.data / "models")
        await site.iris(2)
        with refused(Kind.NOT_FOUND, "model"):
            await library.resolve("")
        await library.remove("iris:1")
        await library.clear()
        assert (site.root / "iris" / "model.onnx").is_file()
        assert await site.catalog.versions() == []

    world.run(body)


def test_a_build_of_what_is_registered(world: World) -> None:
    """The same content built is a version of its own, whose files lie in the library."""

    async def body(site: Site) -> None:
        (registered,) = await site.iris()
        library = Library(site.store, site.data / "models")
        folder = library.stage() / "model"
        folder.mkdir()
        (folder / "model.onnx").write_text("a")
        built = await library.add(Prepared(folder, "onnx", {}), "iris", "x")
        assert built.version.digest == registered.digest
        assert built.version.version == "2"
        assert built.folder.is_relative_to(site.data)

    world.run(body)


# --- names of versions ---


def test_aliases(world: World) -> None:
    """Set, moved, removed; a model's own."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(2)
        await catalog.set_alias("iris", "champion", "1")
        await catalog.set_alias("iris", "champion", "02")
        assert await catalog.aliases("iris") == {"champion": "2"}
        with refused(Kind.INVALID_INPUT, "alias"):
            await catalog.set_alias("iris", "v3", "1")
        assert await catalog.remove_alias("iris", "champion")
        assert not await catalog.remove_alias("iris", "champion")
        assert not await catalog.remove_alias("iris", "\0")
        assert await catalog.aliases("iris") == {}

    world.run(body)


def test_latest(world: World) -> None:
    """The highest of each stage, stages in any case; none given is the stage None."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(12)
        for version, stage in (("3", "Production"), ("10", "Production"), ("11", "Staging"), ("9", "None")):
            await catalog.change_version("iris", version, stage=stage)
        assert [v.version for v in await catalog.latest("iris")] == ["12", "10", "11"]
        assert [v.version for v in await catalog.latest("iris", ["staging", "PRODUCTION", "Archived"])] == ["11", "10"]
        assert [v.version for v in await catalog.latest("iris", ["None"])] == ["12"]

    world.run(body)


def test_resolving(world: World) -> None:
    """`models:/` URIs: number, stage, latest, alias."""

    async def body(site: Site) -> None:
        catalog = site.catalog
        await site.iris(11)
        await catalog.change_version("iris", "9", stage="Production")
        await catalog.set_alias("iris", "champion", "2")
        for uri, version in (
            ("models:/iris/3", "3"),
            ("models:/iris/latest", "11"),
            ("models:/iris/LATEST", "11"),
            ("models:/iris/production", "9"),
            ("models:/iris@champion", "2"),
        ):
            assert (await catalog.resolve(uri)).version == version
        await catalog.create_model("empty")
        for uri, what in (
            ("models:/nobody/1", "model"),
            ("models:/nobody@x", "model"),
            ("models:/nobody/latest", "model"),
            ("models:/iris/12", "version"),
            ("models:/iris/Archived", "version"),
            ("models:/empty/latest", "version"),
            ("models:/iris@none", "alias"),
        ):
            with refused(Kind.NOT_FOUND, what):
                await catalog.resolve(uri)

    world.run(body)


def test_a_database_that_is_gone(tmp_path: Path) -> None:
    """Its failure is told as such."""
    case = CASES[0]

    async def body(site: Site) -> None:
        await site.iris()
        site.store.failure = ServingError(Kind.UNAVAILABLE, "gone")  # type: ignore[attr-defined] # the store in memory
        for call in (site.catalog.models(), site.catalog.create_model("x"), site.catalog.create_version("iris", "iris")):
            with refused(Kind.UNAVAILABLE):
                await call

    World(case, tmp_path.resolve()).run(body)


def test_versions_of_other_tools(world: World) -> None:
    """A version whose name is no number does not disturb the order of those that are."""

    async def body(site: Site) -> None:
        (first,) = await site.iris()
        await site.store.add_version(replace(first, version="nightly", created=first.created + 1))
        assert [v.version for v in await site.catalog.latest("iris")] == ["1"]
        assert (await site.catalog.resolve("models:/iris/latest")).version == "1"

    world.run(body)
