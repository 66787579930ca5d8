"""Every way in which a prediction can end, seen by callers and in the store; and that the first ending is the only one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.predictions import Progress
from dragoman.core.tensors import Signature, Value
from dragoman.hosting.frames import unpack_rows
from tests.servables import run, settle
from tests.unit.predictions.rig import BROKEN, DOWN, LIMITS, bench, ended

P = Progress


def test_success(tmp_path: Path) -> None:
    """Pending until it starts, running until it is answered; then the outputs are there, for callers and in the store."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit({"x": 1}, {"x": 2})
            assert len(key) == 32
            assert int(key, 16) >= 0
            view = await it.service.get(key)
            assert (view.progress, view.outputs, view.started, view.model, view.version) == (P.CLAIMED, None, None, "m", "1")
            await it.asked(2)
            it.clock.now = 1001.0
            it.servable.start(0)
            view = await it.reach(key, P.RUNNING)
            assert view.started == 1001.0
            await it.stored_as(key, P.RUNNING)
            it.servable.finish(1, {"y": 20})
            it.clock.now = 1002.0
            it.servable.finish(0, {"y": 10})
            view = await it.reach(key, P.SUCCEEDED)
            assert view.outputs == [{"y": 10}, {"y": 20}]
            assert (view.created, view.started, view.finished, view.error) == (1000.0, 1001.0, 1002.0, "")
            record = await it.stored(key)
            assert (record.progress, record.attempt, record.finished) == (P.SUCCEEDED, 1, 1002.0)
            assert record.outputs is not None
            assert unpack_rows(record.outputs) == view.outputs
            assert unpack_rows(record.inputs) == [{"x": 1}, {"x": 2}]
            assert it.ended == [("m", P.SUCCEEDED)]

    run(scenario)


def test_the_owner_reads_the_models_traceback(tmp_path: Path) -> None:
    """The error of a model's code is its traceback, with the kind beside it."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.start(0)
            it.servable.finish(0, BROKEN)
            view = await it.reach(key, P.FAILED)
            assert ended(view) == (P.FAILED, BROKEN.trace, "model_failed")
            assert (await it.stored(key)).error == BROKEN.trace
            assert it.ended == [("m", P.FAILED)]

    run(scenario)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ServingError(Kind.INVALID_INPUT, "no such colour"), "InvalidInput: no such colour"),
        (ServingError(Kind.TIMEOUT, "too late"), "Timeout"),
        (ServingError(Kind.MODEL_FAILED, "half a pair \ud800 and \0"), "ModelFailed: half a pair ? and \ufffd"),
        (RuntimeError("secret"), "Internal: the server failed; its log says why"),
    ],
    ids=["kind and message", "time-out", "no odd characters", "a bug of ours"],
)
def test_other_failures(tmp_path: Path, error: Exception, text: str) -> None:
    """Without a traceback the kind and the message; nothing of what failed inside the server."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.finish(0, error)
            view = await it.reach(key, P.FAILED)
            assert view.error == text
            assert (await it.stored(key)).error == text

    run(scenario)


def test_one_failure_fails_the_whole(tmp_path: Path) -> None:
    """The other rows of a prediction are broken off when one has failed."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit({"x": 1}, {"x": 2}, {"x": 3})
            await it.asked(3)
            it.servable.finish(1, BROKEN)
            assert (await it.reach(key, P.FAILED)).outputs is None
            assert it.servable.cancelled == 2

    run(scenario)


def test_an_output_that_cannot_be_stored_is_a_failure(tmp_path: Path) -> None:
    """A value that no row may hold fails the prediction, and does not leave it running."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.finish(0, {"y": object()})
            view = await it.reach(key, P.FAILED)
            assert view.error_kind == "model_failed"
            assert "model 'm' answered what cannot be stored" in view.error

    run(scenario)


def test_inputs_that_cannot_be_made_ready_fail_it(tmp_path: Path) -> None:
    """A URL that is not there was accepted, and is a failed prediction then, even when the reason is one that a model could have, too."""

    async def resolve(rows: object, signature: Signature) -> list[Value]:
        raise ServingError(Kind.FORBIDDEN, "input 0, field 'image': URL http://x: not open")

    async def scenario() -> None:
        async with bench(tmp_path, resolve=resolve) as it:
            key = await it.submit()
            view = await it.reach(key, P.FAILED)
            assert ended(view) == (P.FAILED, "Forbidden: input 0, field 'image': URL http://x: not open", "forbidden")
            assert it.servable.asked == []

    run(scenario)


