"""Load and unload by name: what the protocols' calls do, members of composed models included."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State, Wanted
from dragoman.core.model import ModelSpec, Step
from dragoman.serving.deployments import Deployments
from dragoman.serving.gateway import VersionStatus
from dragoman.serving.operations import Operations
from dragoman.serving.origins import Origins
from dragoman.serving.polling import Polling
from dragoman.serving.reloading import Reloading
from dragoman.serving.repository import Defaults, Found, Repository
from dragoman.serving.roots import Root, Roots
from tests.fakes_store import FakeStore
from tests.models.build import identity
from tests.servables import Parts, settle, with_parts
from tests.services import NOWHERE
from tests.workers import register, stages

NO_ROOTS = Roots([], NOWHERE)


class Shelf(Repository):
    """A repository without a disk: the members of each model (none for a plain one), or a text why it cannot be read."""

    def __init__(self, **models: Sequence[str] | str) -> None:
        super().__init__([], Defaults())
        self.models = models
        self.asked: list[tuple[str, str, bool]] = []

    def find(self, name: str, config: str = "", folder: str = "") -> Found | None:
        self.asked.append((name, config, bool(folder) and (Path(folder) / "1" / "model.onnx").is_file()))
        members = self.models.get(name)
        if members is None:
            return None
        if isinstance(members, str):
            return Found(name, error=members)
        return Found(name, {"1": ModelSpec(name, revision="a", steps=tuple(Step(m) for m in members))})


def operations(parts: Parts, shelf: Repository, roots: Roots = NO_ROOTS) -> Operations:
    """With an opener that reads again what the operations have read."""
    origins = Origins(parts.late, roots, shelf, NOWHERE)

    async def spec_of(name: str, version: str, wanted: Wanted) -> ModelSpec:
        if "model" in wanted.origin:  # registered without files
            return ModelSpec(name, version, revision=wanted.revision)
        return replace(await origins.open_spec(name, version, wanted.origin), revision=wanted.revision)

    parts.opener.spec_of = spec_of  # type: ignore[method-assign] # the fake's one seam for what a wish comes to
    polling, reloading = Polling(parts.registry, shelf, parts.gateway), Reloading(parts.registry, shelf, parts.gateway)
    deployments = Deployments(parts.late, parts.registry, parts.gateway)
    return Operations(parts.registry, shelf, parts.gateway, deployments, origins, polling, reloading)


def served(parts: Parts) -> list[str]:
    return [e.name for e in parts.gateway.entries()]


def opened(parts: Parts) -> list[str]:
    """Names in the order in which they were opened."""
    return [s.spec.name for s in parts.opener.opened]


def test_a_model_is_read_from_disk_when_it_is_asked_for(tmp_path: Path) -> None:
    """What lies there at that moment is served; a file that came later is found, one that changed is loaded again."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Repository([str(tmp_path)], Defaults()))
        with pytest.raises(ServingError) as caught:
            await subject.load("m")
        assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "model")
        artifact = identity(tmp_path / "m" / "model.onnx")
        identity(tmp_path / "n" / "model.onnx")
        await subject.load("m")
        first = parts.gateway.find("m")
        assert first.spec.artifact == str(artifact)
        await subject.load("m")
        assert parts.gateway.find("m") is first
        identity(artifact, dims=("N", 3, 5))
        await subject.load("m")
        assert parts.gateway.find("m") is not first

    with_parts(test)


def test_what_cannot_be_read_is_refused_with_its_reason() -> None:
    """Nothing is asked of the registry, so what is served goes on."""

    async def test(parts: Parts) -> None:
        with pytest.raises(ServingError, match="model 'm' cannot be loaded: it holds nothing") as caught:
            await operations(parts, Shelf(m="it holds nothing")).load("m")
        assert caught.value.kind is Kind.INVALID_INPUT
        assert parts.registry.desired("m") is None

    with_parts(test)


def test_configuration_and_files_reach_the_repository() -> None:
    """They stand for what lies on disk."""

    async def test(parts: Parts) -> None:
        shelf = Shelf(m=())
        await operations(parts, shelf).load("m", "{}", {"1/model.onnx": b"bytes"})
        assert set(shelf.asked) == {("m", "{}", True)}
        shelf.close()

    with_parts(test)


