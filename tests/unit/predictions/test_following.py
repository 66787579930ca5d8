"""Long polls and events: what callers are told while a prediction waits, runs and prints; texts of errors and logs."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.serving.predictions import Event
from dragoman.serving.predictions.views import MOST_LOG, Tail, error_text, fresh
from tests.fakes_store import FakeStore
from tests.servables import run, settle
from tests.unit.predictions.rig import Bench, bench

P = Progress
Told = list[tuple[str, str]]


async def collect(it: Bench, key: str, into: Told) -> None:
    """What a subscriber is told: statuses and pieces of log."""
    async with aclosing(it.service.events(key)) as events:
        async for event in events:
            into.append((event.kind, event.text or event.view.progress.value))


def printed(told: Told) -> str:
    return "".join(text for kind, text in told if kind == "log")


# --- wait ---


def test_a_long_poll_ends_with_the_prediction(tmp_path: Path) -> None:
    """It returns when the prediction has ended, and at once for one that has ended already."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            waiting = asyncio.ensure_future(it.service.wait(key, 30))
            await it.asked(1)
            it.servable.start(0, "text")
            await it.reach(key, P.RUNNING)
            assert not waiting.done()
            it.servable.finish(0, {"y": 1})
            assert (await waiting).outputs == [{"y": 1}]
            assert (await it.service.wait(key, 30)).outputs == [{"y": 1}]

    run(scenario)


def test_a_long_poll_ends_with_its_time(tmp_path: Path) -> None:
    """It returns how the prediction stands; no time at all is a plain poll."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            assert (await it.service.wait(key, 0)).progress is P.CLAIMED
            assert (await it.service.wait(key, -5)).progress is P.CLAIMED
            assert (await it.service.wait(key, 0.01)).progress is P.CLAIMED

    run(scenario)


def test_a_stop_sends_those_who_wait_home(tmp_path: Path) -> None:
    """Long polls and streams of events end when the server stops, long before their time."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            told: Told = []
            waiting = asyncio.ensure_future(it.service.wait(key, 600))
            following = asyncio.ensure_future(collect(it, key, told))
            await settle(lambda: told == [("status", "claimed")])
            await it.service.close()
            assert not (await waiting).progress.terminal
            await following
            assert told[0] == ("status", "claimed")
            assert ("status", "failed") not in told

    run(scenario)


# --- events ---


def test_events_from_the_beginning(tmp_path: Path) -> None:
    """How it stands, then every change, then pieces of the log as they are printed, last the end."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            told: Told = []
            following = asyncio.ensure_future(collect(it, key, told))
            await it.asked(1)
            await settle(lambda: len(told) == 1)
            it.servable.start(0, "one\n")
            await _until(lambda: printed(told) == "one\n")
            it.servable.asked[0].watch.log("two\n")  # type: ignore[union-attr] # it has one
            await _until(lambda: printed(told) == "one\ntwo\n")
            it.servable.finish(0, {"y": 1})
            await following
            assert told == [("status", "claimed"), ("status", "running"), ("log", "one\n"), ("log", "two\n"), ("status", "succeeded")]

    run(scenario)


def test_late_subscribers_get_everything(tmp_path: Path) -> None:
    """The state and the log so far; after the end the whole log and the end."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.start(0, "so far ")
            late: Told = []
            following = asyncio.ensure_future(collect(it, key, late))
            await _until(lambda: printed(late) == "so far ")
            it.servable.asked[0].watch.log("the end")  # type: ignore[union-attr]
            it.servable.finish(0, {"y": 1})
            await following
            assert late[0] == ("status", "running")
            assert (printed(late), late[-1]) == ("so far the end", ("status", "succeeded"))
            after: Told = []
            await collect(it, key, after)
            assert after == [("log", "so far the end"), ("status", "succeeded")]

    run(scenario)


def test_events_at_another_worker(tmp_path: Path) -> None:
    """A worker that does not run it tells the same from the store, a little later."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as one, bench(tmp_path, store) as other:
            key = await one.submit()
            await one.asked(1)
            told: Told = []
            following = asyncio.ensure_future(collect(other, key, told))
            await _until(lambda: bool(told))
            one.servable.start(0, "hello ")
            await one.service.beat()
            await _until(lambda: printed(told) == "hello ")
            one.servable.asked[0].watch.log("again")  # type: ignore[union-attr]
            one.servable.finish(0, {"y": 1})
            await following
            assert (printed(told), told[-1]) == ("hello again", ("status", "succeeded"))

    run(scenario)


def test_idle_events(tmp_path: Path) -> None:
    """In silences there is a sign of life."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            events = it.service.events(key, idle_s=0.005)
            kinds = [(await anext(events)).kind for _ in range(3)]
            await events.aclose()
            assert kinds == ["status", "idle", "idle"]

    run(scenario)


