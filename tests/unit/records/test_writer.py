"""The queue and its task: batches, places that do not answer, what is dropped and counted, the end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.tensors import Rows
from dragoman.serving.records import writer as module
from dragoman.serving.records.forms import HEADERS, Batches, Seen, slim
from tests.fakes_records import AWAY, Site
from tests.servables import run
from tests.workers import until


def seen(number: int = 0, *, model: str = "m", version: str = "1", error: str = "", size: int = 0) -> Seen:
    """A request that has ended."""
    made = Seen(model, version, "toy", None, "predict", str(number), {}, 1.0, Rows([number]), Rows([number]))
    made.error, made.size = error, size
    return made


def with_site(test: Callable[[Site], Awaitable[None]], **options: Any) -> None:
    """Run a test with a writer that runs, and end it."""

    async def whole() -> None:
        site = Site(**options)
        site.writer.start()
        try:
            await test(site)
        finally:
            await site.close()

    run(whole)


def ids(site: Site) -> list[str]:
    return [record["request"]["id"] for record in site.records]


def test_records_arrive_in_order() -> None:
    """And are counted by model."""

    async def test(site: Site) -> None:
        for number in range(100):
            assert site.writer.put(seen(number, model="m" if number % 2 else "n"))
        await until(lambda: len(site.records) == 100)
        assert ids(site) == [str(number) for number in range(100)]
        assert (site.sent("m"), site.sent("n"), site.dropped()) == (50, 50, 0)

    with_site(test)


# --- batches ---


def test_a_batch_has_headers_and_values() -> None:
    """What is common stands once; the rest is a row per request, in the order of the headers."""

    async def test(site: Site) -> None:
        for number in range(3):
            site.writer.put(seen(number))
        await until(lambda: len(site.records) == 1)
        (batch,) = site.records
        assert batch["headers"] == list(HEADERS)
        assert [row[0]["id"] for row in batch["values"]] == ["0", "1", "2"]
        assert batch["values"][0][1:] == ["predict", {"id": "0", "model_name": "m", "outputs": [0]}, STAMP, 0, None]
        assert (batch["model"], batch["version"], batch["worker"], batch["class"]) == ("m", "1", "3", "toy")
        assert not set(HEADERS) & batch.keys()
        assert site.sent() == 3

    with_site(test, batch=3)


STAMP = "1970-01-01 00:00:01.000000+00:00"


def test_models_and_versions_have_batches_of_their_own() -> None:
    """And errors go at once, alone: a batch has no column for them."""

    async def test(site: Site) -> None:
        site.writer.put(seen(1))
        site.writer.put(seen(2, model="n"))
        site.writer.put(seen(3, error="it burns"))
        await until(lambda: len(site.records) == 1)
        assert site.records[0]["error"] == "it burns"
        site.writer.put(seen(4, version="2"))
        site.writer.put(seen(5))
        await until(lambda: len(site.records) == 2)
        assert [row[0]["id"] for row in site.records[1]["values"]] == ["1", "5"]
        await site.close()
        assert [(batch["model"], batch["version"]) for batch in site.records[2:]] == [("n", "1"), ("m", "2")]

    with_site(test, batch=2)


def test_a_batch_does_not_wait_for_ever() -> None:
    """One that does not fill is sent after a while, and the place is told to deliver what it holds."""

    async def test(site: Site) -> None:
        site.writer.put(seen(1))
        await until(lambda: len(site.records) == 1 and site.sink.flushes > 0)
        assert len(site.records[0]["values"]) == 1

    with_site(test, batch=100, linger_s=0.05)


def test_another_batch_size_sends_what_was_gathered() -> None:
    """As does turning tracking off."""

    async def test(site: Site) -> None:
        site.writer.put(seen(1))
        await until(lambda: len(site.writer._batches) == 1)
        site.settings.update({"batch": 50})
        await until(lambda: len(site.records) == 1)
        site.writer.put(seen(2))
        await until(lambda: len(site.writer._batches) == 1)
        site.settings.update({"on": False})
        await until(lambda: len(site.records) == 2)
        await until(lambda: site.sink.closed == 2)

    with_site(test, batch=100)


def test_batches_alone() -> None:
    """A size of 1 sends what was gathered for a larger one first."""
    batches = Batches()
    record = {"model": "m", "version": "1", "request": {}, "op": "o", "resp": {}, "when": "w", "microsec": 1}
    assert batches.add([record], [10], 5, 10.0) == []
    assert batches.take(9.0) == []
    gathered, single = batches.add([record], [10], 1, 11.0)
    assert len(gathered["values"]) == 1
    assert single == record
    assert len(batches) == 0


def test_a_batch_of_large_records_ends_early() -> None:
    """However many it should have: what is gathered is bounded in bytes."""
    batches = Batches()
    record = {"model": "m", "version": "1", "request": {}, "op": "o", "resp": {}, "when": "w", "microsec": 1}
    ready = batches.add([record] * 5, [100 << 10] * 5, 1_000_000, 0.0)
    assert [len(batch["values"]) for batch in ready] == [3]
    assert len(batches) == 2


def test_slim_records() -> None:
    """Requests and answers are replaced by their size, in batches too."""
    record = {"model": "m", "request": {"a": 1}, "resp": 2, "op": "o"}
    assert slim(record, 7) == {"model": "m", "request": {"left_out": "7 bytes"}, "resp": {"left_out": "7 bytes"}, "op": "o"}
    batch = {"model": "m", "headers": ["request", "op", "resp"], "values": [[1, "o", 2]]}
    assert slim(batch, 7)["values"] == [[{"left_out": "7 bytes"}, "o", {"left_out": "7 bytes"}]]


# --- places that do not answer ---


def test_a_place_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost and nothing comes twice, and nobody hears of it."""

    async def test(site: Site) -> None:
        site.sink.errors = [AWAY, AWAY]
        site.writer.put(seen(1))
        await until(lambda: len(site.records) == 1)
        assert (site.sink.attempts, site.dropped()) == (3, 0)

    with_site(test)
    assert not caplog.records