# --- cancel ---


def test_cancel_while_it_waits(tmp_path: Path) -> None:
    """Cancelled before it started: its requests are withdrawn, it is failed with "Canceled" at once, also in the store."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit({"x": 1}, {"x": 2})
            await it.asked(2)
            view = await it.service.cancel(key)
            assert ended(view) == (P.CANCELLED, "Canceled", "cancelled")
            assert (await it.stored(key)).progress is P.CANCELLED
            await settle(lambda: it.servable.cancelled == 2)

    run(scenario)


def test_cancel_before_the_model_is_asked(tmp_path: Path) -> None:
    """A prediction that is cancelled in the moment in which it was accepted never reaches the model."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            view = await it.service.cancel(key)
            assert view.progress is P.CANCELLED
            assert it.servable.asked == []

    run(scenario)


def test_cancel_while_it_runs(tmp_path: Path) -> None:
    """The running work is broken off, and what it still answers changes nothing."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.start(0)
            await it.stored_as(key, P.RUNNING)
            view = await it.service.cancel(key)
            assert ended(view) == (P.CANCELLED, "Canceled", "cancelled")
            assert view.started is not None
            assert view.finished is not None
            await settle(lambda: it.servable.cancelled == 1)

    run(scenario)


def test_cancel_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """Finished or cancelled before: the answer is how it stands."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await it.reach(key, P.SUCCEEDED)
            assert (await it.service.cancel(key)).outputs == [{"y": 1}]
            other = await it.submit()
            first = await it.service.cancel(other)
            it.pass_time(5)
            assert await it.service.cancel(other) == first

    run(scenario)


def test_cancel_and_result_at_the_same_moment(tmp_path: Path) -> None:
    """Whichever is decided first stands, for callers and in the store alike."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            for rounds in range(20):
                key = await it.submit()
                await it.asked(rounds + 1)
                it.servable.finish(rounds, {"y": rounds})
                for _ in range(rounds % 7):
                    await asyncio.sleep(0)
                view = await it.service.cancel(key)
                assert view.progress in (P.CANCELLED, P.SUCCEEDED)
                assert view.progress is (await it.stored(key)).progress
                assert view == await it.service.get(key)

    run(scenario)


def test_cancelling_one_leaves_the_others_alone(tmp_path: Path) -> None:
    """Two predictions in the model; one is cancelled, the other succeeds."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            one, other = await it.submit(), await it.submit()
            await it.asked(2)
            await it.service.cancel(one)
            it.servable.finish(1, {"y": 2})
            assert (await it.reach(other, P.SUCCEEDED)).outputs == [{"y": 2}]

    run(scenario)


def test_unknown_ids(tmp_path: Path) -> None:
    """NOT_FOUND for get, wait, inputs, events and cancel, whatever the id looks like."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            for key in ("nope", "0" * 32, "", "\ud800", "../x", "A" * 32, "0" * 100_000):
                for call in (it.service.get(key), it.service.cancel(key), it.service.wait(key, 1), it.service.inputs(key)):
                    with pytest.raises(ServingError) as caught:
                        await call
                    assert (caught.value.kind, caught.value.what) == (Kind.NOT_FOUND, "prediction")
                    assert len(caught.value.message) < 200
                with pytest.raises(ServingError):
                    await anext(it.service.events(key))

    run(scenario)


def test_inputs_that_are_nested_too_deeply(tmp_path: Path) -> None:
    """Refused like everything else that cannot be stored."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            deep: Value = []
            for _ in range(5000):
                deep = [deep]
            with pytest.raises(ServingError, match="cannot be stored") as caught:
                await it.submit({"x": deep})
            assert caught.value.kind is Kind.INVALID_INPUT

    run(scenario)


# --- time ---


