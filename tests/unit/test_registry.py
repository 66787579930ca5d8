"""The control plane: names that can be served, wishes and their generations, deploys that fail or race."""

import asyncio

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import ModelSpec
from dragoman.serving.registry import RESERVED, Registry, check_name
from tests.servables import Parts, run, settle, spec, with_parts

# --- names ---


@pytest.mark.parametrize("name", ["iris", "a b", "é", "模型", "a.b-c_d~e", "Stats1", "@", "%2F", "<script>", "x" * 255, "'\"&?#"])
def test_names_that_can_be_served(name: str) -> None:
    """Whatever a URL path can carry in one percent-encoded segment."""
    check_name(name)


@pytest.mark.parametrize("name", ["", "x" * 256, "a/b", "a:b", "a\\b", ".", "..", "a\nb", "a\0b", "\x7f", "tab\t", "half\ud800pair"])
def test_names_that_no_url_can_carry(name: str) -> None:
    """Separators of some protocol's paths, control characters, and what UTF-8 does not have."""
    with pytest.raises(ServingError) as caught:
        check_name(name)
    assert (caught.value.kind, caught.value.what) == (Kind.INVALID_INPUT, "model")
    caught.value.message.encode()


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Stats", "METRICS"])
def test_names_that_would_hide_a_route(name: str) -> None:
    """A model called `stats` could never be asked for its metadata."""
    with pytest.raises(ServingError, match=f"no model may be called '{name}'") as caught:
        check_name(name)
    assert caught.value.kind is Kind.CONFLICT


# --- wishes ---


def test_wishes_have_rising_generations_and_are_told_to_watchers() -> None:
    """Each wish replaces the whole set of versions of its model; watchers hear the name at once."""
    registry, heard = Registry(), list[str]()
    registry.watch(heard.append)
    first = registry.wish("a", {"1": spec()}, {"stable": "1"})
    second = registry.wish("b", {"1": spec()})
    third = registry.wish("a", {"2": spec("2")})
    assert first < second < third
    assert heard == ["a", "b", "a"]
    desired = registry.desired("a")
    assert desired is not None
    assert (desired.generation, list(desired.versions), desired.labels) == (third, ["2"], {})
    assert registry.desired("c") is None


def test_a_wish_is_not_changed_by_its_maker() -> None:
    """The record is a copy."""
    registry, versions = Registry(), {"1": spec()}
    registry.wish("a", versions)
    versions.clear()
    desired = registry.desired("a")
    assert desired is not None
    assert list(desired.versions) == ["1"]


def test_a_refused_name_changes_nothing() -> None:
    """No watcher hears of it."""
    registry, heard = Registry(), list[str]()
    registry.watch(heard.append)
    with pytest.raises(ServingError):
        registry.wish("a/b", {"1": spec()})
    assert (heard, registry.desired("a/b")) == ([], None)


def test_settled_waits_for_that_generation_or_a_later_one() -> None:
    """An older report is not enough, that of another model neither; a later one is."""

    async def test() -> None:
        registry = Registry()
        generation = registry.wish("a", {"1": spec()})
        waiting = [asyncio.ensure_future(registry.settled("a", generation)) for _ in range(2)]
        registry.report("a", generation - 1, {})
        registry.report("b", generation, {})
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(w.done() for w in waiting)
        registry.report("a", generation + 3, {"1": "broken"})
        assert await asyncio.gather(*waiting) == [{"1": "broken"}] * 2
        assert await registry.settled("a", generation) == {"1": "broken"}

    run(test)


# --- deploys ---


async def refused(parts: Parts, *specs: ModelSpec) -> str:
    with pytest.raises(ServingError) as caught:
        await parts.deploy(*specs)
    assert (caught.value.kind, caught.value.what) == (Kind.UNAVAILABLE, "load")
    return caught.value.message


