"""What becomes of predictions when their worker ends, dies, or loses its lease; and two workers over one store."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import ModelSpec
from dragoman.core.predictions import Prediction, Progress
from dragoman.store import Change
from tests.fakes_store import FakeStore
from tests.servables import run, settle
from tests.unit.predictions.rig import DOWN, LIMITS, Bench, Clock, Scripted, bench, ended, publish, serving

P = Progress
STOPPED = (P.FAILED, "the server stopped while it ran", "unavailable")


async def left_behind(folder: Path, store: FakeStore, *, started: bool, clock: Clock | None = None) -> str:
    """A prediction whose server was killed, before or while it ran."""
    it = Bench(folder, store, clock=clock)
    key = await it.submit({"x": 1}, {"x": 2})
    await it.asked(2)
    if started:
        it.servable.start(0, "so far")
        await it.stored_as(key, P.RUNNING)
    await it.crash()
    return key


def test_what_had_not_started_runs_after_a_restart(tmp_path: Path) -> None:
    """The next server knows at once that the owner is dead, and runs it; the leases need not be over."""

    async def scenario() -> None:
        store = FakeStore()
        key = await left_behind(tmp_path, store, started=False)
        async with bench(tmp_path, store) as it:
            assert (await it.service.get(key)).progress is P.CLAIMED
            await it.service.beat()
            await it.asked(2)
            it.servable.finish(0, {"y": 1})
            it.servable.finish(1, {"y": 2})
            assert (await it.reach(key, P.SUCCEEDED)).outputs == [{"y": 1}, {"y": 2}]
            assert (await it.stored(key)).attempt == 2

    run(scenario)


def test_what_ran_has_failed_after_a_restart(tmp_path: Path) -> None:
    """A run may have had effects: it is not done twice, and never running for ever."""

    async def scenario() -> None:
        store = FakeStore()
        key = await left_behind(tmp_path, store, started=True)
        async with bench(tmp_path, store) as it:
            await it.service.beat()
            view = await it.service.get(key)
            assert ended(view) == STOPPED
            assert view.finished is not None
            assert it.servable.asked == []

    run(scenario)


def test_what_may_be_repeated_is(tmp_path: Path) -> None:
    """A model that says so runs again what its server's death cut off, but not more often than three times."""

    async def scenario() -> None:
        store = FakeStore()
        key = await left_behind(tmp_path, store, started=True)
        for attempt in (2, 3, 4):
            servable = Scripted()
            it = Bench(tmp_path, store, servable=servable, gateway=serving(servable, spec=ModelSpec("m", repeatable=True)))
            await it.service.beat()
            if attempt == 4:
                assert ended(await it.service.get(key)) == STOPPED
                assert servable.asked == []
            else:
                await it.asked(2)
                servable.start(0)
                assert (await it.stored_as(key, P.RUNNING)).attempt == attempt
            await it.crash()

    run(scenario)


def test_a_model_that_is_still_loading_is_waited_for(tmp_path: Path) -> None:
    """After a restart the model takes its time: neither what had started nor what had not is decided before it is known."""

    async def scenario() -> None:
        store = FakeStore()
        started = await left_behind(tmp_path, store, started=True)
        waiting = await left_behind(tmp_path, store, started=False)
        servable = Scripted()
        gateway = serving(None, state=State.LOADING)
        async with bench(tmp_path, store, servable=servable, gateway=gateway) as it:
            for _ in range(5):
                it.pass_time(100)
                await it.service.beat()
            assert (await it.service.get(started)).progress is P.RUNNING
            assert not (await it.service.get(waiting)).progress.terminal
            publish(gateway, servable, spec=ModelSpec("m", repeatable=True))
            it.pass_time(20)
            await it.service.beat()
            await it.asked(4)
            assert {(await it.stored(k)).attempt for k in (started, waiting)} == {2}

    run(scenario)


@pytest.mark.parametrize("state", [State.FAILED, None], ids=["failed to load", "not served any more"])
def test_a_model_that_is_gone(tmp_path: Path, state: State | None) -> None:
    """What waits for it fails with the reason, after the time that it is given to come back."""

    async def scenario() -> None:
        store = FakeStore()
        key = await left_behind(tmp_path, store, started=False)
        gateway = serving(None, state=state) if state is not None else serving(None, name="another")
        async with bench(tmp_path, store, gateway=gateway) as it:
            for _ in range(6):
                it.pass_time(11)
                await it.service.beat()
            assert not (await it.service.get(key)).progress.terminal
            it.pass_time(60)
            await it.service.beat()
            view = await it.reach(key, P.FAILED)
            assert ("it is broken" if state else "model 'm' is not known to this server") in view.error

    run(scenario)