def test_a_row_that_runs_too_long_is_broken_off(tmp_path: Path) -> None:
    """`prediction_timeout` counts from the start of a row, not from the acceptance of the prediction."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, run_timeout_s=10.0)) as it:
            key = await it.submit({"x": 1}, {"x": 2})
            await it.asked(2)
            it.pass_time(100)
            await it.service.beat()
            assert (await it.service.get(key)).progress is P.CLAIMED
            it.servable.start(0)
            it.pass_time(9)
            it.servable.finish(0, {"y": 1})
            await settle(lambda: len(it.servable.waiting) == 1)
            it.pass_time(9)
            await it.service.beat()
            assert (await it.service.get(key)).progress is P.RUNNING
            it.servable.start(1)
            it.pass_time(11)
            await it.service.beat()
            assert ended(await it.reach(key, P.FAILED)) == (P.FAILED, "Timeout", "timeout")
            await settle(lambda: it.servable.cancelled == 1)

    run(scenario)


def test_results_go_when_their_time_is_over(tmp_path: Path) -> None:
    """Kept for `expiration_s` after the end, to the second; then they are unknown, and soon gone from the store."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, expiration_s=100.0)) as it:
            key = await it.submit()
            await it.asked(1)
            it.servable.finish(0, {"y": 1})
            await it.reach(key, P.SUCCEEDED)
            waiting = await it.submit()
            it.pass_time(99)
            assert (await it.service.get(key)).outputs == [{"y": 1}]
            it.pass_time(2)
            with pytest.raises(ServingError, match="there is no prediction"):
                await it.service.get(key)
            await it.service.beat()
            assert await it.store.prediction(key) is None
            assert (await it.service.get(waiting)).progress is P.CLAIMED

    run(scenario)


# --- the store is down ---


def test_accepting_needs_the_store(tmp_path: Path) -> None:
    """UNAVAILABLE, nothing runs, and nothing is counted as waiting; with the store back everything is as before."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            it.fake.failure = DOWN
            with pytest.raises(ServingError, match="the database is gone"):
                await it.submit()
            assert it.service.waiting() == {}
            assert it.servable.asked == []
            it.fake.failure = None
            await it.submit()

    run(scenario)


def test_what_runs_ends_without_the_store(tmp_path: Path) -> None:
    """The store goes while it runs: callers still see it run and succeed, and the store learns of it when it is back."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.failure = DOWN
            it.servable.start(0, "hello\n")
            await it.reach(key, P.RUNNING)
            it.servable.finish(0, {"y": 1})
            view = await it.reach(key, P.SUCCEEDED)
            assert (view.outputs, view.logs) == ([{"y": 1}], "hello\n")
            assert await it.service.cancel(key) == view
            it.fake.failure = None
            assert (await it.stored(key)).progress is P.CLAIMED
            record = await it.stored_as(key, P.SUCCEEDED)
            assert record.logs == "hello\n"
            assert await it.service.get(key) == view

    run(scenario)


def test_a_store_that_fails_in_a_way_nobody_foresaw(tmp_path: Path) -> None:
    """A bug while the end is written leaves nobody waiting, and the end is written when it can be."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.failure = TypeError("a bug")  # type: ignore[assignment] # what nobody foresaw
            it.servable.finish(0, {"y": 1})
            assert (await it.service.wait(key, 10)).outputs == [{"y": 1}]
            it.fake.failure = None
            await it.stored_as(key, P.SUCCEEDED)

    run(scenario)


def test_a_cancel_without_the_store_holds(tmp_path: Path) -> None:
    """Own predictions can be cancelled with the store down; the store is told later."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.failure = DOWN
            assert (await it.service.cancel(key)).progress is P.CANCELLED
            it.fake.failure = None
            await it.stored_as(key, P.CANCELLED)

    run(scenario)


def test_the_start_is_stored_when_the_store_is_back(tmp_path: Path) -> None:
    """A start that could not be stored is tried again with the next beat."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            it.fake.failure = DOWN
            it.servable.start(0, "one ")
            await it.service.beat()
            it.fake.failure = None
            assert (await it.stored(key)).progress is P.CLAIMED
            await it.service.beat()
            record = await it.stored(key)
            assert (record.progress, record.started, record.logs) == (P.RUNNING, 1000.0, "one ")

    run(scenario)


def test_a_beat_survives_everything(tmp_path: Path) -> None:
    """A store that is down, or that fails in a way nobody foresaw, ends the beat and not the server."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            await it.submit()
            it.fake.failure = DOWN
            await it.service.beat()
            await it.service.beat()
            it.fake.failure = TypeError("a bug")  # type: ignore[assignment] # what nobody foresaw
            await it.service.beat()
            it.fake.failure = None
            await it.service.beat()

    run(scenario)