def test_a_place_that_stays_away(caplog: pytest.LogCaptureFixture) -> None:
    """After the last attempt records are dropped and counted; one line says so, and one that they arrive again."""

    async def test(site: Site) -> None:
        site.sink.errors = [AWAY] * 6
        site.writer.put(seen(0))
        await until(lambda: site.dropped() == 1)
        site.writer.put(seen(1))
        await until(lambda: site.dropped() == 2)
        site.writer.put(seen(2))
        await until(lambda: ids(site) == ["2"])

    caplog.set_level(logging.INFO)
    with_site(test)
    assert [record.message for record in caplog.records] == [
        "tracking records are dropped: nobody is at home",
        "tracking records arrive again; 2 were dropped",
    ]


def test_what_will_never_go_is_not_tried_again() -> None:
    """A place that is forbidden, or that cannot be had."""

    async def test(site: Site) -> None:
        site.sink.errors = [ServingError(Kind.FORBIDDEN, "not there")]
        site.writer.put(seen(1))
        await until(lambda: site.dropped() == 1)
        assert site.sink.attempts == 1

    with_site(test)


def test_single_records_are_refused() -> None:
    """Those are dropped and counted, their neighbours are not."""

    async def test(site: Site) -> None:
        site.sink.refuse = lambda record: record["model"] == "n"
        for number in range(4):
            site.writer.put(seen(number, model="n" if number == 1 else "m"))
        await until(lambda: site.sent() + site.dropped("n") == 4)
        assert ids(site) == ["0", "2", "3"]
        assert (site.sent("m"), site.sent("n"), site.dropped("n")) == (3, 0, 1)

    with_site(test)