def test_a_model_that_comes_back_in_time(tmp_path: Path) -> None:
    """Unloaded after the acceptance and loaded again: the prediction runs."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            entry = it.gateway.find("m")
            publish(it.gateway, None, state=State.FAILED)
            key = await it.service.submit(entry, [{"x": 1}])
            publish(it.gateway, it.servable)
            await it.asked(1)
            it.servable.finish(0, ServingError(Kind.UNAVAILABLE, "model 'm' was unloaded while this request waited"))
            await it.asked(2)
            it.servable.finish(1, {"y": 1})
            assert (await it.reach(key, P.SUCCEEDED)).outputs == [{"y": 1}]

    run(scenario)


def test_a_graceful_stop_keeps_everything(tmp_path: Path) -> None:
    """What runs has the drain time to end; what waits goes back to the store, and the next server runs it."""

    async def scenario() -> None:
        store = FakeStore()
        it = Bench(tmp_path, store)
        runs, waits = await it.submit({"x": 1}), await it.submit({"x": 2})
        await it.asked(2)
        it.servable.start(0)
        it.servable.asked[0].watch.started()  # type: ignore[union-attr] # as when it is run once more

        async def later() -> None:
            await settle(lambda: it.servable.cancelled == 1)
            it.servable.finish(0, {"y": 1})

        closing = later()
        await asyncio.gather(it.service.close(10), closing)
        assert (await it.stored(runs)).progress is P.SUCCEEDED
        assert (await it.stored(waits)).progress is P.PENDING
        with pytest.raises(ServingError, match="it accepts no more predictions"):
            await it.submit()
        assert (await it.service.get(runs)).outputs == [{"y": 1}]
        async with bench(tmp_path, store) as second:
            await second.service.beat()
            await second.asked(1)
            second.servable.finish(0, {"y": 2})
            assert (await second.reach(waits, P.SUCCEEDED)).outputs == [{"y": 2}]

    run(scenario)


def test_what_is_accepted_during_a_stop_waits_for_the_next_server(tmp_path: Path) -> None:
    """A prediction that is being stored when the stop begins has its id, does not run any more, and holds nothing up."""

    class Slow(FakeStore):
        async def add_prediction(self, prediction: Prediction) -> None:
            storing.set()
            await go_on.wait()
            await super().add_prediction(prediction)

    storing, go_on = asyncio.Event(), asyncio.Event()

    async def scenario() -> None:
        it = Bench(tmp_path, Slow())
        submitting = asyncio.create_task(it.submit())
        await storing.wait()
        publish(it.gateway, None, state=State.LOADING)  # as when its process is gone, too
        closing = asyncio.create_task(it.service.close(60))
        await asyncio.sleep(0)
        go_on.set()
        async with asyncio.timeout(10):
            await closing
        assert (await it.stored(await submitting)).progress is P.PENDING
        assert not it.servable.asked

    run(scenario)


def test_a_stop_cuts_off_what_takes_too_long(tmp_path: Path) -> None:
    """Beyond the drain time it is left as running, with what it printed, for the next server to decide."""

    async def scenario() -> None:
        store = FakeStore()
        it = Bench(tmp_path, store)
        key = await it.submit()
        await it.asked(1)
        it.servable.start(0, "half")
        await it.service.close(0)
        record = await it.stored(key)
        assert (record.progress, record.logs) == (P.RUNNING, "half")
        async with bench(tmp_path, store) as second:
            await second.service.beat()
            view = await second.service.get(key)
            assert (*ended(view), view.logs) == (*STOPPED, "half")

    run(scenario)


def test_damaged_inputs_fail(tmp_path: Path) -> None:
    """Inputs that cannot be read any more fail the prediction instead of the server."""

    async def scenario() -> None:
        store = FakeStore()
        key = await left_behind(tmp_path, store, started=False)
        store._predictions[key] = replace(store._predictions[key], inputs=b"rubbish")
        async with bench(tmp_path, store) as it:
            await it.service.beat()
            view = await it.reach(key, P.FAILED)
            assert view.error == "the stored inputs of this prediction cannot be read by this version of the server"

    run(scenario)


# --- two workers ---


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    """Accepted by one, polled, waited for and cancelled at another; the one that runs it breaks it off."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as one, bench(tmp_path, store) as other:
            key = await one.submit({"x": 7})
            await one.asked(1)
            assert (await other.service.get(key)).progress is P.CLAIMED
            assert await other.service.inputs(key) == [{"x": 7}]
            one.servable.start(0, "hello")
            await one.service.beat()
            view = await other.service.wait(key, 0.01)
            assert (view.progress, view.logs) == (P.RUNNING, "hello")
            assert ended(await other.service.cancel(key)) == (P.CANCELLED, "Canceled", "cancelled")
            assert ended(await one.service.get(key)) == (P.CANCELLED, "Canceled", "cancelled")
            await settle(lambda: one.servable.cancelled == 1)
            assert ended(await one.service.get(key)) == (P.CANCELLED, "Canceled", "cancelled")
            assert await one.service.unfinished() == {}
            assert one.ended + other.ended == [("m", P.CANCELLED)]

    run(scenario)