def test_deploy_returns_when_it_is_served() -> None:
    """After it, the model is found."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"), spec("2"))
        assert parts.answering() == ("2", "a")
        assert parts.answering("1") == ("1", "a")

    with_parts(test)


def test_a_failed_reload_is_withdrawn() -> None:
    """The caller hears why; the old revision serves on, nothing says that anything failed, and the wish is the old one again."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        parts.opener.broken["1", "b"] = ServingError(Kind.INVALID_INPUT, "the file is empty")
        message = await refused(parts, spec(revision="b"))
        assert message == "model 'm' version 1 failed to load: the file is empty"
        assert parts.answering() == ("1", "a")
        assert [s.reason for s in parts.gateway.statuses("m")] == [""]
        assert parts.gateway.ready()
        desired = parts.registry.desired("m")
        assert desired is not None
        assert desired.versions["1"].revision == "a"
        assert parts.opener.begun == [("1", "a"), ("1", "b")]
        assert not parts.opener.of().closed

    with_parts(test)


def test_a_failed_first_deploy_stays_wished_with_its_reason() -> None:
    """There is nothing to go back to; asking for it again tries again."""

    async def test(parts: Parts) -> None:
        parts.opener.broken["1", "a"] = RuntimeError("out of memory")
        assert await refused(parts, spec()) == "model 'm' version 1 failed to load: RuntimeError: out of memory"
        assert [s.reason for s in parts.gateway.statuses("m")] == ["RuntimeError: out of memory"]
        assert not parts.gateway.ready()
        parts.opener.broken.clear()
        await parts.deploy(spec())
        assert parts.answering() == ("1", "a")
        assert parts.gateway.ready()

    with_parts(test)


def test_a_deploy_that_replaces_a_broken_one_is_not_withdrawn_to_it() -> None:
    """What never worked is nothing to go back to: the newest reason counts, and the old file is not opened again."""

    async def test(parts: Parts) -> None:
        parts.opener.broken = {("1", "a"): RuntimeError("first"), ("1", "b"): RuntimeError("second")}
        await refused(parts, spec())
        await refused(parts, spec(revision="b"))
        assert [s.reason for s in parts.gateway.statuses("m")] == ["RuntimeError: second"]
        assert parts.opener.begun == [("1", "a"), ("1", "b")]

    with_parts(test)


def test_one_bad_version_of_several_is_named() -> None:
    """The other is not served either when something worked before: a deploy happens as a whole or not at all."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"))
        parts.opener.broken["3", "a"] = RuntimeError("no")
        assert "version 3 failed" in await refused(parts, spec("2"), spec("3"))
        assert parts.answering() == ("1", "a")
        with pytest.raises(ServingError):
            parts.gateway.find("m", "3")

    with_parts(test)


@pytest.mark.parametrize("order", ["first", "second"])
def test_of_two_deploys_that_race_the_last_wish_wins(order: str) -> None:
    """Both callers get an end, whichever load is done first, and exactly one revision stays open."""

    async def test(parts: Parts) -> None:
        gates = {revision: parts.opener.hold("1", revision) for revision in "ab"}
        first = asyncio.ensure_future(parts.deploy(spec(revision="a")))
        await settle(lambda: parts.opener.begun == [("1", "a")])
        second = asyncio.ensure_future(parts.deploy(spec(revision="b")))
        await settle(lambda: len(parts.opener.begun) == 2)
        for revision in "ab" if order == "first" else "ba":
            gates[revision].set()
            await settle(lambda: parts.opener.running < 2)
        await asyncio.gather(first, second)
        await settle(lambda: len(parts.opener.open_now()) == 1)
        assert parts.answering() == ("1", "b")

    with_parts(test)


def test_a_race_with_a_deploy_that_fails_leaves_what_was_wished_before_it() -> None:
    """The failed one goes back to the wish before its own; both callers get an end."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold("1", "a")
        parts.opener.broken["1", "b"] = RuntimeError("no")
        first = asyncio.ensure_future(parts.deploy(spec(revision="a")))
        await settle(lambda: parts.opener.running == 1)
        second = asyncio.ensure_future(parts.deploy(spec(revision="b")))
        gate.set()
        ends = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(ends[1], ServingError)
        assert parts.answering() == ("1", "a")

    with_parts(test)
