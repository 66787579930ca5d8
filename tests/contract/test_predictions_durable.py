"""Predictions over every real database: killed servers, several services at a time, large rows, endings, retention."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragoman.core.errors import ServingError
from dragoman.core.model import InferRequest
from dragoman.core.predictions import Progress
from dragoman.core.tensors import Blob, Value
from dragoman.store import Store
from tests.servables import run
from tests.stores import SHARED, Case
from tests.unit.predictions.rig import LIMITS, Bench, bench, ended

P = Progress
every_shared_store = pytest.mark.parametrize("case", SHARED, ids=str)
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def database(case: Case, folder: Path) -> AsyncGenerator[Store, None]:
    store = await case.open(folder)
    try:
        yield store
    finally:
        await store.close()


async def echo(request: InferRequest) -> Value:
    """A model that starts and answers what it was given."""
    if request.watch is not None:
        request.watch.started()
    await asyncio.sleep(0)
    return {"got": request.inputs.items[0]}


def killed_server(case: Case, folder: Path, accept: int, runs: int) -> dict[str, str]:
    """Run a server until it has accepted and started so many, then kill -9. What it said of each."""
    case.begun(folder)  # a database server of the tests runs when it has answered
    command = [sys.executable, "-m", "tests.contract.prediction_server", case.name, str(folder), str(accept), str(runs)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    said: dict[str, str] = {}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                break
            key, word = line.split()
            said[key] = word
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return said


@every_shared_store
def test_a_killed_server_loses_nothing(case: Case, tmp_path: Path) -> None:
    """Everything that was answered with an id ends after the restart: what waited runs, what ran has failed with the reason."""
    said = killed_server(case, tmp_path, 40, 7)
    assert Counter(said.values()) == {"waiting": 33, "running": 7}

    async def scenario() -> None:
        async with database(case, tmp_path) as store, bench(tmp_path, store) as it:
            it.servable.answer = echo
            await it.service.beat()
            for key, word in said.items():
                view = await it.service.wait(key, 20)
                if word == "running":
                    assert ended(view) == (P.FAILED, "the server stopped while it ran", "unavailable")
                    assert view.logs.startswith("started ")
                else:
                    assert view.progress is P.SUCCEEDED
                    assert view.outputs is not None
            assert len(it.servable.asked) == 33

    run(scenario)


@every_shared_store
def test_two_restarts_at_once_run_each_prediction_once(case: Case, tmp_path: Path) -> None:
    """Two workers come up over what a dead server left: they share it."""
    said = killed_server(case, tmp_path, 30, 0)

    async def scenario() -> None:
        async with database(case, tmp_path) as a, database(case, tmp_path) as b, bench(tmp_path, a) as one, bench(tmp_path, b) as other:
            one.servable.answer = other.servable.answer = echo
            await asyncio.gather(one.service.beat(), other.service.beat())
            await asyncio.gather(one.service.beat(), other.service.beat())
            for key in said:
                assert (await other.service.wait(key, 20)).progress is P.SUCCEEDED
            assert len(one.servable.asked) + len(other.servable.asked) == 30

    run(scenario)


@every_shared_store
@pytest.mark.parametrize(
    "value",
    [
        {"text": "é \x00 ☃", "n": 2**70, "f": float("inf"), "none": None, "yes": True},
        {"file": Blob(bytes(range(256)) * 20_000, "image/png", "a.png")},
        {"array": np.arange(200_000.0).reshape(400, 500), "list": [[1.5] * 100] * 50, "bytes": b"\0" * 2_000_000},
    ],
    ids=["odd values", "a file of five megabytes", "arrays"],
)
def test_rows_of_every_kind(case: Case, tmp_path: Path, value: Any) -> None:
    """Inputs and outputs come back as they were, also from another process's point of view."""

    async def scenario() -> None:
        async with database(case, tmp_path) as store:
            async with bench(tmp_path, store) as it:
                it.servable.answer = echo
                key = await it.submit(value)
                await it.service.wait(key, 20)
            async with bench(tmp_path, store) as later:
                view = await later.service.get(key)
                assert view.outputs is not None
                same(view.outputs[0]["got"], value)
                same((await later.service.inputs(key))[0], value)

    run(scenario)


def same(one: Any, other: Any) -> None:
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        for name in other:
            same(one[name], other[name])
    elif isinstance(other, np.ndarray):
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@every_shared_store
def test_many_at_once(case: Case, tmp_path: Path) -> None:
    """Hundreds of predictions of several rows, accepted by two workers side by side and cancelled here and there."""

    async def scenario() -> None:
        async with database(case, tmp_path) as a, database(case, tmp_path) as b, bench(tmp_path, a) as one, bench(tmp_path, b) as other:
            one.servable.answer = other.servable.answer = echo

            async def client(number: int) -> Progress:
                first, second = (one, other) if number % 2 else (other, one)
                key = await first.submit({"n": number}, {"n": -number})
                if number % 5 == 0:
                    return (await second.service.cancel(key)).progress
                view = await second.service.wait(key, 20)
                assert view.outputs == [{"got": {"n": number}}, {"got": {"n": -number}}]
                return view.progress

            found = Counter(await asyncio.gather(*(client(number) for number in range(200))))
            assert found[P.SUCCEEDED] >= 160
            assert set(found) <= {P.SUCCEEDED, P.CANCELLED}
            await one.service.beat()
            await other.service.beat()
            assert await one.service.unfinished() == {}
            assert one.service.waiting() == other.service.waiting() == {}

    run(scenario)


@every_shared_store
def test_retention_empties_the_database(case: Case, tmp_path: Path) -> None:
    """What is over is removed, files beside the database, too."""

    async def scenario() -> None:
        async with database(case, tmp_path) as store, bench(tmp_path, store, limits=replace(LIMITS, expiration_s=10.0)) as it:
            it.servable.answer = echo
            keys = [await it.submit({"b": b"x" * 1_000_000}) for _ in range(3)]
            for key in keys:
                await it.service.wait(key, 20)
            it.pass_time(11)
            await it.service.beat()
            for key in keys:
                with pytest.raises(ServingError, match="there is no prediction"):
                    await it.service.get(key)
                assert await store.prediction(key) is None
        assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]

    run(scenario)


@every_shared_store
def test_a_stop_and_a_start(case: Case, tmp_path: Path) -> None:
    """A graceful stop gives back what waits; the next server goes on with it."""

    async def scenario() -> None:
        async with database(case, tmp_path) as store:
            first = Bench(tmp_path, store)
            key = await first.submit()
            await first.asked(1)
            await first.service.close()
            assert (await first.stored(key)).progress is P.PENDING
        async with database(case, tmp_path) as store, bench(tmp_path, store) as it:
            it.servable.answer = echo
            await it.service.beat()
            assert (await it.service.wait(key, 20)).outputs == [{"got": {"x": 1}}]

    run(scenario)
