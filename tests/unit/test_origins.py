"""From origins to specs: what is registered, what lies below a root, targets; looked at again, under the trust of now."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.serving.catalog import Catalog
from dragoman.serving.late_store import LateStore
from dragoman.serving.library.library import Library, Prepared
from dragoman.serving.library.specs import kept
from dragoman.serving.origins import Origins
from dragoman.serving.repository import Defaults, Repository
from dragoman.serving.roots import Roots
from dragoman.store import Store
from tests.fakes_store import FakeStore

CODE = "class Model:\n    def predict(self, rows):\n        return rows\n"


class Site:
    """Folders `open` and `safe`, of which the second is trusted, `outside`, and a registry in memory."""

    def __init__(
        self, place: Path, *, targets: tuple[str, ...] = (), trust_pickle: bool = False, exists: bool = True, threads: int = 2
    ) -> None:
        self.place = place
        self.data = place / "data"
        for name in ("open", "safe", "outside"):
            (place / name).mkdir(exist_ok=True)
        store = FakeStore()
        self.fake = store

        async def opened() -> Store:
            return store

        late = LateStore(opened, lambda: exists)
        self.roots = Roots.of([str(place / "open")], [str(place / "safe")], self.data)
        self.catalog = Catalog(late, self.roots, self.data)
        defaults = Defaults(arguments={"trust_pickle": trust_pickle, "threads": threads})
        self.repository = Repository(targets, defaults, roots=self.roots)
        self.origins = Origins(late, self.roots, self.repository, self.data)

    def put(self, name: str, content: str = "x") -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path.parent

    async def registered(self, source: str, name: str = "iris") -> dict[str, str]:
        """Register a source; returns the origin of the new version."""
        if not any(m.name == name for m in await self.catalog.models()):
            await self.catalog.create_model(name)
        made = await self.catalog.create_version(name, str(self.place / source))
        return {"model": made.model, "version": made.version}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def run(body: Callable[[], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with asyncio.timeout(60):
            return await body()

    return asyncio.run(inside())


async def refused(awaitable: Awaitable[ModelSpec]) -> ServingError:
    with pytest.raises(ServingError) as caught:
        await awaitable
    return caught.value


def test_a_registered_version(place: Path) -> None:
    """Named and numbered as it is served, with the digest of the registry and the settings of now."""
    site = Site(place)
    site.put("open/iris/1/model.onnx")
    site.put("open/iris/7/model.onnx")

    async def body() -> None:
        origin = await site.registered("open/iris")
        spec = await site.origins.open_spec("flower", "1", origin)
        assert (spec.name, spec.version, spec.runtime) == ("flower", "1", "onnx")
        assert spec.artifact == str(place / "open/iris/7/model.onnx")
        assert spec.digest == (await site.catalog.version("iris", "1")).digest
        assert dict(spec.arguments) == {"trust_pickle": False, "threads": 2}
        assert spec.revision
        assert spec.revision == (await site.origins.open_spec("flower", "1", origin)).revision

    run(body)


def test_a_registered_file(place: Path) -> None:
    """A single file is served without its neighbours."""
    site = Site(place)
    site.put("open/a.onnx")
    site.put("open/b.onnx")

    async def body() -> None:
        spec = await site.origins.open_spec("iris", "1", await site.registered("open/b.onnx"))
        assert spec.artifact == str(place / "open/b.onnx")

    run(body)


@pytest.mark.parametrize(
    ("folder", "trust_pickle", "expected"),
    [("open", False, False), ("safe", False, True), ("open", True, True), ("data/artifacts", False, False)],
)
def test_pickles(place: Path, folder: str, trust_pickle: bool, expected: bool) -> None:
    """The runtime may open a pickle where the operator trusts the folder, or everything; never what a client uploaded."""
    site = Site(place, trust_pickle=trust_pickle)
    site.put(f"{folder}/iris/model.pkl")

    async def body() -> None:
        spec = await site.origins.open_spec("iris", "1", await site.registered(f"{folder}/iris"))
        assert spec.arguments["trust_pickle"] is expected
        path = {"path": str(place / folder / "iris")}
        assert (await site.origins.open_spec("iris", "1", path)).arguments["trust_pickle"] is expected

    run(body)


@pytest.mark.parametrize("file", ["tungsten_model.py", "model.py", "1/tungsten_model.py", "code.py"])
def test_code(place: Path, file: str) -> None:
    """Python code counts as a pickle; the refusal says how it can be served."""
    site = Site(place)
    for folder in ("open", "safe", "data/artifacts"):
        site.put(f"{folder}/m/{file}", CODE)
    source = f"m/{file}" if file == "code.py" else "m"

    async def body() -> None:
        for folder in ("open", "data/artifacts"):
            for origin in (await site.registered(f"{folder}/{source}"), {"path": str(place / folder / source)}):
                error = await refused(site.origins.open_spec("iris", "1", origin))
                assert error.kind is Kind.UNSUPPORTED
                for word in ("is Python code", "--trusted-root", "--trust-pickle", "skops", "ONNX", "safetensors", "UBJSON"):
                    assert word in error.message
                assert str(place) not in error.message
        spec = await site.origins.open_spec("iris", "3", await site.registered(f"safe/{source}"))
        assert (spec.runtime, spec.engine) == ("python", "process")
        everything = Site(place, trust_pickle=True)
        assert (await everything.origins.open_spec("m", "1", {"path": str(place / "open" / source)})).runtime == "python"

    run(body)


def test_a_configuration_cannot_trust(place: Path) -> None:
    """A model's own file does not say that it is trusted."""
    site = Site(place)
    settings = (
        '{"name": "m", "implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": "m.pkl", "extra": {"trust_pickle": true}}}'
    )
    site.put("open/m/model-settings.json", settings)
    site.put("open/m/m.pkl")

    async def body() -> None:
        spec = await site.origins.open_spec("m", "1", await site.registered("open/m"))
        assert spec.arguments["trust_pickle"] is False

    run(body)


