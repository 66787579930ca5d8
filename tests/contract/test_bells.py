"""Bells over every real store: one rings in another process for each change of wishes and reports, and none is missed around a wait."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from dragoman.store import Report, Store
from tests.store_processes import workers
from tests.stores import SHARED, Case, with_store, with_stores

every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)
LONG_S = 3600.0
"""Whoever is told nothing waits that long; tests end sooner, with an error."""
RINGER = """
store = await case.open(place)
sys.stdin.readline()
await store.wish("m", lambda _: {"n": 1})
await asyncio.sleep(60)
"""


@every_shared_store
def test_a_change_in_another_process_is_heard(case: Case, tmp_path: Path) -> None:
    """Whoever waits returns, although its time-out is far, and finds what was changed."""

    async def body(store: Store) -> None:
        with workers(case, tmp_path, 1, RINGER) as (process,):
            bell = await store.bell()
            waiting = asyncio.ensure_future(bell.rung(LONG_S))
            await asyncio.sleep(0)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            await waiting
            assert [dict(wish.document) for wish in await store.wishes()] == [{"n": 1}]
            await bell.close()

    with_store(case, tmp_path, body)


@every_shared_store
def test_every_bell_rings_for_everything_that_others_wait_for(case: Case, tmp_path: Path) -> None:
    """Wishes, reports and workers that leave ring all bells, also those of whoever made the change."""

    async def body(stores: list[Store]) -> None:
        one, other = stores
        bells = [await store.bell() for store in (one, other, other)]

        async def heard() -> None:
            await asyncio.gather(*(bell.rung(LONG_S) for bell in bells))

        await one.wish("m", lambda _: {"n": 1})
        await heard()
        await one.join("w", 1e12)
        await heard_or_not(bells)
        await one.report([Report("w", "m", 1)])
        await heard()
        await one.leave(["w"])
        await heard()
        for bell in bells:
            await bell.close()

    async def heard_or_not(bells: list) -> None:  # type: ignore[type-arg]
        for bell in bells:
            await bell.rung(0.0)

    with_stores(case, tmp_path, 2, body)


@every_shared_store
def test_a_ring_before_the_wait_is_kept(case: Case, tmp_path: Path) -> None:
    """Between two waits nothing is lost, however often it rang; then it is quiet again."""

    async def body(store: Store) -> None:
        bell = await store.bell()
        for n in range(50):
            await store.wish("m", lambda _, n=n: {"n": n})  # type: ignore[misc] # a lambda has no types
        await bell.rung(LONG_S)
        rings = 0
        with contextlib.suppress(TimeoutError):
            while rings <= 50:  # some may still be on their way; there is an end to them
                async with asyncio.timeout(0.2):
                    await bell.rung(LONG_S)
                rings += 1
        assert rings <= 50
        await store.wish("m", lambda _: {"n": 50})
        await bell.rung(LONG_S)
        await bell.close()

    with_store(case, tmp_path, body)


@every_shared_store
def test_a_wait_that_is_broken_off_loses_nothing(case: Case, tmp_path: Path) -> None:
    """The next one is told of what came in between."""

    async def body(store: Store) -> None:
        bell = await store.bell()
        for n in range(20):
            waiting = asyncio.ensure_future(bell.rung(LONG_S))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await store.wish("m", lambda _, n=n: {"n": n})  # type: ignore[misc] # a lambda has no types
            await bell.rung(LONG_S)
            await bell.rung(0.0)
        await bell.close()

    with_store(case, tmp_path, body)


@every_shared_store
def test_among_many_changes_the_last_is_always_seen(case: Case, tmp_path: Path) -> None:
    """Two processes make a thousand changes; whoever looks only when it rings sees the end."""
    body = """
store = await case.open(place)
for n in range(500):
    await store.wish(f"m{number}", lambda _: {"n": n})
await store.close()
"""

    async def follow(store: Store) -> None:
        bell = await store.bell()
        with workers(case, tmp_path, 2, body):
            seen = looks = 0
            while seen < 1000:
                await bell.rung(LONG_S)
                looks += 1
                for wish in await store.wishes(since=seen):
                    seen = wish.generation
        assert looks > 1
        assert seen == 1000
        await bell.close()

    with_store(case, tmp_path, follow)


@every_shared_store
def test_what_is_taken_back_is_not_seen(case: Case, tmp_path: Path) -> None:
    """A wish whose rewriting fails changes nothing, and the bell works afterwards."""

    async def body(store: Store) -> None:
        bell = await store.bell()

        def refuse(_standing: object) -> dict[str, object]:
            raise ArithmeticError("no")

        with pytest.raises(ArithmeticError):
            await store.wish("m", refuse)
        await bell.rung(0.05)
        assert await store.wishes() == []
        await store.wish("m", lambda _: {"n": 1})
        await bell.rung(LONG_S)
        await bell.close()

    with_store(case, tmp_path, body)


@every_shared_store
def test_a_bell_outlives_nobody(case: Case, tmp_path: Path) -> None:
    """Those of killed processes, and those that were closed, are in nobody's way."""
    with workers(
        case, tmp_path, 2, "store = await case.open(place)\nawait store.bell()\nprint('rings', flush=True)\nawait asyncio.sleep(60)"
    ) as two:
        for process in two:
            assert process.stdout is not None
            assert process.stdout.readline() == "rings\n"
            process.kill()
            process.wait(30)

        async def body(store: Store) -> None:
            closed = await store.bell()
            await closed.close()
            bell = await store.bell()
            for n in range(3):
                await store.wish("m", lambda _, n=n: {"n": n})  # type: ignore[misc] # a lambda has no types
                await bell.rung(LONG_S)
            await bell.close()

        with_store(case, tmp_path, body)
