"""What every store promises about models, versions, tags, stages and numbers: one suite over all of them."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.store import RegisteredModel, Store, StoredVersion
from tests.stores import CASES, MEMORY, SHARED, SQLITE, Case, as_stored, version, with_store, with_stores

every_store = pytest.mark.parametrize("case", CASES, ids=str)
every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)


async def refused(awaitable: Awaitable[object], kind: Kind, what: str) -> str:
    with pytest.raises(ServingError) as caught:
        await awaitable
    assert (caught.value.kind, caught.value.what) == (kind, what)
    return caught.value.message


# --- models ---


@every_store
def test_a_model_comes_back_as_it_was_added(case: Case, tmp_path: Path) -> None:
    """With its number; `updated` is its creation where nobody said otherwise. Tags may be words or have values."""

    async def body(store: Store) -> None:
        given = RegisteredModel("größe", 5.0, description="a\nb'\"", tags={"b": "", "a": "ü=1"})
        first = await store.add_model(given)
        assert first == replace(given, updated=5.0, number=1)
        assert await store.model("größe") == first
        second = await store.add_model(RegisteredModel("b", 3.0, updated=4.0))
        assert (second.updated, second.number) == (4.0, 2)
        assert await store.models() == [second, first]
        assert await store.model("c") is None
        assert await store.versions("b") == []

    with_store(case, tmp_path, body)


@every_store
def test_models_are_listed_by_name(case: Case, tmp_path: Path) -> None:
    """By the characters themselves, whatever language the database sorts in; those that came with a version are among them."""
    names = ["b", "B", "a-b", "aB", "ab", "Z", "ä", "_", "1", "10", "2"]

    async def body(store: Store) -> None:
        for name in names[:6]:
            await store.add_model(RegisteredModel(name, 1.0))
        for name in names[6:]:
            await store.add_version(version(name))
        assert [model.name for model in await store.models()] == sorted(names)

    with_store(case, tmp_path, body)


@every_store
def test_a_name_is_taken_once(case: Case, tmp_path: Path) -> None:
    """CONFLICT, and nothing of the first changes; that it came with a version makes no difference."""

    async def body(store: Store) -> None:
        first = await store.add_model(RegisteredModel("m", 1.0, tags={"a": "1"}))
        assert "'m'" in await refused(store.add_model(RegisteredModel("m", 2.0, tags={"b": "2"})), Kind.CONFLICT, "model")
        assert await store.models() == [first]
        await store.add_version(version("n"))
        await refused(store.add_model(RegisteredModel("n", 2.0)), Kind.CONFLICT, "model")

    with_store(case, tmp_path, body)


@every_store
def test_of_many_who_make_one_model_one_succeeds(case: Case, tmp_path: Path) -> None:
    """The others get CONFLICT, and strangers do not notice."""

    async def body(store: Store) -> None:
        same = [store.add_model(RegisteredModel("m", 1.0, description=str(n))) for n in range(10)]
        others = [store.add_model(RegisteredModel(f"other-{n}", 1.0)) for n in range(10)]
        results = await asyncio.gather(*same, *others, return_exceptions=True)
        assert sum(isinstance(result, RegisteredModel) for result in results[:10]) == 1
        assert all(isinstance(result, RegisteredModel) for result in results[10:])
        assert len(await store.models()) == 11

    with_store(case, tmp_path, body)


@every_store
def test_a_model_that_was_made_on_purpose_stays(case: Case, tmp_path: Path) -> None:
    """Without versions, too; one that came with a version goes with its last one, whatever it was called meanwhile."""

    async def body(store: Store) -> None:
        await store.add_model(RegisteredModel("made", 1.0))
        for name in ("made", "came"):
            await store.add_version(version(name, "1"))
            await store.add_version(version(name, "2"))
            await store.change_model(name, updated=2.0, new_name=f"{name}-too", description="x")
            assert await store.remove_version(f"{name}-too", "1")
        assert [model.name for model in await store.models()] == ["came-too", "made-too"]
        assert await store.remove_version("made-too", "2")
        assert await store.remove_version("came-too", "2")
        assert [model.name for model in await store.models()] == ["made-too"]

    with_store(case, tmp_path, body)


@every_store
def test_a_removed_model_takes_everything_with_it(case: Case, tmp_path: Path) -> None:
    """Versions, aliases, tags; the name is free then and gets a number of its own. Removing twice says so."""

    async def body(store: Store) -> None:
        first = await store.add_model(RegisteredModel("m", 1.0, tags={"a": "1"}))
        await store.add_version(version(tags={"b": "2"}), aliases=["x"])
        other = await store.add_version(version("n", tags={"c": "3"}), aliases=["x"])
        assert await store.remove_model("m") is True
        assert await store.remove_model("m") is False
        assert await store.versions() == [other]
        assert await store.aliases() == {("n", "x"): "1"}
        again = await store.add_model(RegisteredModel("m", 2.0))
        assert again.number > first.number
        assert again.tags == {}
        assert (await store.add_version(version())).tags == {}
        assert await store.aliases("m") == {}

    with_store(case, tmp_path, body)


@every_store
def test_everything_follows_a_new_name(case: Case, tmp_path: Path) -> None:
    """Versions, aliases and tags; what people said about it stays, and the old name is free."""

    async def body(store: Store) -> None:
        model = await store.add_model(RegisteredModel("m", 1.0, description="d", tags={"a": "1"}))
        one = await store.add_version(version("m", "1", tags={"b": "2"}, facts={"run_id": "r"}, stage="S"), aliases=["x", "y"])
        two = await store.add_version(version("m", "2"), aliases=["z"])
        other = await store.add_version(version("n", "1", tags={"b": "n"}), aliases=["x"])
        renamed = await store.change_model("m", updated=200.0, new_name="ü")
        assert renamed == replace(model, name="ü", updated=200.0)
        assert await store.model("m") is None
        assert await store.model("ü") == renamed
        assert await store.versions("ü") == [replace(two, model="ü"), replace(one, model="ü")]
        assert await store.versions("m") == []
        assert await store.version("n", "1") == other
        assert await store.aliases() == {("n", "x"): "1", ("ü", "x"): "1", ("ü", "y"): "1", ("ü", "z"): "2"}
        assert (await store.add_model(RegisteredModel("m", 1.0))).tags == {}

    with_store(case, tmp_path, body)


@every_store
def test_a_change_of_a_model_that_cannot_be(case: Case, tmp_path: Path) -> None:
    """NOT_FOUND, or CONFLICT for a name that is taken; its own name is not. Nothing has changed then."""

    async def body(store: Store) -> None:
        await store.add_model(RegisteredModel("m", 1.0))
        await store.add_version(version("n"))
        before = await store.models()
        await refused(store.change_model("x", updated=2.0, description="y"), Kind.NOT_FOUND, "model")
        await refused(store.change_model("x", updated=2.0, new_name="m"), Kind.NOT_FOUND, "model")
        await refused(store.change_model("m", updated=2.0, new_name="n", description="y"), Kind.CONFLICT, "model")
        await refused(store.tag_model("x", "a", "b", updated=2.0), Kind.NOT_FOUND, "model")
        await refused(store.tag_model("x", "a", None, updated=2.0), Kind.NOT_FOUND, "model")
        assert await store.models() == before
        same = await store.change_model("m", updated=2.0, new_name="m")
        assert (same.name, same.updated) == ("m", 2.0)

    with_store(case, tmp_path, body)


@every_store
def test_what_is_not_given_stays(case: Case, tmp_path: Path) -> None:
    """None leaves a description as it is, and an empty one takes it away."""

    async def body(store: Store) -> None:
        await store.add_model(RegisteredModel("m", 1.0, description="d"))
        assert (await store.change_model("m", updated=2.0)).description == "d"
        assert (await store.change_model("m", updated=3.0, description="")).description == ""
        assert (await store.change_model("m", updated=4.0, description="e")).description == "e"

    with_store(case, tmp_path, body)


# --- numbers of versions ---


@every_store
@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "1"),
        (["1", "2"], "3"),
        (["7"], "8"),
        (["9", "10"], "11"),
        (["abc", "v2", "1.5", "-4", "²", "٣", ""], "2"),
        (["3", "20260801"], "20260802"),
        (["5", "99999999999999999999", str(2**31 - 1), "9" * 5000], "6"),
        ([str(2**31 - 2)], str(2**31 - 1)),
    ],
    ids=["first", "next", "gap", "by value", "words", "dates", "too high", "highest"],
)
def test_the_number_after_the_highest(case: Case, there: list[str], expected: str, tmp_path: Path) -> None:
    """Whatever else the versions of the model are called, and not counting other models."""

    async def body(store: Store) -> None:
        await store.add_version(version("other", "50"))
        for one in there:
            await store.add_version(version("m", one))
        added = await store.add_version(version("m", "", digest="new"), aliases=["a"])
        assert (added.version, added.digest) == (expected, "new")
        assert await store.version("m", expected) == added
        assert await store.aliases("m") == {("m", "a"): expected}

    with_store(case, tmp_path, body)


@every_shared_store
def test_all_get_different_numbers(case: Case, tmp_path: Path) -> None:
    """Who adds a version without a number at the same moment, in one process and through several stores."""

    async def body(stores: list[Store]) -> None:
        added = await asyncio.gather(*(store.add_version(version("m", "")) for store in stores for _ in range(20)))
        assert sorted(int(one.version) for one in added) == list(range(1, 61))
        assert len({one.number for one in added}) == 60
        assert len(await stores[0].models()) == 1

    with_stores(case, tmp_path, 3, body)


@every_store
def test_numbers_in_the_order_of_creation(case: Case, tmp_path: Path) -> None:
    """Those of versions and models are counted apart, are kept when a version is replaced, and never given twice."""

    async def body(store: Store) -> None:
        one = await store.add_version(version("m", "1", created=9.0))
        two = await store.add_version(version("n", "1", created=8.0))
        assert (one.number, two.number) == (1, 2)
        assert [(model.name, model.number) for model in await store.models()] == [("m", 1), ("n", 2)]
        assert (await store.add_version(version("m", "1", digest="new"), replace=True)).number == 1
        await store.remove_version("n", "1")
        three = await store.add_version(version("n", "1"))
        assert three.number == 3
        assert [model.number for model in await store.models()] == [1, 3]

    with_store(case, tmp_path, body)


@every_store
def test_content_that_is_there_is_taken(case: Case, tmp_path: Path) -> None:
    """With `reuse`: the newest of that digest of which it is true gets the aliases and stays as it is. Without one, a version is added."""

    async def body(store: Store) -> None:
        old = await store.add_version(version("m", "1", digest="d", created=1.0, tags={"a": ""}))
        new = await store.add_version(version("m", "2", digest="d", created=2.0, folder="/x"))
        await store.add_version(version("m", "3", digest="e", created=3.0))
        await store.add_version(version("n", "1", digest="f"))
        asked = version("m", "", digest="d", created=4.0, description="not taken")
        assert await store.add_version(asked, aliases=["a"], reuse=lambda _: True) == new
        assert await store.add_version(asked, aliases=["b"], reuse=lambda v: not v.folder) == old
        assert await store.aliases() == {("m", "a"): "2", ("m", "b"): "1"}
        assert (await store.model("m") or asked).updated == 3.0
        added = [
            await store.add_version(asked, reuse=lambda _: False),
            await store.add_version(version("m", "", digest="f"), reuse=lambda _: True),
            await store.add_version(version("new", "", digest="d"), reuse=lambda _: True),
        ]
        assert [(one.model, one.version) for one in added] == [("m", "4"), ("m", "5"), ("new", "1")]

    with_store(case, tmp_path, body)


@every_shared_store
def test_the_same_content_at_one_moment_is_one_version(case: Case, tmp_path: Path) -> None:
    """Each of those who add it gets its own alias on it."""

    async def body(stores: list[Store]) -> None:
        adding = [
            store.add_version(version("m", ""), aliases=[f"{place}-{n}"], reuse=lambda _: True)
            for place, store in enumerate(stores)
            for n in range(10)
        ]
        assert {one.version for one in await asyncio.gather(*adding)} == {"1"}
        assert set((await stores[0].aliases()).values()) == {"1"}
        assert len(await stores[0].aliases()) == 30

    with_stores(case, tmp_path, 3, body)


# --- what people say about a version ---


@every_store
def test_every_field_of_a_version_comes_back(case: Case, tmp_path: Path) -> None:
    """Also those that one face of the registry keeps for itself."""
    added = version(
        description="größe\n",
        stage="Some Stage",
        updated=101.5,
        tags={"b": "", "a": "=", "ü": "x" * 5000},
        facts={"user_id": "", "id": "0" * 32, "dataset": "d\ud800\0"},
    )

    async def body(store: Store) -> None:
        stored = await store.add_version(added)
        assert stored == as_stored(added)
        assert await store.version("m", "1") == stored
        assert await store.versions() == [stored]

    with_store(case, tmp_path, body)


@every_store
def test_a_replaced_version_has_nothing_of_the_old_one(case: Case, tmp_path: Path) -> None:
    """Neither its tags nor its facts nor its description: it is another one under that number."""

    async def body(store: Store) -> None:
        await store.add_version(version(tags={"a": "1", "b": "2"}, facts={"x": "y"}, description="d", stage="S"))
        await store.add_version(version(tags={"b": "3"}, digest="new"), replace=True)
        assert await store.version("m", "1") == as_stored(version(tags={"b": "3"}, digest="new"))

    with_store(case, tmp_path, body)


@every_store
def test_a_version_is_changed(case: Case, tmp_path: Path) -> None:
    """What is None stays; facts are merged; the answer is what is stored. Its model is as new as its newest version."""

    async def body(store: Store) -> None:
        first = await store.add_version(version(facts={"a": "1", "b": "2"}, description="d"))
        other = await store.add_version(version("m", "2"))
        changed = await store.change_version("m", "1", updated=150.0, facts={"b": "3", "c": "4"})
        assert changed == replace(first, updated=150.0, facts={"a": "1", "b": "3", "c": "4"})
        changed = await store.change_version("m", "1", updated=160.0, description="", stage="Staging")
        assert changed == replace(first, updated=160.0, facts={"a": "1", "b": "3", "c": "4"}, description="", stage="Staging")
        assert await store.version("m", "1") == changed
        assert await store.version("m", "2") == other
        model = await store.model("m")
        assert model is not None
        assert (model.created, model.updated) == (100.0, 160.0)
        await store.change_version("m", "2", updated=1.0, stage="x")
        assert await store.model("m") == model

    with_store(case, tmp_path, body)


@every_store
def test_a_stage_can_be_for_one_version_only(case: Case, tmp_path: Path) -> None:
    """The others of the model that were in it go to the archive; those in other stages and of other models stay."""

    async def body(store: Store) -> None:
        for number, stage in (("1", "Production"), ("2", "Staging"), ("3", "Production"), ("4", "")):
            await store.add_version(version("m", number, stage=stage))
        await store.add_version(version("n", "1", stage="Production"))
        await store.change_version("m", "4", updated=200.0, stage="Production")
        assert [v.stage for v in await store.versions("m")] == ["Production", "Production", "Staging", "Production"]
        await store.change_version("m", "4", updated=300.0, stage="Production", archive="Archived")
        found = {v.version: (v.stage, v.updated) for v in await store.versions("m")}
        assert found == {"1": ("Archived", 300.0), "2": ("Staging", 100.0), "3": ("Archived", 300.0), "4": ("Production", 300.0)}
        assert [v.stage for v in await store.versions("n")] == ["Production"]
        await store.change_version("m", "2", updated=400.0, archive="Archived")
        assert {v.version: v.stage for v in await store.versions("m")}["4"] == "Production"

    with_store(case, tmp_path, body)


@every_store
def test_what_is_not_there_cannot_be_changed(case: Case, tmp_path: Path) -> None:
    """NOT_FOUND for the version, also where its model exists; nothing is archived then."""

    async def body(store: Store) -> None:
        await store.add_version(version("m", "1", stage="S"))
        before = await store.versions()
        for model, number in (("m", "2"), ("n", "1")):
            words = await refused(store.change_version(model, number, updated=2.0, stage="S", archive="A"), Kind.NOT_FOUND, "version")
            assert f"'{number}'" in words
            await refused(store.tag_version(model, number, "a", "b", updated=2.0), Kind.NOT_FOUND, "version")
            await refused(store.tag_version(model, number, "a", None, updated=2.0), Kind.NOT_FOUND, "version")
        assert await store.versions() == before

    with_store(case, tmp_path, body)


# --- tags ---


@every_store
def test_tags_are_set_changed_and_removed(case: Case, tmp_path: Path) -> None:
    """Of models and of versions; removing one that is not there is no error. Whoever looks sees when that was."""

    async def body(store: Store) -> None:
        await store.add_version(version(tags={"kept": "1"}))
        await store.tag_model("m", "a", "1", updated=201.0)
        await store.tag_model("m", "b", "", updated=202.0)
        await store.tag_model("m", "a", "2", updated=203.0)
        model = await store.model("m")
        assert model is not None
        assert (model.tags, model.updated) == ({"a": "2", "b": ""}, 203.0)
        await store.tag_model("m", "a", None, updated=204.0)
        await store.tag_model("m", "none", None, updated=205.0)
        assert await store.models() == [replace(model, tags={"b": ""}, updated=205.0)]

        await store.tag_version("m", "1", "a", "x", updated=301.0)
        await store.tag_version("m", "1", "a", "y", updated=302.0)
        await store.tag_version("m", "1", "none", None, updated=303.0)
        found = await store.version("m", "1")
        assert found is not None
        assert (found.tags, found.updated) == ({"a": "y", "kept": "1"}, 303.0)
        await store.tag_version("m", "1", "kept", None, updated=304.0)
        assert [v.tags for v in await store.versions()] == [{"a": "y"}]
        assert [m.tags for m in await store.models()] == [{"b": ""}]

    with_store(case, tmp_path, body)


@every_shared_store
def test_tags_at_one_moment_are_all_there(case: Case, tmp_path: Path) -> None:
    """Different keys and the same key, through several stores."""

    async def body(stores: list[Store]) -> None:
        await stores[0].add_version(version())
        setting = [store.tag_version("m", "1", f"{place}-{n}", "", updated=1.0) for place, store in enumerate(stores) for n in range(10)]
        same = [store.tag_model("m", "same", str(place), updated=1.0) for place, store in enumerate(stores) for _ in range(10)]
        await asyncio.gather(*setting, *same)
        found = await stores[0].version("m", "1")
        assert found is not None
        assert len(found.tags) == 30
        model = await stores[0].model("m")
        assert model is not None
        assert model.tags["same"] in ("0", "1", "2")

    with_stores(case, tmp_path, 3, body)


@pytest.mark.parametrize("case", SHARED, ids=str)
@pytest.mark.parametrize("keys", [["a\ud800", "a\udfff", "a?"], ["a\0", "a\ufffd"]], ids=["surrogates", "NUL"])
def test_keys_that_no_database_tells_apart_are_one(case: Case, keys: list[str], tmp_path: Path) -> None:
    """What a database cannot hold is replaced in keys, too: the last one counts, and nothing fails."""

    async def body(store: Store) -> None:
        tags = {key: str(n) for n, key in enumerate(keys)}
        last = {keys[-1]: str(len(keys) - 1)}
        assert (await store.add_model(RegisteredModel("k", 1.0, tags=tags))).tags == last
        assert (await store.add_version(version(tags=tags), aliases=keys)).tags == last
        assert await store.aliases() == {("m", keys[-1]): "1"}
        for key in keys:
            await store.tag_version("m", "1", key, key, updated=2.0)
            await store.tag_model("m", key, key, updated=2.0)
        found = await store.version("m", "1")
        assert found is not None
        assert found.tags == {keys[-1]: keys[-1]}

    with_store(case, tmp_path, body)


@every_store
def test_the_longest_names_are_held(case: Case, tmp_path: Path) -> None:
    """As long as the registry lets them be, of the widest characters and without anything to compress: an index bounds what is a key."""
    chance = random.Random(1)
    name, key, alias = ("".join(chr(chance.randrange(0x10000, 0x2FFFF)) for _ in range(256)) for _ in range(3))

    async def body(store: Store) -> None:
        added = await store.add_version(version(name, str(2**31 - 1), tags={key: "x" * 5000}, description="ü" * 100_000), aliases=[alias])
        await store.tag_model(name, key, "y" * 5000, updated=1.0)
        assert await store.versions() == [added]
        assert [model.tags for model in await store.models()] == [{key: "y" * 5000}]
        assert await store.aliases() == {(name, alias): added.version}
        assert (await store.wish(name, lambda _: {"a": 1}, run="r" * 64)).model == name

    with_store(case, tmp_path, body)


@every_shared_store
def test_a_version_and_its_tags_are_of_one_moment(case: Case, tmp_path: Path) -> None:
    """Whoever reads while another process writes sees all of a change or nothing of it."""

    async def body(stores: list[Store]) -> None:
        writing, reading = stores
        await writing.add_version(version(digest="0", tags={"n": "0"}), aliases=["a"])
        over = asyncio.Event()

        async def write() -> None:
            for n in range(1, 60):
                await writing.add_version(version(digest=str(n), tags={"n": str(n)}), replace=True)
            over.set()

        async def read() -> int:
            looks = 0
            while not over.is_set() or looks < 10:
                found = await reading.version("m", "1")
                assert found is not None
                assert found.tags == {"n": found.digest}
                assert [v.tags["n"] == v.digest for v in await reading.versions()] == [True]
                looks += 1
            return looks

        _, looks = await asyncio.gather(write(), read())
        assert looks >= 10

    with_stores(case, tmp_path, 2, body)


# --- random histories ---

Step = Callable[[Store], Awaitable[object]]
NAMES, NUMBERS = st.sampled_from(["m", "n", "ü"]), st.sampled_from(["1", "2", "3"])
TAGS = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "x"]), max_size=2)
TIMES = st.floats(1.0, 9.0)


def step(function: Callable[..., Awaitable[object]], **arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    """One call with arguments of these kinds."""
    return st.fixed_dictionaries(arguments).map(lambda given: lambda store: function(store, **given))


def _of_number(version: StoredVersion) -> bool:
    return version.version != "2"


some_step = st.one_of(
    step(lambda s, name, at, tags: s.add_model(RegisteredModel(name, at, tags=tags)), name=NAMES, at=TIMES, tags=TAGS),
    step(lambda s, name, at, new: s.change_model(name, updated=at, new_name=new), name=NAMES, at=TIMES, new=st.none() | NAMES),
    step(lambda s, name: s.remove_model(name), name=NAMES),
    step(lambda s, name, tags, at: s.tag_model(name, "a", tags.get("a"), updated=at), name=NAMES, tags=TAGS, at=TIMES),
    step(
        lambda s, name, number, at, tags, digest, alias, again: s.add_version(
            StoredVersion(name, number, digest, at, tags=tags, stage=digest),
            aliases=alias,
            replace=again == "replace",
            reuse=_of_number if again == "reuse" else None,
        ),
        name=NAMES,
        number=NUMBERS | st.just(""),
        at=TIMES,
        tags=TAGS,
        digest=st.sampled_from("de"),
        alias=st.lists(st.sampled_from("xy")),
        again=st.sampled_from(["no", "replace", "reuse"]),
    ),
    step(
        lambda s, name, number, at, stage, facts, archive: s.change_version(
            name, number, updated=at, stage=stage, facts=facts, archive=archive
        ),
        name=NAMES,
        number=NUMBERS,
        at=TIMES,
        stage=st.none() | st.sampled_from("de"),
        facts=TAGS,
        archive=st.sampled_from(["", "f"]),
    ),
    step(lambda s, name, number, at: s.tag_version(name, number, "b", "v", updated=at), name=NAMES, number=NUMBERS, at=TIMES),
    step(lambda s, name, number: s.remove_version(name, number), name=NAMES, number=NUMBERS),
    step(lambda s, name, number, alias: s.set_alias(name, alias, number), name=NAMES, number=NUMBERS, alias=st.sampled_from("xy")),
    step(lambda s, name, alias: s.remove_alias(name, alias), name=NAMES, alias=st.sampled_from("xy")),
)


def _ranked(records: list[RegisteredModel] | list[StoredVersion]) -> list[RegisteredModel | StoredVersion]:
    """With numbers from 1 on: a store that has a longer history counts from elsewhere."""
    ranks: Mapping[int, int] = {number: rank for rank, number in enumerate(sorted(one.number for one in records))}
    return [replace(one, number=ranks[one.number]) for one in records]


async def outcome(store: Store, step: Step) -> object:
    """What a step gives, apart from numbers; of an error its kind and subject."""
    try:
        result = await step(store)
    except ServingError as error:
        return error.kind, error.what
    return replace(result, number=0) if isinstance(result, RegisteredModel | StoredVersion) else result


def test_the_fake_answers_as_the_real_store_does(tmp_path: Path) -> None:
    """The same random histories, step by step: what tests of other parts see is what the server does."""

    async def run() -> None:
        real = await SQLITE.open(tmp_path)
        loop = asyncio.get_running_loop()

        @given(st.lists(some_step, max_size=15))
        def history(steps: list[Step]) -> None:
            asyncio.run_coroutine_threadsafe(compare(steps), loop).result(60)

        async def compare(steps: list[Step]) -> None:
            fake = await MEMORY.open(tmp_path)
            for model in await real.models():  # what an earlier history left
                await real.remove_model(model.name)
            for step in steps:
                assert await outcome(real, step) == await outcome(fake, step)
                assert _ranked(await real.models()) == _ranked(await fake.models())
                assert _ranked(await real.versions()) == _ranked(await fake.versions())
                assert await real.aliases() == await fake.aliases()

        try:
            await asyncio.to_thread(history)
        finally:
            await real.close()

    asyncio.run(run())