def test_what_was_built(place: Path) -> None:
    """Built by the operator: its code runs as before, its pickles need --trust-pickle as before."""
    site = Site(place)

    async def body() -> None:
        library = Library(site.fake, site.data / "models")
        for name, kind, spec, file in (
            ("code", "python", kept("", "model", "Model", {}), "model.py"),
            ("data", "sklearn", {}, "model.pkl"),
        ):
            folder = library.stage() / "model"
            folder.mkdir()
            (folder / file).write_text(CODE)
            await library.add(Prepared(folder, kind, spec), name)
        assert (await site.origins.open_spec("code", "1", {"model": "code", "version": "1"})).runtime == "python"
        assert (await site.origins.open_spec("data", "1", {"model": "data", "version": "1"})).arguments["trust_pickle"] is False

    run(body)


def changed(place: Path) -> None:
    (place / "open/iris/model.onnx").write_text("y")


def gone(place: Path) -> None:
    shutil.rmtree(place / "open/iris")


def a_pipe(place: Path) -> None:
    (place / "open/iris/model.onnx").unlink()
    os.mkfifo(place / "open/iris/model.onnx")


def a_link_out(place: Path) -> None:
    shutil.move(place / "open/iris/model.onnx", place / "outside/model.onnx")
    (place / "open/iris/model.onnx").symlink_to(place / "outside/model.onnx")


def another_folder(place: Path) -> None:
    shutil.move(place / "open/iris", place / "outside/iris")
    (place / "open/iris").symlink_to(place / "outside/iris")


def a_new_link(place: Path) -> None:
    (place / "outside/secret.onnx").write_text("x")
    (place / "open/iris/other.onnx").symlink_to(place / "outside/secret.onnx")


def no_root(place: Path) -> None:
    shutil.rmtree(place / "open")


@pytest.mark.parametrize("change", [changed, gone, a_pipe, a_link_out, another_folder, a_new_link, no_root])
def test_what_changed_since_it_was_registered(place: Path, change: Callable[[Path], None]) -> None:
    """Files are compared with what was registered, and places looked at again, before anything is loaded; nothing waits for ever."""
    site = Site(place)
    site.put("open/iris/model.onnx")

    async def body() -> None:
        origin = await site.registered("open/iris")
        await site.origins.open_spec("iris", "1", origin)
        change(place)
        error = await refused(site.origins.open_spec("iris", "1", origin))
        assert error.kind in (Kind.UNAVAILABLE, Kind.INVALID_INPUT)
        assert str(place) not in error.message

    run(body)


def test_files_that_came_later(place: Path) -> None:
    """A model may write into its own folder."""
    site = Site(place)
    site.put("open/iris/model.onnx")

    async def body() -> None:
        origin = await site.registered("open/iris")
        site.put("open/iris/log.md")
        await site.origins.open_spec("iris", "1", origin)

    run(body)


def test_a_root_that_is_no_longer_one(place: Path) -> None:
    """After a start without its root a version is refused, and its model's other versions are not."""
    site = Site(place)
    site.put("open/iris/model.onnx")
    site.put("safe/iris/model.onnx")

    async def body() -> None:
        first, second = await site.registered("open/iris"), await site.registered("safe/iris")
        fewer = Roots.of([], [str(place / "safe")], site.data)

        async def opened() -> Store:
            return site.fake

        origins = Origins(LateStore(opened, lambda: True), fewer, Repository([], Defaults(), roots=fewer), site.data)
        error = await refused(origins.open_spec("iris", "1", first))
        assert (error.kind, "--model-root" in error.message) == (Kind.UNAVAILABLE, True)
        assert (await origins.open_spec("iris", "2", second)).version == "2"

    run(body)


