"""Several processes on one store, and processes that are killed: what only real ones show."""

import asyncio
import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest

from dragoman.core.predictions import Progress
from dragoman.store import Store
from tests.store_processes import answers, workers
from tests.stores import SHARED, Case, as_stored, claimed, version, waiting, with_store

every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)


@every_shared_store
def test_four_processes_make_one_database(case: Case, tmp_path: Path) -> None:
    """They open a fresh one at one moment: each can use it, and nothing is made twice."""
    body = """
store = await case.open(place)
await store.add_version(stores.version("m", str(number)))
print(len(await store.versions()) > 0)
await store.close()
"""
    for round_ in range(2):
        place = tmp_path / str(round_)
        with workers(case, place, 4, body) as started:
            assert answers(started) == ["True\n"] * 4

        async def look(store: Store) -> None:
            assert sorted(v.version for v in await store.versions()) == ["0", "1", "2", "3"]

        with_store(case, place, look)


@every_shared_store
def test_processes_claim_for_themselves(case: Case, tmp_path: Path) -> None:
    """No prediction is given to two of them, and each is given to one."""
    some = [waiting(created=float(n)) for n in range(400)]

    async def fill(store: Store) -> None:
        await asyncio.gather(*(store.add_prediction(one) for one in some))

    with_store(case, tmp_path, fill)
    body = """
store = await case.open(place)
while claim := await store.claim_predictions(str(number), ["m"], lease_until=9.0, limit=9):
    print(*(one.id for one in claim), sep="\\n")
await store.close()
"""
    with workers(case, tmp_path, 3, body) as started:
        ids = [line for text in answers(started) for line in text.split()]
    assert sorted(ids) == sorted(one.id for one in some)


@every_shared_store
def test_one_of_several_processes_wins_a_change(case: Case, tmp_path: Path) -> None:
    """Each prediction is ended once, and its outputs are those of the process that was told so."""
    some = [claimed() for _ in range(60)]

    async def fill(store: Store) -> None:
        await asyncio.gather(*(store.add_prediction(one) for one in some))

    with_store(case, tmp_path, fill)
    body = f"""
store = await case.open(place)
for prediction_id in {[one.id for one in some]!r}:
    if await store.change_prediction(Change(prediction_id, Progress.SUCCEEDED, finished=1.0, outputs=str(number).encode())):
        print(prediction_id, number)
await store.close()
"""
    with workers(case, tmp_path, 3, body) as started:
        told = [line.split() for text in answers(started) for line in text.splitlines()]
    assert sorted(prediction_id for prediction_id, _ in told) == sorted(one.id for one in some)

    async def look(store: Store) -> None:
        for prediction_id, number in told:
            found = await store.prediction(prediction_id)
            assert found is not None
            assert found.outputs == number.encode()

    with_store(case, tmp_path, look)


@every_shared_store
def test_a_kill_loses_nothing_that_was_answered(case: Case, tmp_path: Path) -> None:
    """A process that writes as fast as it can is killed at any moment, several times: every answered write is there, and whole."""
    body = """
store = await case.open(place)
async def write():
    n = 0
    while True:
        n += 1
        size = 300_000 if n % 40 == 0 else n % 500
        one = stores.claimed(inputs=b"i" * size)
        await store.add_prediction(one)
        print(f'["added", "{one.id}", {size}]', flush=True)
        if await store.change_prediction(stores.done(one, outputs=b"o" * size)):
            print(f'["ended", "{one.id}", {size}]', flush=True)
await asyncio.gather(*(write() for _ in range(8)))
"""
    answered: list[tuple[str, str, int]] = []
    for enough in (1, 60, 300, 700):
        with workers(case, tmp_path, 1, body) as (process,):
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(enough)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)  # what it had answered before it died
            assert process.wait(30) == -signal.SIGKILL
        answered += [tuple(json.loads(line)) for line in lines if line.endswith("]\n")]
    assert len(answered) > 1000

    async def look(store: Store) -> None:
        for what, prediction_id, size in answered:
            found = await store.prediction(prediction_id)
            assert found is not None
            assert found.inputs == b"i" * size
            if what == "ended":
                assert found.progress is Progress.SUCCEEDED
                assert found.outputs == b"o" * size
        await store.add_version(version())

    with_store(case, tmp_path, look)


