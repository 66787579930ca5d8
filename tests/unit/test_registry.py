"""The control plane: names that can be served, wishes and their generations, deploys that fail or race."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import Wanted
from dragoman.core.model import ModelSpec
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import FIXED, entry
from dragoman.serving.words import RESERVED, check_name
from dragoman.store import Rewrite, Wish
from tests.fakes_store import FakeStore
from tests.servables import Parts, late, run, settle, spec, with_parts

# --- names ---


@pytest.mark.parametrize("name", ["iris", "a b", "é", "模型", "a.b-c_d~e", "Stats1", "@", "%2F", "<script>", "x" * 256, "'\"&?#"])
def test_names_that_can_be_served(name: str) -> None:
    """Whatever a URL path can carry in one percent-encoded segment."""
    check_name(name)


@pytest.mark.parametrize("name", ["", "x" * 257, "a/b", "a:b", "a\\b", ".", "..", "a\nb", "a\0b", "\x7f", "tab\t", "half\ud800pair"])
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


def with_registry(test: Callable[[Registry], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test(Registry(late(FakeStore())))

    run(whole)


def asking(*versions: str, **more: object) -> Rewrite:
    """Rewrites any wish to one for these versions."""
    return lambda _: {"versions": {v: entry("a", {"model": "m", "version": v}) for v in versions}, **more}


def test_wishes_have_rising_generations_and_are_told_to_watchers() -> None:
    """Watchers hear the name at once; labels move under the same generation as versions."""

    async def test(registry: Registry) -> None:
        heard = list[str]()
        registry.watch(heard.append)
        first = await registry.wish("a", asking("1", labels={"stable": "1"}))
        second = await registry.wish("b", asking("1"))
        third = await registry.wish("a", asking("2"))
        assert first.generation < second.generation < third.generation
        assert heard == ["a", "b", "a"]
        desired = registry.desired("a")
        assert desired is not None
        assert (dict(desired.versions), desired.labels) == ({"2": Wanted("a", None, {"model": "m", "version": "2"})}, {})
        assert registry.desired("c") is None
        assert registry.names() == ["a", "b"]

    with_registry(test)


def test_a_wish_is_made_of_the_one_that_stands() -> None:
    """Nobody can come between; to leave it as it is makes no generation."""

    async def test(registry: Registry) -> None:
        await registry.wish("a", asking("1"))
        added = await registry.wish("a", lambda standing: {**standing.document, "labels": {"x": "1"}} if standing else None)
        assert set(added.document) == {"versions", "labels"}
        assert (await registry.wish("a", lambda _: None)).generation == added.generation

    with_registry(test)


def test_a_refused_name_changes_nothing() -> None:
    """No watcher hears of it."""

    async def test(registry: Registry) -> None:
        heard = list[str]()
        registry.watch(heard.append)
        with pytest.raises(ServingError):
            await registry.wish("a/b", asking("1"))
        with pytest.raises(ServingError):
            registry.fix("a/b", {"1": spec()})
        assert (heard, registry.desired("a/b")) == ([], None)

    with_registry(test)


def test_targets_stand_beside_what_is_stored_and_win_where_they_clash() -> None:
    """They are never stored; whoever asks for a version of theirs in the registry is told by deployments.py."""

    async def test(registry: Registry) -> None:
        await registry.wish("m", asking("1", "2", labels={"champion": "2"}))
        registry.fix("m", {"1": spec(revision="file")}, {"stable": "1"})
        desired = registry.desired("m")
        assert desired is not None
        assert {v: w.revision for v, w in desired.versions.items()} == {"1": "file", "2": "a"}
        assert desired.labels == {"champion": "2", "stable": "1"}
        assert set(registry.fixed("m")) == {"1"}
        assert set(registry.document("m")["versions"]) == {"1", "2"}

    with_registry(test)


def test_a_wish_of_the_run_replaces_the_targets_of_that_name() -> None:
    """Unloaded, loaded otherwise, and as on the command line again; what is stored for ever stays beside it."""

    async def test(registry: Registry) -> None:
        async def after(rewrite: Rewrite) -> dict[str, str]:
            await registry.wish("m", rewrite, run="run")
            desired = registry.desired("m")
            assert desired is not None
            return {version: wanted.revision for version, wanted in desired.versions.items()}

        registry.fix("m", {"1": spec(revision="file")})
        await registry.wish("m", asking("7"))
        assert await after(lambda _: {}) == {"7": "a"}
        assert await after(asking("3")) == {"3": "a", "7": "a"}
        assert await after(lambda _: FIXED) == {"1": "file", "7": "a"}

    with_registry(test)


def test_wishes_of_another_run_are_nobodys() -> None:
    """A server that has ended took them with it."""

    async def test(registry: Registry) -> None:
        registry.absorb([Wish("m", 5, {"versions": {"1": entry("a", {})}}, "another")])
        assert registry.desired("m") is None

    with_registry(test)


def test_wishes_that_are_read_late_change_nothing() -> None:
    """What is read from the store may be older than what this worker has wished itself."""

    async def test(registry: Registry) -> None:
        wish = await registry.wish("m", asking("2"))
        registry.absorb([Wish("m", wish.generation - 1, {"versions": {"1": entry("a", {})}})])
        assert list(registry.document("m")["versions"]) == ["2"]

    with_registry(test)


def test_settled_waits_until_what_is_desired_is_applied() -> None:
    """A report about another model is not enough, nor one from before the wish."""

    async def test(registry: Registry) -> None:
        await registry.wish("b", asking("1"))
        await registry.wish("a", asking("1"))
        registry.report("a", {})
        wish = await registry.wish("a", asking("2"))
        waiting = [asyncio.ensure_future(registry.settled("a", wish.generation)) for _ in range(2)]
        registry.report("b", {})
        for _ in range(5):
            await asyncio.sleep(0)
        assert not any(w.done() for w in waiting)
        registry.report("a", {"1": "broken"})
        assert await asyncio.gather(*waiting) == [{"1": "broken"}] * 2
        assert await registry.settled("a", wish.generation) == {"1": "broken"}
        assert await registry.settled("never heard of") == {}

    with_registry(test)


def test_a_store_that_fails_fails_the_wish_and_nothing_else() -> None:
    """What is desired stays; the error is the store's."""

    async def test() -> None:
        store = FakeStore()
        registry = Registry(late(store))
        await registry.wish("m", asking("1"))
        store.failure = ServingError(Kind.UNAVAILABLE, "the server's database is gone")
        with pytest.raises(ServingError, match="database is gone"):
            await registry.wish("m", asking("2"))
        assert list(registry.document("m")["versions"]) == ["1"]

    run(test)


def test_a_server_alone_needs_no_store_for_its_targets() -> None:
    """What holds for one run of it is kept in memory."""

    async def test() -> None:
        store = FakeStore()
        store.failure = ServingError(Kind.UNAVAILABLE, "never asked")
        registry = Registry(late(store))
        registry.fix("m", {"1": spec()})
        wish = await registry.wish("m", asking("2"), run="run")
        assert (await registry.wish("m", asking("2"), run="run")).generation == wish.generation
        assert (await registry.wish("m", lambda _: {}, run="run")).generation > wish.generation

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