def test_a_bug_in_a_sink_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is in the log, the records are dropped, and the next ones go on."""

    async def test(site: Site) -> None:
        site.sink.errors = [ZeroDivisionError("oops")]
        site.writer.put(seen(1))
        await until(lambda: site.dropped() == 1)
        site.writer.put(seen(2))
        await until(lambda: ids(site) == ["2"])

    with_site(test)
    assert "ZeroDivisionError" in caplog.text


def test_more_than_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever asks never waits: what is too much is dropped, counted, and said once."""

    async def test(site: Site) -> None:
        site.sink.gate = asyncio.Event()
        site.writer.put(seen(0))
        await until(lambda: site.sink.attempts == 1)
        queued = [site.writer.put(seen(number)) for number in range(1, 11)]
        assert queued == [True] * 5 + [False] * 5
        assert site.dropped() == 5
        site.sink.gate.set()
        await until(lambda: len(site.records) == 6)
        assert site.writer.put(seen(11))

    with_site(test, most=5)
    assert [line for line in caplog.messages if "are dropped" in line] == ["tracking records are dropped: 5 records were waiting"]


def test_room_is_counted_in_bytes_too() -> None:
    """Few large records fill the memory as many small ones do."""

    async def test(site: Site) -> None:
        site.sink.gate = asyncio.Event()
        site.writer.put(seen(0))
        await until(lambda: site.sink.attempts == 1)
        large = module.MOST_BYTES // 4
        assert [site.writer.put(seen(number, size=large)) for number in range(1, 5)] == [True, True, True, False]
        site.sink.gate.set()
        await until(lambda: len(site.records) == 4)
        assert site.writer.put(seen(5, size=large))

    with_site(test)


# --- switching and ending ---


def test_another_place() -> None:
    """What was seen before goes where it went; the old place is closed, the new one opened."""

    async def test(site: Site) -> None:
        site.writer.put(seen(1))
        await until(lambda: len(site.records) == 1)
        site.settings.update({"url": "http://other.example/"})
        site.writer.put(seen(2))
        await until(lambda: len(site.records) == 2)
        assert [place.url for place in site.opened] == ["http://records.example/in", "http://other.example/"]
        assert site.sink.closed == 1

    with_site(test)


def test_the_end_sends_what_waits() -> None:
    """Half a batch included, and then the place is closed; what comes afterwards is dropped."""

    async def test(site: Site) -> None:
        for number in range(5):
            site.writer.put(seen(number))
        await site.close()
        assert [len(batch["values"]) for batch in site.records] == [3, 2]
        assert site.sink.closed == 1
        assert not site.writer.put(seen(6))
        assert site.dropped() == 1

    with_site(test, batch=3)


def test_the_end_does_not_wait_for_a_place_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """Everything that was not delivered is counted: what was being sent, what was gathered, what waited."""

    async def test(site: Site) -> None:
        site.sink.gate = asyncio.Event()
        for number in range(3):
            site.writer.put(seen(number))
        await until(lambda: site.sink.attempts == 1)
        site.writer.put(seen(3))
        site.writer.put(seen(4, model="n"))
        await site.close(0.01)
        assert (site.sent(), site.dropped("m"), site.dropped("n")) == (0, 4, 1)
        assert site.sink.closed == 1

    with_site(test, batch=2)
    assert "5 tracking records were dropped" in caplog.text


def test_a_place_that_cannot_write_what_it_holds(caplog: pytest.LogCaptureFixture) -> None:
    """Is said in the log: nobody else knows of those records any more."""

    async def test(site: Site) -> None:
        site.writer.put(seen(1))
        await until(lambda: len(site.records) == 1)
        site.sink.flush_errors = [AWAY] * 3
        await site.close()
        assert site.sink.closed == 1

    with_site(test)
    assert caplog.messages == ["tracking records that were gathered could not be written: nobody is at home"]


def test_a_writer_that_was_never_started() -> None:
    """Can be ended."""

    async def test() -> None:
        await Site().close()

    run(test)