def test_a_cancel_is_seen_everywhere_at_once(tmp_path: Path) -> None:
    """Whoever asks whichever worker after a cancel was answered sees it, also when many ask at the same moment; without a beat."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as one, bench(tmp_path, store) as other:
            for number in range(5):
                key, bystander = await one.submit(), await one.submit()
                await one.asked(2 * number + 2)
                await other.service.cancel(key)
                views = await asyncio.gather(*(one.service.get(key) for _ in range(10)))
                assert {view.progress for view in views} == {P.CANCELLED}
                assert (await one.service.get(bystander)).progress is P.CLAIMED

    run(scenario)


def test_a_cancel_that_cannot_be_read_now(tmp_path: Path) -> None:
    """The store goes right after another worker's cancel: the owner's answers go on, and it is broken off with the next beat that works."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as one, bench(tmp_path, store) as other:
            key = await one.submit()
            await one.asked(1)
            await other.service.cancel(key)
            store.failure = DOWN
            assert (await one.service.get(key)).progress is P.CLAIMED
            store.failure = None
            await one.service.beat()
            await settle(lambda: one.servable.cancelled == 1)

    run(scenario)


def test_waiting_at_another_worker(tmp_path: Path) -> None:
    """A long poll at a worker that does not run it ends when it has ended."""

    async def scenario() -> None:
        store = FakeStore()
        async with bench(tmp_path, store) as one, bench(tmp_path, store) as other:
            key = await one.submit()
            await one.asked(1)

            async def finish() -> None:
                one.servable.finish(0, {"y": 1})

            view, _ = await asyncio.gather(other.service.wait(key, 20), finish())
            assert view.outputs == [{"y": 1}]

    run(scenario)


def test_an_owner_that_lives_is_left_alone(tmp_path: Path) -> None:
    """Another worker neither fails nor repeats what a living one runs, however often it looks, as long as leases are renewed."""

    async def scenario() -> None:
        store, clock = FakeStore(), Clock()
        async with bench(tmp_path, store, clock=clock) as one, bench(tmp_path, store, clock=clock) as other:
            key = await one.submit()
            await one.asked(1)
            one.servable.start(0)
            await one.stored_as(key, P.RUNNING)
            for _ in range(10):
                clock.now += 11
                one.monotonic.now += 11
                other.monotonic.now += 11
                await one.service.beat()
                await other.service.beat()
            one.servable.finish(0, {"y": 1})
            assert (await one.reach(key, P.SUCCEEDED)).outputs == [{"y": 1}]
            assert other.servable.asked == []

    run(scenario)


def test_a_lost_lease_and_a_late_result(tmp_path: Path) -> None:
    """A worker that hung for longer than its lease loses what had not started to another; its late result changes nothing."""

    async def scenario() -> None:
        store, clock = FakeStore(), Clock()
        async with bench(tmp_path, store, clock=clock) as hung, bench(tmp_path, store, clock=clock) as other:
            key = await hung.submit()
            await hung.asked(1)
            clock.now += 31
            await other.service.beat()
            await other.asked(1)
            assert (await other.stored(key)).attempt == 2
            hung.servable.finish(0, {"y": "late"})
            await settle(lambda: hung.service.waiting() == {})
            assert (await hung.service.get(key)).progress is P.CLAIMED
            other.servable.finish(0, {"y": "good"})
            assert (await other.reach(key, P.SUCCEEDED)).outputs == [{"y": "good"}]
            assert (hung.ended, other.ended) == ([], [("m", P.SUCCEEDED)])
            assert (await hung.service.get(key)).outputs == [{"y": "good"}]

    run(scenario)


