"""Load and unload by name: what the protocols' calls do, members of composed models included."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State, Wanted
from dragoman.core.model import ModelSpec, Step
from dragoman.serving.deployments import Deployments
from dragoman.serving.operations import Operations
from dragoman.serving.origins import Origins
from dragoman.serving.repository import Defaults, Found, Repository
from dragoman.serving.roots import Roots
from tests.models.build import identity
from tests.servables import Parts, settle, with_parts
from tests.services import NOWHERE

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
        return replace(await origins.open_spec(name, version, wanted.origin), revision=wanted.revision)

    parts.opener.spec_of = spec_of  # type: ignore[method-assign] # the fake's one seam for what a wish comes to
    return Operations(parts.registry, shelf, parts.gateway, Deployments(parts.late, parts.registry, parts.gateway), origins)


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