def test_members_are_loaded_first() -> None:
    """Those that are served already are left alone."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(top=("middle", "left"), middle=("left", "right"), left=(), right=()))
        await subject.load("left")
        await subject.load("top")
        assert opened(parts) == ["left", "right", "middle", "top"]
        assert served(parts) == ["left", "middle", "right", "top"]

    with_parts(test)


def test_a_member_that_does_not_exist_stops_the_load() -> None:
    """The message names the member."""

    async def test(parts: Parts) -> None:
        with pytest.raises(ServingError, match="model 'lost' is not in any"):
            await operations(parts, Shelf(top=("lost",))).load("top")
        assert served(parts) == []

    with_parts(test)


@pytest.mark.parametrize("shelf", [Shelf(a=("a",)), Shelf(a=("b",), b=("a",))], ids=["itself", "each other"])
def test_members_in_a_circle_are_refused(shelf: Shelf) -> None:
    """A model that contains itself is too deep, and nothing of it is opened."""

    async def test(parts: Parts) -> None:
        with pytest.raises(ServingError, match="deep"):
            await operations(parts, shelf).load("a")
        assert opened(parts) == []

    with_parts(test)


def test_unload_and_load_again() -> None:
    """Unloading leaves a note of it; loading again serves as before."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(m=()))
        await subject.load("m")
        await subject.unload("m")
        await settle(lambda: [s.state for s in parts.gateway.statuses("m")] == [State.GONE])
        with pytest.raises(ServingError, match="model 'm' is unloaded"):
            parts.gateway.find("m")
        await subject.unload("m")
        await subject.load("m")
        assert served(parts) == ["m"]
        assert opened(parts) == ["m", "m"]

    with_parts(test)


def test_unloading_what_was_never_known_is_refused() -> None:
    """A typing error is not taken for done."""

    async def test(parts: Parts) -> None:
        with pytest.raises(ServingError) as caught:
            await operations(parts, Shelf(m=())).unload("m")
        assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "model")

    with_parts(test)


def test_a_model_that_failed_can_be_unloaded() -> None:
    """Then nothing is wrong any more, and the name is free."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(m=()))
        parts.opener.broken["1", "a"] = RuntimeError("no")
        with pytest.raises(ServingError, match="RuntimeError: no"):
            await subject.load("m")
        assert not parts.gateway.ready()
        await subject.unload("m")
        await settle(parts.gateway.ready)
        assert parts.gateway.statuses() == []

    with_parts(test)


@pytest.mark.parametrize("members_too", [False, True])
def test_members_are_unloaded_only_when_asked_for(members_too: bool) -> None:
    """They may serve others and clients of their own."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(top=("a", "b"), a=(), b=(), other=()))
        for name in ("top", "other"):
            await subject.load(name)
        await subject.unload("top", members_too=members_too)
        await settle(lambda: not any(s.state is State.DRAINING for s in parts.gateway.statuses()))
        assert served(parts) == (["other"] if members_too else ["a", "b", "other"])

    with_parts(test)


# --- registered models, and folders of model roots ---


def two_roots(tmp_path: Path) -> Roots:
    return Roots([Root(tmp_path / "a"), Root(tmp_path / "b")], tmp_path / "data")


def test_a_name_is_looked_for_among_targets_then_in_the_registry_then_in_the_roots(tmp_path: Path) -> None:
    """What was found decides how long it holds: targets till the end of the server, everything else for ever."""
    identity(tmp_path / "a" / "both" / "model.onnx")
    identity(tmp_path / "b" / "folder" / "model.onnx")

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(target=()), two_roots(tmp_path))
        await register(parts.store, "1", "2", model="both")
        await register(parts.store, "1", model="target")
        for name in ("target", "both", "folder"):
            await subject.load(name)
        assert served(parts) == ["both", "folder", "target"]
        documents = {wish.model: wish.document["versions"] for wish in await parts.store.wishes()}
        assert documents.keys() == {"both", "folder"}
        assert documents["both"]["2"]["origin"] == {"model": "both", "version": "2"}
        assert documents["folder"]["1"]["origin"] == {"path": str(tmp_path / "b" / "folder")}
        assert set(parts.registry.document("target", "run")["versions"]) == {"1"}
        for name in ("target", "both", "folder"):
            await subject.unload(name)
        await settle(lambda: served(parts) == [])
        assert [wish.document for wish in await parts.store.wishes()] == [{}, {}]

    with_parts(test)