def test_links_into_the_same_root(place: Path) -> None:
    """A folder of links, as download caches have them, is a model."""
    site = Site(place)
    site.put("open/blobs/abc")
    (place / "open/iris").mkdir()
    (place / "open/iris/model.onnx").symlink_to("../blobs/abc")

    async def body() -> None:
        origin = await site.registered("open/iris")
        assert (await site.origins.open_spec("iris", "1", origin)).runtime == "onnx"
        (place / "open/blobs/abc").write_text("z")
        assert (await refused(site.origins.open_spec("iris", "1", origin))).kind is Kind.UNAVAILABLE

    run(body)


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ({"model": "nobody", "version": "1"}, Kind.NOT_FOUND),
        ({"model": "iris", "version": "9"}, Kind.NOT_FOUND),
        ({"target": "nobody"}, Kind.NOT_FOUND),
        ({"path": "/etc"}, Kind.INVALID_INPUT),
        ({"path": "relative"}, Kind.INVALID_INPUT),
        ({}, Kind.INVALID_INPUT),
        ({"model": 1, "version": 2}, Kind.INVALID_INPUT),
    ],
)
def test_origins_that_lead_nowhere(place: Path, origin: dict[str, Any], kind: Kind) -> None:
    """Each with its reason; also where there never was a database."""
    for exists in (True, False):
        site = Site(place, exists=exists)

        async def body(site: Site = site) -> None:
            assert (await refused(site.origins.open_spec("iris", "1", origin))).kind is kind

        run(body)


def test_below_a_root(place: Path) -> None:
    """A load request names what lies in a root: a folder with its versions, or a file without its suffix."""
    site = Site(place)
    site.put("open/many/config.pbtxt", 'name: "many"\nbackend: "onnxruntime"\nversion_policy: { all {} }\n')
    site.put("open/many/1/model.onnx")
    site.put("open/many/2/model.onnx")
    site.put("safe/single.onnx")

    async def body() -> None:
        many = await site.origins.below("many")
        assert many is not None
        assert set(many.versions) == {"1", "2"}
        spec = await site.origins.open_spec("many", "2", many.versions["2"])
        assert spec.artifact == str(place / "open/many/2/model.onnx")
        config = '{"backend": "onnxruntime", "max_batch_size": 4, "version_policy": {"latest": {"num_versions": 1}}}'
        latest = await site.origins.below("many", config)
        assert latest is not None
        assert set(latest.versions) == {"2"}
        assert (await site.origins.open_spec("many", "2", latest.versions["2"])).batch.max_size == 4
        error = await refused(site.origins.open_spec("many", "1", latest.versions["2"]))
        assert (error.kind, error.what) == (Kind.NOT_FOUND, "version")
        single = await site.origins.below("single")
        assert single is not None
        assert (await site.origins.open_spec("single", "1", single.versions["1"])).runtime == "onnx"
        assert await site.origins.below("nothing") is None
        assert await site.origins.below("n" * 250) is None

    run(body)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../outside", "", "stats"])
def test_names_that_lead_out_of_a_root(place: Path, name: str) -> None:
    """A name is one part of a path, never more."""
    site = Site(place)

    async def body() -> None:
        with pytest.raises(ServingError):
            await site.origins.below(name)

    run(body)


def test_what_is_no_model_below_a_root(place: Path) -> None:
    """A folder without a model, one that leads out, and one with a pipe are refused, without their place."""
    site = Site(place)
    site.put("open/empty/readme.md")
    site.put("outside/m/model.onnx")
    (place / "open/out").symlink_to(place / "outside/m")
    (place / "open/pipe").mkdir()
    os.mkfifo(place / "open/pipe/model.onnx")

    async def body() -> None:
        for name in ("empty", "out", "pipe"):
            with pytest.raises(ServingError) as caught:
                await site.origins.below(name)
            assert caught.value.kind is Kind.INVALID_INPUT
            assert str(place) not in caught.value.message

    run(body)


def test_targets(place: Path) -> None:
    """Read again from where the command line said, as before: no root, and only --trust-pickle counts."""
    (place / "outside").mkdir()
    (place / "outside/model.py").write_text(CODE)
    (place / "outside/a.onnx").write_text("x")
    site = Site(place, targets=(f"code={place}/outside/model.py", f"{place}/outside/a.onnx", f"{place}/outside/none.onnx"))

    async def body() -> None:
        assert (await site.origins.open_spec("code", "1", {"target": "code"})).runtime == "python"
        assert (await site.origins.open_spec("a", "1", {"target": "a"})).arguments["trust_pickle"] is False
        assert (await refused(site.origins.open_spec("none", "1", {"target": "none"}))).kind is Kind.INVALID_INPUT

    run(body)
