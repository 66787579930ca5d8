"""Webhooks: when they are called, with what, how often, and that neither a restart nor another worker forgets one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.serving.predictions import View
from dragoman.serving.webhooks import GIVEN_UP_S
from tests.fakes_store import FakeStore
from tests.servables import run
from tests.unit.predictions.rig import BROKEN, DOWN, LIMITS, Bench, Posted, bench

P = Progress
URL = "https://example.org/hook?secret=1"


async def delivered(it: Bench, key: str) -> None:
    async with asyncio.timeout(10):
        while not (await it.stored(key)).delivered:
            await asyncio.sleep(0.001)


def test_a_webhook_is_called_at_the_end(tmp_path: Path) -> None:
    """Once, with the body that the dialect writes and the id in a header; then it is marked as delivered."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            it.service.write_webhooks(lambda view: orjson.dumps({"outputs": view.outputs, "status": view.progress.value}))
            key = await it.submit(webhook=URL)
            await it.asked(1)
            it.servable.start(0)
            assert it.posted.calls == []
            it.servable.finish(0, {"y": 1})
            await it.reach(key, P.SUCCEEDED)
            await delivered(it, key)
            ((url, body, headers),) = it.posted.calls
            assert (url, orjson.loads(body), headers) == (
                URL,
                {"outputs": [{"y": 1}], "status": "succeeded"},
                {"X-Prediction-Id": key},
            )
            it.pass_time(100)
            await it.service.beat()
            assert len(it.posted.calls) == 1

    run(scenario)


@pytest.mark.parametrize("how", ["failure", "cancel", "cancel elsewhere", "cancel of what nobody runs"])
def test_every_ending_is_told(tmp_path: Path, how: str) -> None:
    """Failed and cancelled ones, too, whoever decided it; without a dialect the body says how it came out."""

    async def scenario() -> None:
        store, posted = FakeStore(), Posted()
        limits = replace(LIMITS, held=0) if how == "cancel of what nobody runs" else LIMITS
        async with bench(tmp_path, store, posted=posted, limits=limits) as it, bench(tmp_path, store, posted=posted) as other:
            key = await it.submit(webhook=URL)
            if how == "failure":
                await it.asked(1)
                it.servable.finish(0, BROKEN)
            else:
                await (other if how == "cancel elsewhere" else it).service.cancel(key)
            await delivered(it, key)
            ((_, body, _),) = posted.calls
            expected = ("failed", BROKEN.trace) if how == "failure" else ("cancelled", "Canceled")
            assert orjson.loads(body) == {"id": key, "model": "m", "status": expected[0], "error": expected[1]}

    run(scenario)


def test_trouble_is_met_with_patience(tmp_path: Path) -> None:
    """A host that fails or cannot be reached is tried again, six times in all; then it is given up for good."""

    async def scenario() -> None:
        trouble: list[int | ServingError] = [500, ServingError(Kind.UNAVAILABLE, "the host cannot be reached"), 503, 429, 200]
        async with bench(tmp_path, posted=Posted(*trouble)) as it:
            key = await it.submit(webhook=URL)
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await delivered(it, key)
            assert len(it.posted.calls) == 5
        async with bench(tmp_path, posted=Posted(*[500] * 20)) as it:
            key = await it.submit(webhook=URL)
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await delivered(it, key)
            assert len(it.posted.calls) == 6

    run(scenario)


@pytest.mark.parametrize("answer", [302, 404, ServingError(Kind.FORBIDDEN, "not open")], ids=["redirect", "refused", "not allowed"])
def test_a_refusal_is_final(tmp_path: Path, answer: int | ServingError) -> None:
    """Redirects are not followed, refusals not argued with."""

    async def scenario() -> None:
        async with bench(tmp_path, posted=Posted(answer)) as it:
            key = await it.submit(webhook=URL)
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await delivered(it, key)
            assert len(it.posted.calls) == 1

    run(scenario)


def test_a_restart_forgets_no_webhook(tmp_path: Path) -> None:
    """The server was killed between the end and the delivery: the next one delivers."""

    async def scenario() -> None:
        store = FakeStore()
        first = Bench(tmp_path, store)
        key = await first.submit(webhook=URL)
        await first.asked(1)
        await first.crash()
        store._predictions[key] = replace(store._predictions[key], progress=P.SUCCEEDED, finished=1000.0, outputs=None)
        async with bench(tmp_path, store) as it:
            await it.service.beat()
            await delivered(it, key)
            assert [url for url, _, _ in it.posted.calls] == [URL]

    run(scenario)


def test_a_living_owner_delivers_itself(tmp_path: Path) -> None:
    """Another worker keeps out of it, until the owner has had all the time that its attempts can take."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as owner, bench(tmp_path, store) as other:
            key = await owner.submit(webhook=URL)
            await owner.asked(1)
            store._predictions[key] = replace(store._predictions[key], progress=P.SUCCEEDED, finished=1000.0)
            await other.service.beat()
            assert other.posted.calls == []
            other.clock.now += GIVEN_UP_S + 1
            other.monotonic.now += GIVEN_UP_S + 1
            await other.service.beat()
            await delivered(other, key)
            assert len(other.posted.calls) == 1

    run(scenario)


def test_what_the_restart_itself_fails_is_told(tmp_path: Path) -> None:
    """A prediction that its dead server cut off fails, and its webhook says so."""

    async def scenario() -> None:
        store = FakeStore()
        first = Bench(tmp_path, store)
        key = await first.submit(webhook=URL)
        await first.asked(1)
        first.servable.start(0)
        await first.stored_as(key, P.RUNNING)
        await first.crash()
        async with bench(tmp_path, store) as it:
            await it.service.beat()
            await delivered(it, key)
            assert b"the server stopped while it ran" in it.posted.calls[0][1]

    run(scenario)


def test_a_body_that_cannot_be_written(tmp_path: Path) -> None:
    """A bug in writing the body harms neither the prediction nor the server."""

    def broken(view: View) -> bytes:
        raise TypeError("a bug")

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            it.service.write_webhooks(broken)
            key = await it.submit(webhook=URL)
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            assert (await it.service.wait(key, 10)).outputs == [{"y": 1}]
            it.service.write_webhooks(lambda view: b"{}")
            it.pass_time(31)
            await it.service.beat()
            await delivered(it, key)

    run(scenario)


def test_webhooks_and_a_store_that_is_down(tmp_path: Path) -> None:
    """Looking for undelivered ones fails without harm."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            await it.submit(webhook=URL)
            it.fake.failure = DOWN
            await it.service.beat()

    run(scenario)