def test_a_registered_version_by_number_alias_or_stage(tmp_path: Path) -> None:
    """Beside those that are served; its stage stays what it is, and it takes no configuration."""

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf())
        await register(parts.store, "1", "2", "3", model="m")
        await parts.store.set_alias("m", "champion", "1")
        await parts.store.change_version("m", "2", updated=5.0, stage="Staging")
        for text, expected in (("champion", ["1"]), ("Staging", ["1", "2"]), ("", ["1", "2", "3"])):
            await subject.load("m", version=text)
            assert [e.version for e in parts.gateway.entries()] == expected
        assert await stages(parts.store, "m") == {"1": "", "2": "Staging", "3": ""}
        with pytest.raises(ServingError, match="no version 'nobody'"):
            await subject.load("m", version="nobody")
        with pytest.raises(ServingError, match="takes no other configuration"):
            await subject.load("m", "{}")

    with_parts(test)


def test_a_folder_that_cannot_be_read_or_does_not_load_leaves_nothing(tmp_path: Path) -> None:
    """Neither a wish nor a status, but the reason of what was tried."""
    (tmp_path / "a" / "empty").mkdir(parents=True)
    identity(tmp_path / "a" / "broken" / "model.onnx")

    async def test(parts: Parts) -> None:
        subject = operations(parts, Shelf(), two_roots(tmp_path))
        parts.opener.fails["1"] = RuntimeError("no memory")
        with pytest.raises(ServingError) as caught:
            await subject.load("empty")
        assert caught.value.kind is Kind.INVALID_INPUT
        assert str(tmp_path) not in caught.value.message
        with pytest.raises(ServingError, match="model 'broken' version 1 failed to load: RuntimeError: no memory"):
            await subject.load("broken")
        assert ["versions" in wish.document for wish in await parts.store.wishes()] == [False]
        assert [(s.state, s.reason) for s in parts.gateway.statuses("broken")] == [(State.GONE, "not loaded: RuntimeError: no memory")]
        assert parts.gateway.ready()

    with_parts(test)


def test_what_could_be_loaded(tmp_path: Path) -> None:
    """Targets, registered models and folders of the roots, each once and no more than asked for; without the store what is left."""
    for name in ("x", "y", "stats", "empty"):
        (tmp_path / "a" / name).mkdir(parents=True)
    for name in ("x", "y", "stats"):
        identity(tmp_path / "a" / name / "model.onnx")
    identity(tmp_path / "a" / "single.onnx")
    (tmp_path / "a" / "notes.md").touch()

    async def test(parts: Parts) -> None:
        subject = operations(parts, Repository([str(tmp_path / "a" / "y")], Defaults()), two_roots(tmp_path))
        await register(parts.store, "1", model="r")
        assert await subject.unloaded(100) == ["y", "r", "single", "x"]
        assert await subject.unloaded(2) == ["y", "r"]
        store = parts.store
        assert isinstance(store, FakeStore)
        store.failure = ServingError(Kind.UNAVAILABLE, "the server's database is gone")
        assert await subject.unloaded(100) == ["y", "single", "x"]

    with_parts(test)


def test_files_of_requests_are_removed_when_they_are_replaced_or_fail(tmp_path: Path) -> None:
    """One folder at a time, in the one that all workers share; none after the model is unloaded."""
    content = identity(tmp_path / "model.onnx").read_bytes()

    def folders() -> list[Path]:
        return list((tmp_path / "shared" / "models").iterdir())

    async def test(parts: Parts) -> None:
        (tmp_path / "shared").mkdir()
        subject = operations(parts, Repository([], Defaults(), shared=tmp_path / "shared"))
        await subject.load("m", '{"backend": "onnxruntime"}', {"1/model.onnx": content})
        (first,) = folders()
        await subject.load("m", '{"backend": "onnxruntime"}', {"2/model.onnx": content})
        (second,) = folders()
        assert first != second
        parts.opener.fails["3"] = RuntimeError("no")
        with pytest.raises(ServingError):
            await subject.load("m", '{"backend": "onnxruntime"}', {"3/model.onnx": content})
        assert folders() == [second]
        assert [e.version for e in parts.gateway.entries()] == ["2"]
        await subject.unload("m")
        assert folders() == []

    with_parts(test)


def test_a_target_that_cannot_be_read_can_be_unloaded() -> None:
    """Its status goes, and the server is ready."""

    async def test(parts: Parts) -> None:
        parts.gateway.publish("bad", [VersionStatus("bad", "", State.FAILED, "it is damaged")], {})
        assert not parts.gateway.ready()
        await operations(parts, Shelf(bad="it is damaged")).unload("bad")
        assert parts.gateway.ready()
        assert parts.gateway.statuses() == []

    with_parts(test)