def test_a_slow_reader_holds_nothing_up(tmp_path: Path) -> None:
    """A model prints far more than is kept while nobody reads: the reader gets the last part, marked where something is missing."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.start(0, "begin\n")
            events = it.service.events(key)
            seen: list[Event] = [await anext(events), await anext(events)]
            assert [e.text for e in seen] == ["", "begin\n"]
            for number in range(5000):
                it.servable.asked[0].watch.log(f"{number:0100d}\n")  # type: ignore[union-attr]
            piece = await anext(events)
            assert piece.text.startswith("\n[...]\n")
            assert piece.text.endswith(f"{4999:0100d}\n")
            assert len(piece.text) <= MOST_LOG + 10
            await events.aclose()

    run(scenario)


# --- logs of rows that share a batch ---


def test_rows_of_one_batch_print_once(tmp_path: Path) -> None:
    """All members of a batch are told what it prints; the prediction shows it once. The next batch is another matter."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit(*({"x": n} for n in range(4)))
            await it.asked(4)
            watches = [r.watch for r in it.servable.asked]
            for pair, text in ((watches[:2], "first\n"), (watches[2:], "second\n")):
                for watch in pair:
                    assert watch is not None
                    watch.started()
                await asyncio.sleep(0)
                for piece in (text, "more\n"):
                    for watch in pair:
                        watch.log(piece)  # type: ignore[union-attr]
            assert (await it.service.get(key)).logs == "first\nmore\nsecond\nmore\n"

    run(scenario)


def test_batches_that_start_in_one_pass_of_the_loop(tmp_path: Path) -> None:
    """Two fast batches whose news come together lose nothing."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit(*({"x": n} for n in range(3)))
            await it.asked(3)
            for request, text in zip(it.servable.asked, ("a", "b", "c"), strict=True):
                assert request.watch is not None
                request.watch.started()
                request.watch.log(text)
            assert (await it.service.get(key)).logs == "abc"

    run(scenario)


def test_what_is_told_from_other_threads(tmp_path: Path) -> None:
    """A model's thread says that it starts and prints; it arrives in order."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            watch = it.servable.asked[0].watch
            assert watch is not None

            def work() -> None:
                watch.started()
                for number in range(50):
                    watch.log(f"{number} ")

            thread = threading.Thread(target=work)
            thread.start()
            await asyncio.to_thread(thread.join)
            view = await it.reach(key, P.RUNNING)
            await _until(lambda: True)
            view = await it.service.get(key)
            assert view.logs == "".join(f"{n} " for n in range(50))

    run(scenario)


# --- texts ---


@given(st.lists(st.text(max_size=200), max_size=20))
def test_a_short_log_is_whole(pieces: list[str]) -> None:
    """Up to the bound nothing is lost, but what no database takes is replaced."""
    tail = Tail()
    for piece in pieces:
        tail.append(piece)
    whole = "".join(pieces).encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    assert tail.text == whole


def test_a_long_log_keeps_its_end() -> None:
    """However much is printed, so much is held."""
    tail = Tail()
    for number in range(100_000):
        tail.append(f"line {number}\n")
    assert len(tail.text) == MOST_LOG
    assert tail.text.endswith("line 99999\n")
    tail.append("x" * 10 * MOST_LOG)
    assert tail.text == "x" * MOST_LOG


@given(st.text("ab\n", max_size=300), st.text("ab\n", max_size=300), st.integers(64, 300))
def test_what_a_log_has_gained(old: str, more: str, kept: int) -> None:
    """Old text and what is new, together, end as the new text does; nothing is told twice when nothing was dropped."""
    assert fresh(old, old + more) == more
    new = (old + more)[-kept:]
    assert new.endswith(fresh(old, new).removeprefix("\n[...]\n"))


def test_a_log_that_lost_its_beginning() -> None:
    """Only the new part is told, even when lines repeat; where the parts do not touch, that is marked."""
    lines = [f"{n}\n" for n in range(1000)]
    old = "".join(lines[:900])[-500:]
    assert fresh(old, "".join(lines)[-700:]) == "".join(lines[900:])
    assert fresh(old, "something else") == "\n[...]\nsomething else"


def test_long_tracebacks_are_cut_in_the_middle() -> None:
    """Both ends say something; the middle of a hundred thousand lines does not."""
    text = error_text(ServingError(Kind.MODEL_FAILED, "m", trace="begin" + "x" * 1_000_000 + "ValueError: end"))
    assert len(text) < 70_000
    assert text.startswith("begin")
    assert text.endswith("ValueError: end")


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_a_text(kind: Kind) -> None:
    """One line that begins with a word in the style of exceptions."""
    text = error_text(ServingError(kind, "why"))
    assert text in ("Canceled", "Timeout") or text == f"{kind.name.title().replace('_', '')}: why"


async def _until(condition) -> None:  # type: ignore[no-untyped-def] # a condition without arguments
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
        while not condition():
            await asyncio.sleep(0.001)
