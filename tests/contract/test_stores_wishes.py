"""What every store promises about wishes, and about the workers that apply them: one suite over all of them."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.store import Bell, Report, Rewrite, Store, Wish
from tests.stores import CASES, MEMORY, SHARED, SQLITE, Case, version, with_store, with_stores

every_store = pytest.mark.parametrize("case", CASES, ids=str)
every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)
ODD: Mapping[str, Any] = {"versions": {"3": {"revision": "r", "origin": {"path": "/ü\ud800\0"}}}, "n": [1, 2.5, None, True, {}], "": ""}


def always(document: Mapping[str, Any] | None) -> Rewrite:
    return lambda _: document


def with_key(key: str, value: object = True) -> Rewrite:
    return lambda stands: {**(stands.document if stands else {}), key: value}


# --- wishes ---


@every_store
def test_a_wish_comes_back_as_it_was_made(case: Case, tmp_path: Path) -> None:
    """Nested JSON and odd texts included; it has the first generation."""

    async def body(store: Store) -> None:
        assert await store.wishes() == []
        made = await store.wish("größe", always(ODD))
        assert made == Wish("größe", 1, ODD)
        assert await store.wishes() == [made]

    with_store(case, tmp_path, body)


@every_store
def test_a_rewrite_sees_what_stands(case: Case, tmp_path: Path) -> None:
    """None at first; another model's and another run's wish are not its business."""
    seen: list[Wish | None] = []

    def look(stands: Wish | None) -> Mapping[str, Any]:
        seen.append(stands)
        return {"n": len(seen)}

    async def body(store: Store) -> None:
        await store.wish("n", always({"x": 1}))
        await store.wish("m", always({"x": 2}), run="r")
        first = await store.wish("m", look)
        second = await store.wish("m", look)
        assert seen == [None, first]
        assert second == Wish("m", 4, {"n": 2})

    with_store(case, tmp_path, body)


@every_store
def test_generations_go_up_over_all_models_and_runs(case: Case, tmp_path: Path) -> None:
    """Each change has a higher one than all before; whoever has seen one asks for what came since."""

    async def body(store: Store) -> None:
        a = await store.wish("a", always({"v": 1}))
        b = await store.wish("b", always({"v": 1}))
        run = await store.wish("a", always({"v": 1}), run="r")
        assert [w.generation for w in (a, b, run)] == [1, 2, 3]
        assert await store.wishes(since=1) == [b, run]
        again = await store.wish("a", always({"v": 2}))
        assert again.generation == 4
        assert await store.wishes() == [b, run, again]
        assert await store.wishes(since=3) == [again]
        assert await store.wishes(since=4) == []

    with_store(case, tmp_path, body)


@every_store
def test_what_changes_nothing_has_no_generation(case: Case, tmp_path: Path) -> None:
    """None, or the same document however its keys are ordered, from outside or changed in place and back."""

    async def body(store: Store) -> None:
        assert await store.wish("m", always(None)) == Wish("m", 0)
        assert await store.wish("m", always(None), run="r") == Wish("m", 0, run="r")
        assert await store.wishes() == []
        stands = await store.wish("m", always({"a": 1, "b": {"c": 2, "d": (3,)}}))
        for rewrite in (always(None), always({"b": {"d": [3], "c": 2}, "a": 1}), lambda w: w.document if w else None):
            assert await store.wish("m", rewrite) == stands
        assert await store.wishes() == [stands]
        assert (await store.wish("n", always({}))).generation == 2

    with_store(case, tmp_path, body)


@every_store
def test_what_looks_the_same_to_python_is_a_change(case: Case, tmp_path: Path) -> None:
    """1, 1.0 and true are different documents; so is one that was changed in place."""

    def in_place(stands: Wish | None) -> Mapping[str, Any]:
        assert stands is not None
        assert isinstance(stands.document, dict)
        stands.document["more"] = []
        return stands.document

    async def body(store: Store) -> None:
        documents: list[Mapping[str, Any]] = [{"a": 1}, {"a": True}, {"a": 1.0}, {"a": "1"}]
        made = [await store.wish("m", always(document)) for document in documents]
        assert [w.generation for w in made] == [1, 2, 3, 4]
        assert await store.wish("m", in_place) == Wish("m", 5, {"a": "1", "more": []})

    with_store(case, tmp_path, body)


@every_store
def test_an_empty_wish_stays(case: Case, tmp_path: Path) -> None:
    """So that watchers see it; also where nothing stood before."""

    async def body(store: Store) -> None:
        await store.wish("m", always({"a": 1}))
        empty = await store.wish("m", always({}))
        never = await store.wish("n", always({}), run="r")
        assert await store.wishes() == [empty, never]
        assert (empty.document, empty.generation, never.generation) == ({}, 2, 3)

    with_store(case, tmp_path, body)


@every_store
def test_what_a_rewrite_raises_is_raised(case: Case, tmp_path: Path) -> None:
    """Whatever it is, and a document that is no JSON; nothing changes, and wishes beside it are made."""
    failures = [ServingError(Kind.NOT_FOUND, "no such version", what="version"), KeyError("x"), OSError(5, "disk"), ValueError("y")]

    def failing(failure: Exception) -> Rewrite:
        def rewrite(_: Wish | None) -> Mapping[str, Any]:
            raise failure

        return rewrite

    async def body(store: Store) -> None:
        await store.add_version(version())
        stands = await store.wish("m", always({"a": 1}))
        for n, failure in enumerate(failures):
            beside = (store.wish(f"beside-{n}-{i}", always({"n": n})) for i in range(3))
            staged = store.wish("m", failing(failure), stages={("m", "1"): "Production"})
            results = await asyncio.gather(staged, *beside, return_exceptions=True)
            assert results[0] is failure
            assert [isinstance(result, Wish) for result in results[1:]] == [True] * 3
        with pytest.raises(TypeError):
            await store.wish("m", always({"a": {1, 2}}))
        assert [w for w in await store.wishes() if w.model == "m"] == [stands]
        assert [v.stage for v in await store.versions()] == [""]

    with_store(case, tmp_path, body)


@every_store
def test_wishes_at_one_moment_all_count(case: Case, tmp_path: Path) -> None:
    """None is lost, whichever of them come together."""

    async def body(store: Store) -> None:
        made = await asyncio.gather(*(store.wish("m", with_key(str(n))) for n in range(50)))
        assert sorted(w.generation for w in made) == list(range(1, 51))
        (stands,) = await store.wishes()
        assert stands.document == {str(n): True for n in range(50)}
        assert stands in made

    with_store(case, tmp_path, body)


# --- stages ---


@every_store
def test_stages_come_with_the_wish(case: Case, tmp_path: Path) -> None:
    """Those of versions of whatever model, as served names may be others than registered ones; model and version are as new as that."""

    async def body(store: Store) -> None:
        await store.add_version(version("team/m", "1"))
        await store.add_version(version("team/m", "2", stage="Staging"))
        await store.add_version(version("n", "1"))
        await store.wish("m", always({"a": 1}), stages={("team/m", "1"): "Production", ("n", "1"): "x"})
        found = {(v.model, v.version): v for v in await store.versions()}
        assert {key: v.stage for key, v in found.items()} == {
            ("team/m", "1"): "Production",
            ("team/m", "2"): "Staging",
            ("n", "1"): "x",
        }
        assert found["team/m", "1"].updated > 1e9
        assert found["team/m", "2"].updated == 100.0
        model = await store.model("team/m")
        assert model is not None
        assert model.updated == found["team/m", "1"].updated

    with_store(case, tmp_path, body)


@every_store
def test_a_stage_alone_is_a_change(case: Case, tmp_path: Path) -> None:
    """It has a generation of its own. The same stage again is none, and with None nothing is touched."""

    async def body(store: Store) -> None:
        await store.add_version(version())
        stages = {("m", "1"): "Production"}
        assert await store.wish("m", always(None), stages=stages) == Wish("m", 0)
        assert (await store.wish("m", always({"a": 1}))).generation == 1
        assert (await store.wish("m", always(None), stages=stages)).generation == 1
        assert [v.stage for v in await store.versions()] == [""]
        assert await store.wish("m", always({"a": 1}), stages=stages) == Wish("m", 2, {"a": 1})
        assert await store.wish("m", always({"a": 1}), stages=stages) == Wish("m", 2, {"a": 1})
        assert [v.stage for v in await store.versions()] == ["Production"]

    with_store(case, tmp_path, body)


@every_store
def test_a_wish_for_what_was_removed_is_refused(case: Case, tmp_path: Path) -> None:
    """NOT_FOUND for a version in `stages` that is gone; neither the wish nor another stage has changed."""

    async def body(store: Store) -> None:
        await store.add_version(version("m", "1"))
        for gone in (("m", "2"), ("n", "1")):
            with pytest.raises(ServingError) as caught:
                await store.wish("m", always({"a": 1}), stages={("m", "1"): "Production", gone: "Production"})
            assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "version")
        assert await store.wishes() == []
        assert [v.stage for v in await store.versions()] == [""]
        assert (await store.wish("m", always({"a": 1}))).generation == 1

    with_store(case, tmp_path, body)


@every_store
def test_a_wish_does_not_need_a_model(case: Case, tmp_path: Path) -> None:
    """It goes by a served name: removing or renaming a registered model leaves it alone."""

    async def body(store: Store) -> None:
        await store.add_version(version())
        stands = await store.wish("m", always({"a": 1}))
        await store.change_model("m", updated=1.0, new_name="n")
        await store.remove_model("n")
        assert await store.wishes() == [stands]

    with_store(case, tmp_path, body)


# --- runs ---


@every_store
def test_wishes_of_a_run_end_with_it(case: Case, tmp_path: Path) -> None:
    """Those of others and those of no run stay, and generations go on where they were."""

    async def body(store: Store) -> None:
        stays = [await store.wish("m", always({"a": 1})), await store.wish("m", always({"a": 1}), run="other")]
        await store.wish("m", always({"a": 2}), run="r")
        await store.wish("n", always({"a": 2}), run="r")
        await store.forget_run("r")
        await store.forget_run("never was")
        assert await store.wishes() == stays
        assert (await store.wish("m", always({}), run="r")).generation == 5
        with pytest.raises(ValueError, match="outlive"):
            await store.forget_run("")

    with_store(case, tmp_path, body)


# --- workers and reports ---


@every_store
def test_workers_are_counted_while_their_lease_lasts(case: Case, tmp_path: Path) -> None:
    """And are told whether they were: one that was taken for dead writes its reports again."""

    async def body(store: Store) -> None:
        assert await store.workers(now=0.0) == []
        assert await store.join("b", 10.0) is False
        assert await store.join("a", 20.0) is False
        assert await store.join("b", 15.0) is True
        assert await store.workers(now=15.0) == ["a", "b"]
        assert await store.workers(now=15.5) == ["a"]
        assert await store.join("b", 30.0) is True
        await store.report([Report("b", "m", 1)])
        await store.leave(["b", "never was"])
        await store.leave([])
        assert await store.workers(now=0.0) == ["a"]
        assert await store.join("b", 40.0) is False
        assert await store.reports("m") == []

    with_store(case, tmp_path, body)


@every_store
def test_reports_are_replaced(case: Case, tmp_path: Path) -> None:
    """One of each worker and model, the last; by worker. Reasons are whatever text a failure has."""

    async def body(store: Store) -> None:
        for worker in ("b", "a", "c"):
            await store.join(worker, 10.0)
        reason = "no\nfile 'ü\ud800\0'" * 100
        await store.report([Report("b", "m", 1), Report("b", "n", 2, {"1": reason}), Report("a", "m", 2)])
        await store.report([])
        assert await store.reports("m") == [Report("a", "m", 2), Report("b", "m", 1)]
        assert await store.reports("n") == [Report("b", "n", 2, {"1": reason})]
        assert await store.reports("x") == []
        await store.report([Report("b", "m", 3, {"1": "x"}), Report("b", "m", 4), Report("b", "n", 4)])
        assert await store.reports("m") == [Report("a", "m", 2), Report("b", "m", 4)]
        assert await store.reports("n") == [Report("b", "n", 4)]
        await store.leave(["a", "b"])
        assert await store.reports("m") == await store.reports("n") == []

    with_store(case, tmp_path, body)


@every_store
def test_who_has_not_joined_has_nothing_to_report(case: Case, tmp_path: Path) -> None:
    """Late reports of one that was taken for dead leave nothing behind; those in the same call are written."""

    async def body(store: Store) -> None:
        await store.join("a", 0.0)
        await store.report([Report("x", "m", 1), Report("a", "m", 1)])
        await store.report([Report("x", "n", 1)])
        assert await store.reports("m") == [Report("a", "m", 1)]
        assert await store.reports("n") == []
        await store.join("x", 1.0)
        assert await store.reports("n") == []

    with_store(case, tmp_path, body)


# --- bells ---


async def heard(bell: Bell) -> None:
    """It rings, long before its time is over. A bell may still hold what it heard before: whoever needs one ring drains it first."""
    async with asyncio.timeout(20):
        await bell.rung(1000.0)


@every_shared_store
def test_everybody_hears_of_changes(case: Case, tmp_path: Path) -> None:
    """Those who changed something and those in other stores: of wishes, reports and workers that left, and not before they are stored."""

    async def body(stores: list[Store]) -> None:
        bells = [await store.bell() for store in stores]
        await stores[0].join("w", 1.0)
        for change in (
            lambda: stores[0].wish("m", always({"a": 1})),
            lambda: stores[0].report([Report("w", "m", 1)]),
            lambda: stores[0].leave(["w"]),
        ):
            await change()
            for bell in bells:
                await heard(bell)
        assert [w.generation for w in await stores[1].wishes()] == [1]
        for bell in bells:
            await bell.close()

    with_stores(case, tmp_path, 2, body)


# --- random histories ---


@dataclass(frozen=True)
class Step:
    """One call; `place` is the store that is asked."""

    call: str
    place: int
    model: str = "m"
    run: str = ""
    key: str = "a"
    value: object = 1
    worker: str = "w"


KEYS = st.sampled_from("ab")
VALUES = st.sampled_from([0, 1, True, None, "x"])
some_step = st.builds(
    Step,
    call=st.sampled_from(["put", "put", "drop", "clear", "none", "refuse", "forget", "join", "leave", "report"]),
    place=st.integers(0, 2),
    model=st.sampled_from(["m", "n"]),
    run=st.sampled_from(["", "r"]),
    key=KEYS,
    value=VALUES,
    worker=st.sampled_from(["w", "x"]),
)


def rewrite_of(step: Step) -> Rewrite:
    def rewrite(stands: Wish | None) -> Mapping[str, Any] | None:
        document = dict(stands.document) if stands else {}
        match step.call:
            case "put":
                return {**document, step.key: step.value}
            case "drop":
                return {key: value for key, value in document.items() if key != step.key}
            case "clear":
                return {}
            case "none":
                return None
        raise ServingError(Kind.CONFLICT, "refused")

    return rewrite


async def done(store: Store, step: Step, mark: str, base: int) -> object:
    """What a call answers. Names begin with `mark`, so that histories do not meet, and generations are counted from `base`."""
    model, run, worker = mark + step.model, step.run and mark + step.run, mark + step.worker
    match step.call:
        case "join":
            return await store.join(worker, 1.0)
        case "forget":
            await store.forget_run(mark + "r")
            return None
        case "leave":
            await store.leave([worker])
            return None
        case "report":
            await store.report([Report(worker, model, 1, {step.key: "x"})])
            return None
    try:
        return counted(await store.wish(model, rewrite_of(step), run=run), base)
    except ServingError as error:
        return error.kind


def counted(wish: Wish, base: int) -> tuple[Wish, str]:
    """`True == 1` in Python: documents are compared as they are written, too."""
    return replace(wish, generation=max(wish.generation - base, 0)), repr(wish.document)


async def state(store: Store, mark: str, base: int) -> object:
    wishes = [counted(wish, base) for wish in await store.wishes(since=base)]
    reports = [sorted(await store.reports(mark + model), key=repr) for model in ("m", "n")]
    return wishes, [worker for worker in await store.workers(now=0.0) if worker.startswith(mark)], reports


def test_several_stores_are_one(tmp_path: Path) -> None:
    """Random histories of calls through three stores on one file go as in one that keeps all in memory, and generations only go up."""

    async def run() -> None:
        stores = [await SQLITE.open(tmp_path) for _ in range(3)]
        loop = asyncio.get_running_loop()
        numbers = count()

        @given(st.lists(some_step, max_size=15))
        def history(steps: list[Step]) -> None:
            asyncio.run_coroutine_threadsafe(compare(steps, f"{next(numbers)}-"), loop).result(60)

        async def compare(steps: list[Step], mark: str) -> None:
            fake = await MEMORY.open(tmp_path)
            base = (await stores[0].wish(mark, always({}))).generation
            seen = {base}
            for step in steps:
                assert await done(stores[step.place], step, mark, base) == await done(fake, step, mark, 0)
                assert await state(stores[step.place - 1], mark, base) == await state(fake, mark, 0)
                new = {wish.generation for wish in await stores[0].wishes(since=base)} - seen
                assert all(generation > max(seen) for generation in new)
                seen |= new

        try:
            await asyncio.to_thread(history)
        finally:
            for store in stores:
                await store.close()

    asyncio.run(run())


@every_shared_store
def test_wishes_from_everywhere_at_one_moment(case: Case, tmp_path: Path) -> None:
    """Through several stores, on one model and on others: no key is lost, no generation given twice, watchers see them in their order."""

    async def body(stores: list[Store]) -> None:
        over = asyncio.Event()

        async def watch() -> list[int]:
            seen = [0]
            while not over.is_set() or await stores[0].wishes(since=seen[-1]):
                seen += [w.generation for w in await stores[0].wishes(since=seen[-1])]
            return seen

        async def make() -> list[Wish]:
            same = [store.wish("m", with_key(f"{place}-{n}")) for place, store in enumerate(stores) for n in range(20)]
            others = [store.wish(f"{place}-{n}", always({"n": n})) for place, store in enumerate(stores) for n in range(20)]
            made = await asyncio.gather(*same, *others)
            over.set()
            return made

        made, seen = await asyncio.gather(make(), watch())
        assert sorted(w.generation for w in made) == list(range(1, 121))
        assert seen == sorted(seen)
        assert seen[-1] == 120
        (stands,) = (w for w in await stores[1].wishes() if w.model == "m")
        assert stands.document == {f"{place}-{n}": True for place in range(3) for n in range(20)}

    with_stores(case, tmp_path, 3, body)