@every_shared_store
def test_a_kill_while_the_database_is_made_leaves_a_usable_one(case: Case, tmp_path: Path) -> None:
    """At whatever moment: the next process makes what is missing."""
    body = "await case.open(place)\nprint('open', flush=True)\nawait asyncio.sleep(60)"
    for n in range(6):
        place = tmp_path / str(n)
        with workers(case, place, 1, body) as (process,):
            deadline = time.monotonic() + 20
            while not case.begun(place) and time.monotonic() < deadline:
                time.sleep(0.0005)  # until it has begun
            time.sleep(n * 0.02)  # and then sooner or later: any moment must do
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)

        async def use(store: Store) -> None:
            await store.add_version(version())
            assert await store.versions() == [as_stored(version())]

        with_store(case, place, use)


@every_shared_store
def test_a_writer_in_another_process_is_waited_for(case: Case, tmp_path: Path) -> None:
    """Two processes write at once without either being refused."""
    body = """
store = await case.open(place)
for _ in range(30):
    await asyncio.gather(*(store.add_prediction(stores.waiting(caller=str(number))) for _ in range(10)))
await store.close()
"""
    with workers(case, tmp_path, 3, body) as started:
        answers(started)

    async def look(store: Store) -> None:
        assert len(await store.claim_predictions("me", ["m"], lease_until=1.0, limit=2000)) == 900

    with_store(case, tmp_path, look)


@every_shared_store
def test_processes_get_numbers_of_their_own(case: Case, tmp_path: Path) -> None:
    """Versions that several processes add without a number at one moment are all there, each under another one, none left out."""
    body = """
store = await case.open(place)
added = await asyncio.gather(*(store.add_version(stores.version("m", "", digest=f"{number}-{n}"), aliases=[f"{number}-{n}"]) for n in range(25)))
print(*(one.version for one in added), sep="\\n")
await store.close()
"""
    with workers(case, tmp_path, 4, body) as started:
        numbers = [line for text in answers(started) for line in text.split()]
    assert sorted(map(int, numbers)) == list(range(1, 101))

    async def look(store: Store) -> None:
        assert {v.version for v in await store.versions("m")} == set(numbers)
        assert {
            alias: v.digest for v in await store.versions() for (_, alias), at in (await store.aliases()).items() if at == v.version
        } == {f"{place}-{n}": f"{place}-{n}" for place in range(4) for n in range(25)}

    with_store(case, tmp_path, look)


@every_shared_store
def test_processes_wish_together(case: Case, tmp_path: Path) -> None:
    """Each adds its keys to one wish, one after the other as clients do: none is lost, and generations are distinct and in their order."""
    body = """
store = await case.open(place)
for n in range(25):
    made = await store.wish("m", lambda stands: {**(stands.document if stands else {}), f"{number}-{n}": n})
    print(made.generation)
await store.close()
"""
    with workers(case, tmp_path, 4, body) as started:
        generations = [[int(line) for line in text.split()] for text in answers(started)]
    assert sorted(itertools.chain(*generations)) == list(range(1, 101))
    assert all(mine == sorted(mine) for mine in generations)

    async def look(store: Store) -> None:
        (stands,) = await store.wishes()
        assert stands.document == {f"{place}-{n}": n for place in range(4) for n in range(25)}
        assert stands.generation == 100

    with_store(case, tmp_path, look)


@every_shared_store
def test_a_wish_and_its_stages_survive_a_kill_together(case: Case, tmp_path: Path) -> None:
    """A process that wishes as fast as it can is killed at any moment: what it had answered is there, and never a wish without its stage."""
    body = """
store = await case.open(place)
n = (await store.wish("m", lambda _: None)).document.get("n", 0)
while True:
    n += 1
    made = await store.wish("m", lambda _: {"n": n}, stages={("m", "1"): str(n)})
    print(n, flush=True)
"""

    async def fill(store: Store) -> None:
        await store.add_version(version())

    with_store(case, tmp_path, fill)
    for enough in (1, 20, 100):
        with workers(case, tmp_path, 1, body) as (process,):
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(enough)]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.read().splitlines(keepends=True)
            process.wait(30)
        answered = max(int(line) for line in lines if line.endswith("\n"))

        async def look(store: Store, answered: int = answered) -> None:
            (stands,) = await store.wishes()
            assert stands.document["n"] in (answered, answered + 1)
            assert [v.stage for v in await store.versions()] == [str(stands.document["n"])]
            assert stands.generation == stands.document["n"]

        with_store(case, tmp_path, look)
