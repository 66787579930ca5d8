"""What every store promises about documents: one suite over all of them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError, invalid
from dragoman.store import Store
from tests.stores import CASES, SHARED, Case, with_store, with_stores

every_store = pytest.mark.parametrize("case", CASES, ids=str)
every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)
ODD = {"größe": "ü\U0001f600\x00", "n": [1, 2.5, None, True, {"deep": []}], "nan": float("inf"), "": ""}


@every_store
def test_a_document_comes_back_as_it_was_written(case: Case, tmp_path: Path) -> None:
    """Nested JSON, odd texts and numbers that are not finite included; kinds and keys tell documents apart."""

    async def body(store: Store) -> None:
        assert await store.document("run", "1") is None
        assert await store.edit_document("run", "1", lambda _: ODD) == ODD
        assert await store.document("run", "1") == ODD
        assert await store.document("run", "2") is None
        assert await store.document("model", "1") is None

    with_store(case, tmp_path, body)


@every_store
def test_an_edit_sees_what_stands(case: Case, tmp_path: Path) -> None:
    """None at first, then the last edit; the answer is what stands afterwards."""

    def counted(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {"n": 1 if body is None else body["n"] + 1}

    async def body(store: Store) -> None:
        assert [await store.edit_document("run", "1", counted) for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
        assert await store.document("run", "1") == {"n": 3}

    with_store(case, tmp_path, body)


@every_store
def test_an_edit_that_raises_changes_nothing(case: Case, tmp_path: Path) -> None:
    """Neither an old document nor a new one, and not the edits beside it."""

    def refused(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        raise invalid("this edit is refused")

    async def body(store: Store) -> None:
        await store.edit_document("run", "1", lambda _: {"n": 1})
        for key in ("1", "2"):
            results = await asyncio.gather(
                store.edit_document("run", key, refused), store.edit_document("run", "3", lambda _: {"n": 3}), return_exceptions=True
            )
            assert isinstance(results[0], ServingError)
            assert results[0].kind is Kind.INVALID_INPUT
            assert results[1] == {"n": 3}
        assert await store.document("run", "1") == {"n": 1}
        assert await store.document("run", "2") is None

    with_store(case, tmp_path, body)


@every_store
def test_documents_are_listed_by_group_in_their_order(case: Case, tmp_path: Path) -> None:
    """The order of creation, whatever was edited since; a group is given once and stays."""

    async def body(store: Store) -> None:
        for key, group in (("b", "x"), ("a", "y"), ("c", "x")):
            await store.edit_document("run", key, lambda _, name=key: {"key": name}, group=group)  # type: ignore[misc] # a default in a lambda
        await store.edit_document("run", "b", lambda _: {"key": "b", "edited": True}, group="elsewhere")
        await store.edit_document("model", "d", lambda _: {"key": "d"}, group="x")
        assert [each["key"] for each in await store.documents("run", ["x"])] == ["b", "c"]
        assert [each["key"] for each in await store.documents("run", ["y", "x"])] == ["b", "a", "c"]
        assert await store.documents("run", []) == []
        assert await store.documents("run", ["z"]) == []

    with_store(case, tmp_path, body)


@every_shared_store
def test_edits_of_several_stores_come_one_after_the_other(case: Case, tmp_path: Path) -> None:
    """None of them is lost, and the first is made once."""

    def counted(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return {"n": (body or {"n": 0})["n"] + 1}

    async def body(stores: list[Store]) -> None:
        await asyncio.gather(*(store.edit_document("run", "1", counted) for store in stores for _ in range(10)))
        assert await stores[0].document("run", "1") == {"n": 10 * len(stores)}

    with_stores(case, tmp_path, 3, body)


@every_store
def test_documents_of_all_groups_are_listed_and_removed(case: Case, tmp_path: Path) -> None:
    """Without groups all of the kind are meant; what was removed is gone, can be made again, and comes last then."""

    async def body(store: Store) -> None:
        for key, group in (("b", "x"), ("a", "y")):
            await store.edit_document("run", key, lambda _, name=key: {"key": name}, group=group)  # type: ignore[misc] # a default in a lambda
        await store.edit_document("model", "b", lambda _: {"key": "other"})
        assert [each["key"] for each in await store.documents("run")] == ["b", "a"]
        assert await store.remove_document("run", "b") is True
        assert await store.remove_document("run", "b") is False
        assert await store.document("run", "b") is None
        assert await store.document("model", "b") == {"key": "other"}
        await store.edit_document("run", "b", lambda _: {"key": "b"}, group="y")
        assert [each["key"] for each in await store.documents("run")] == ["a", "b"]

    with_store(case, tmp_path, body)


@every_store
def test_an_edit_rings_where_it_is_asked_to(case: Case, tmp_path: Path) -> None:
    """Whoever waits hears of a change and of a removal, and not of an edit that is nobody else's business."""

    async def body(store: Store) -> None:
        bell = await store.bell()
        try:
            for change in (
                lambda: store.edit_document("job", "1", lambda _: {"n": 1}, rings=True),
                lambda: store.remove_document("job", "1", rings=True),
            ):
                waiting = asyncio.create_task(bell.rung(60.0))
                await asyncio.sleep(0)
                await change()
                await asyncio.wait_for(waiting, 30.0)
        finally:
            await bell.close()

    with_store(case, tmp_path, body)