def test_cancel_at_a_worker_that_lost_its_lease(tmp_path: Path) -> None:
    """The cancel reaches the prediction, whoever runs it by now."""

    async def scenario() -> None:
        store, clock = FakeStore(), Clock()
        async with bench(tmp_path, store, clock=clock) as hung, bench(tmp_path, store, clock=clock) as other:
            key = await hung.submit()
            await hung.asked(1)
            clock.now += 31
            await other.service.beat()
            await other.asked(1)
            assert ended(await hung.service.cancel(key)) == (P.CANCELLED, "Canceled", "cancelled")
            await other.service.beat()
            await settle(lambda: other.servable.cancelled == 1)

    run(scenario)


def test_a_lost_lease_of_what_ran(tmp_path: Path) -> None:
    """What a hung worker had started has failed for everybody; the worker finds out and breaks it off."""

    async def scenario() -> None:
        store, clock = FakeStore(), Clock()
        async with bench(tmp_path, store, clock=clock) as hung, bench(tmp_path, store, clock=clock) as other:
            key = await hung.submit()
            await hung.asked(1)
            hung.servable.start(0)
            await hung.stored_as(key, P.RUNNING)
            clock.now += 31
            other.monotonic.now += 100
            await other.service.beat()
            assert ended(await other.service.get(key)) == STOPPED
            hung.servable.finish(0, {"y": "late"})
            await hung.reach(key, P.FAILED)
            assert ended(await hung.service.get(key)) == STOPPED
            assert (hung.ended, other.ended) == ([], [("m", P.FAILED)])

    run(scenario)


def test_work_is_taken_over_where_there_is_room(tmp_path: Path) -> None:
    """A worker that is full leaves predictions in the store; another one, or itself when it has room, claims them in order."""

    async def scenario() -> None:
        store = FakeStore()
        full = replace(LIMITS, held=1)
        async with bench(tmp_path, store, limits=full) as one:
            keys = []
            for number in range(3):
                one.clock.now += 1
                keys.append(await one.submit({"x": number}))
            first, second, third = keys
            assert [(await one.stored(k)).progress for k in (first, second, third)] == [P.CLAIMED, P.PENDING, P.PENDING]
            assert one.service.waiting() == {"m": 3}
            assert await one.service.unfinished() == {"m": (3, 0)}
            assert (await one.service.get(second)).progress is P.PENDING
            await one.service.beat()
            await one.asked(1)
            one.servable.finish(0, {"y": 0})
            await one.reach(first, P.SUCCEEDED)
            await one.service.beat()
            await one.asked(2)
            assert (await one.stored(third)).progress is P.PENDING
            async with bench(tmp_path, store) as other:
                await other.service.beat()
                await other.asked(1)
                assert other.servable.asked[0].inputs.items == [{"x": 2}]
                other.servable.finish(0, {"y": 2})
                await other.reach(third, P.SUCCEEDED)
            one.servable.finish(1, {"y": 1})
            await one.reach(second, P.SUCCEEDED)
            await one.service.beat()
            assert one.service.waiting() == {}
            assert await one.service.unfinished() == {}

    run(scenario)


def test_cancel_of_what_nobody_runs(tmp_path: Path) -> None:
    """One that waits in the store is cancelled there, and never runs."""

    async def scenario() -> None:
        async with bench(tmp_path, limits=replace(LIMITS, held=0)) as it:
            key = await it.submit()
            assert (await it.service.cancel(key)).progress is P.CANCELLED
            await it.service.beat()
            assert it.servable.asked == []
            assert it.service.waiting() == {}

    run(scenario)


def test_a_prediction_that_was_removed_while_it_ran(tmp_path: Path) -> None:
    """Somebody emptied the store: it is broken off, and unknown."""

    async def scenario() -> None:
        async with bench(tmp_path) as it:
            key = await it.submit()
            await it.asked(1)
            await it.store.change_prediction(Change(key, P.CANCELLED, finished=0.0))
            await it.store.remove_predictions(finished_before=1.0, limit=10)
            await it.service.beat()
            await settle(lambda: it.servable.cancelled == 1)
            with pytest.raises(ServingError, match="there is no prediction"):
                await it.service.get(key)

    run(scenario)
