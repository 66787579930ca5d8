"""From wishes to what is served: loads, reloads, drains, labels, tombstones, loads that nobody wants any more, and the end."""

import asyncio
import logging
import time

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import ModelSpec
from tests.servables import Parts, ask, settle, spec, with_parts
from tests.workers import until

READY, FAILED, LOADING, DRAINING, GONE = State.READY, State.FAILED, State.LOADING, State.DRAINING, State.GONE


def test_a_wish_becomes_a_model_that_answers() -> None:
    """Loading first, then ready with its platform and the time of the change."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold()
        generation = await parts.wish(spec())
        assert parts.statuses() == [("1", LOADING, "")]
        with pytest.raises(ServingError) as caught:
            parts.gateway.find("m")
        assert caught.value.kind is Kind.NOT_READY
        before = time.time()
        gate.set()
        assert await parts.settled(generation) == {}
        status = parts.gateway.statuses("m")[0]
        assert (status.state, status.platform) == (READY, "fake")
        assert before <= status.since <= time.time()
        assert parts.answering() == ("1", "a")

    with_parts(test)


def test_versions_of_one_model_load_one_after_the_other_the_highest_first() -> None:
    """A model with many versions does not take the whole machine."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("2"), spec("10"), spec("9"))
        assert parts.opener.begun == [("10", "a"), ("9", "a"), ("2", "a")]
        assert parts.opener.most == 1
        assert parts.answering() == ("10", "a")

    with_parts(test)


def test_versions_that_wait_for_their_turn() -> None:
    """They are listed as soon as they are wanted; a request for one is told to wait."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold("2")
        generation = await parts.wish(spec("1"), spec("2"))
        assert [(s.version, s.state, s.waiting) for s in parts.gateway.statuses("m")] == [("2", LOADING, False), ("1", LOADING, True)]
        with pytest.raises(ServingError) as caught:
            parts.gateway.find("m", "1")
        assert caught.value.kind is Kind.NOT_READY
        gate.set()
        assert await parts.settled(generation) == {}
        assert parts.statuses() == [("2", READY, ""), ("1", READY, "")]

    with_parts(test)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ServingError(Kind.UNSUPPORTED, "no"), Kind.UNSUPPORTED), (OSError("no"), Kind.MODEL_FAILED)],
)
def test_what_kind_of_failure(error: Exception, kind: Kind) -> None:
    """A version that cannot be loaded says what kind of error it was; a framework's own is the model's."""

    async def test(parts: Parts) -> None:
        parts.opener.broken["1", "a"] = error
        await parts.settled(await parts.wish(spec("1")))
        (status,) = parts.gateway.statuses("m")
        assert (status.state, status.kind) == (FAILED, kind)

    with_parts(test)


def test_models_load_side_by_side_within_a_bound() -> None:
    """Ten models, three at a time."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold()
        generations = {str(i): await parts.wish(spec(name=str(i)), name=str(i)) for i in range(10)}
        await settle(lambda: parts.opener.running == 3)
        gate.set()
        for name, generation in generations.items():
            assert await parts.registry.settled(name, generation) == {}
        assert parts.opener.most == 3
        assert len(parts.gateway.entries()) == 10

    with_parts(test, parallel=3)


def test_one_bad_version_does_not_stop_the_others() -> None:
    """Its reason is reported and shown; the highest version that works is the default."""

    async def test(parts: Parts) -> None:
        parts.opener.broken["3", "a"] = ServingError(Kind.INVALID_INPUT, "bad file")
        failures = await parts.settled(await parts.wish(spec("1"), spec("2"), spec("3")))
        assert failures == {"3": "bad file"}
        assert parts.statuses() == [("3", FAILED, "bad file"), ("2", READY, ""), ("1", READY, "")]
        assert parts.answering() == ("2", "a")
        with pytest.raises(ServingError, match="version 3 failed to load: bad file"):
            parts.gateway.find("m", "3")

    with_parts(test)


def test_an_exception_of_a_framework_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The status has its type and text, the log its traceback."""

    async def test(parts: Parts) -> None:
        parts.opener.broken["1", "a"] = KeyError("weights")
        assert await parts.settled(await parts.wish(spec())) == {"1": "KeyError: 'weights'"}

    with caplog.at_level(logging.INFO, "dragoman.models"):
        with_parts(test)
    assert any(r.exc_info for r in caplog.records)


def test_warnings_of_a_specification_are_logged_when_it_is_ready(caplog: pytest.LogCaptureFixture) -> None:
    """Settings without effect are told to whoever reads the log."""

    async def test(parts: Parts) -> None:
        await parts.deploy(ModelSpec("m", revision="a", warnings=("optimization has no effect",)))

    with caplog.at_level(logging.WARNING, "dragoman.models"):
        with_parts(test)
    assert "optimization has no effect" in caplog.text


def test_the_old_revision_serves_until_the_new_one_is_ready() -> None:
    """Then it is out of the table at once, and closed when its last request has its answer."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec())
        old, requests_may_end = parts.gateway.find("m"), parts.opener.gate
        parts.opener.gate = None
        call = asyncio.ensure_future(parts.gateway.infer(old, ask()))
        await settle(lambda: old.in_flight == 1)
        load_may_end = parts.opener.hold("1", "b")
        generation = await parts.wish(spec(revision="b"))
        await settle(lambda: parts.opener.running == 1)
        assert parts.gateway.find("m") is old
        assert parts.statuses() == [("1", READY, "")]
        load_may_end.set()
        await settle(lambda: parts.answering() == ("1", "b"))
        assert parts.statuses() == [("1", READY, "")]
        assert not parts.opener.of().closed
        assert await parts.settled(generation) == {}
        assert not call.done()
        requests_may_end.set()
        await settle(lambda: parts.opener.of().closed == 1)
        assert call.done()

    with_parts(test)


def test_a_drain_ends_at_its_time_out(caplog: pytest.LogCaptureFixture) -> None:
    """A request that never ends does not keep a version open for ever; the servable gets the same deadline for what waits in it."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec())
        old = parts.gateway.find("m")
        call = asyncio.ensure_future(parts.gateway.infer(old, ask()))
        await settle(lambda: old.in_flight == 1)
        await parts.settled(await parts.wish())
        while not parts.opener.of().closed:  # the time-out is a hundredth of a second
            await asyncio.sleep(0.001)
        deadline = parts.opener.of().drained_until
        assert deadline is not None
        assert deadline <= time.monotonic()
        call.cancel()
        await settle(call.done)

    with caplog.at_level(logging.WARNING, "dragoman.models"):
        with_parts(test, drain_timeout_s=0.01)
    assert "closed with 1 requests in flight" in caplog.text


def test_unloading_leaves_a_tombstone() -> None:
    """Version by version, until it is loaded again."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"), spec("2"))
        await parts.deploy(spec("2"))
        await settle(lambda: parts.statuses() == [("2", READY, ""), ("1", GONE, "unloaded")])
        await parts.wish()
        await settle(lambda: not parts.draining())
        assert parts.statuses() == [("2", GONE, "unloaded"), ("1", GONE, "unloaded")]
        assert parts.gateway.ready()
        with pytest.raises(ServingError, match="model 'm' is unloaded") as caught:
            parts.gateway.find("m")
        assert caught.value.kind is Kind.UNAVAILABLE
        await parts.deploy(spec("1"))
        assert parts.statuses() == [("2", GONE, "unloaded"), ("1", READY, "")]

    with_parts(test)


def test_what_is_unloaded_while_it_drains_can_be_asked_for_again() -> None:
    """It is loaded anew when the old one is closed: two of one revision never run side by side."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec())
        old = parts.gateway.find("m")
        call = asyncio.ensure_future(parts.gateway.infer(old, ask()))
        await settle(lambda: old.in_flight == 1)
        await parts.wish()
        assert parts.statuses() == [("1", DRAINING, "unloading")]
        generation = await parts.wish(spec())
        assert parts.statuses() == [("1", DRAINING, "unloading")]
        parts.opener.gate.set()
        assert await parts.settled(generation) == {}
        await call
        assert parts.gateway.find("m") is not old
        assert [s.closed for s in parts.opener.opened] == [1, 0]

    with_parts(test)


def test_a_load_that_nobody_wants_any_more_closes_its_model() -> None:
    """The wish is settled at once; what the load brings later is closed and never served."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold()
        await parts.wish(spec())
        await settle(lambda: parts.opener.running == 1)
        assert await parts.settled(await parts.wish()) == {}
        assert parts.statuses() == []
        gate.set()
        await settle(lambda: [s.closed for s in parts.opener.opened] == [1])
        assert parts.gateway.entries() == []

    with_parts(test)


@pytest.mark.parametrize("fails", [False, True])
def test_a_load_that_is_forgotten_and_wished_again_is_not_begun_twice(fails: bool) -> None:
    """The load that still runs serves the new wish, with its end, good or bad."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold()
        await parts.wish(spec())
        await settle(lambda: parts.opener.running == 1)
        await parts.wish()
        assert parts.statuses() == []
        generation = await parts.wish(spec())
        assert parts.statuses() == [("1", LOADING, "")]
        if fails:
            parts.opener.broken["1", "a"] = RuntimeError("no")
        gate.set()
        assert await parts.settled(generation) == ({"1": "RuntimeError: no"} if fails else {})
        assert parts.opener.begun == [("1", "a")]

    with_parts(test)


def test_what_nobody_wants_is_closed_before_it_is_opened_again() -> None:
    """Two of one revision are never open side by side, also when the wish comes back while the first is being closed."""

    async def test(parts: Parts) -> None:
        gate, closing = parts.opener.hold(), parts.opener.hold_closing()
        await parts.wish(spec())
        await settle(lambda: parts.opener.running == 1)
        await parts.wish()
        gate.set()
        await settle(lambda: parts.opener.closing == 1)
        generation = await parts.wish(spec())
        for _ in range(20):
            await asyncio.sleep(0)
        assert parts.opener.begun == [("1", "a")]
        closing.set()
        assert await parts.settled(generation) == {}
        assert parts.answering() == ("1", "a")
        assert [s.closed for s in parts.opener.opened] == [1, 0]

    with_parts(test)


def test_a_load_that_is_forgotten_before_its_turn_never_begins() -> None:
    """With one load at a time, the second model is unloaded while it waits."""

    async def test(parts: Parts) -> None:
        gate = parts.opener.hold()
        await parts.wish(spec())
        await parts.wish(spec(name="n", revision="n"), name="n")
        await settle(lambda: parts.opener.running == 1)
        await parts.wish(name="n")
        gate.set()
        await settle(lambda: parts.statuses() == [("1", READY, "")])
        await asyncio.sleep(0)
        assert parts.opener.begun == [("1", "a")]

    with_parts(test, parallel=1)


# --- labels ---


def test_a_label_moves_when_its_target_is_ready() -> None:
    """Until then it stays where it was; a target that fails never gets it."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"), labels={"stable": "1"})
        gate = parts.opener.hold("2")
        generation = await parts.wish(spec("1"), spec("2"), labels={"stable": "2", "canary": "2"})
        await settle(lambda: parts.opener.running == 1)
        assert parts.answering(label="stable") == ("1", "a")
        with pytest.raises(ServingError) as caught:
            parts.gateway.find("m", label="canary")
        assert caught.value.what == "label"
        gate.set()
        await parts.settled(generation)
        assert parts.answering(label="stable") == ("2", "a")
        assert parts.gateway.labels("m") == {"stable": "2", "canary": "2"}
        parts.opener.broken["3", "a"] = RuntimeError("no")
        await parts.settled(await parts.wish(spec("1"), spec("2"), spec("3"), labels={"stable": "3"}))
        assert parts.gateway.labels("m") == {"stable": "2"}
        with pytest.raises(ServingError):
            parts.gateway.find("m", label="canary")

    with_parts(test)


def test_labels_go_with_their_model() -> None:
    """An unloaded model has none."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"), labels={"stable": "1"})
        await parts.settled(await parts.wish())
        assert parts.gateway.labels("m") == {}
        with pytest.raises(ServingError):
            parts.gateway.find("m", label="stable")

    with_parts(test)


# --- failures while closing, and the end ---


def test_a_model_that_cannot_be_closed_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The version is gone all the same, the wish is settled, and the log says what its framework raised."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        parts.opener.of().unwilling = OSError("the driver is gone")
        await parts.deploy(spec(revision="b"))
        assert parts.statuses() == [("1", READY, "")]
        assert parts.opener.of().closed == 1

    with caplog.at_level(logging.ERROR, "dragoman.models"):
        with_parts(test)
    assert "could not be drained" in caplog.text
    assert "could not be closed" in caplog.text


def test_the_end_lets_requests_in_flight_finish() -> None:
    """Nothing new is found, what runs gets its answer, then every model is closed; one that cannot be closed stops no other."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec("1"), spec("2"))
        parts.opener.of("1").unwilling = OSError("no")
        entry = parts.gateway.find("m")
        call = asyncio.ensure_future(parts.gateway.infer(entry, ask()))
        await settle(lambda: entry.in_flight == 1)
        end = asyncio.ensure_future(parts.reconciler.close())
        await settle(lambda: not parts.gateway.entries())
        assert not parts.opener.of("2").closed
        parts.opener.gate.set()
        await end
        assert call.done()
        assert call.exception() is None

    with_parts(test)


def test_the_end_in_the_middle_of_a_drain_closes_what_drained() -> None:
    """A version that was on its way out is not forgotten."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec())
        entry = parts.gateway.find("m")
        call = asyncio.ensure_future(parts.gateway.infer(entry, ask()))
        await settle(lambda: entry.in_flight == 1)
        await parts.wish()
        await asyncio.sleep(0)
        end = asyncio.ensure_future(parts.reconciler.close())
        await asyncio.sleep(0)
        parts.opener.gate.set()
        await end
        await call
        assert parts.opener.of().closed == 1

    with_parts(test)


def test_the_end_in_the_middle_of_a_load() -> None:
    """Whoever waits for the wish hears why it will never be so, and so does whoever wishes later."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        parts.opener.hold("1", "b")
        waiting = asyncio.ensure_future(parts.deploy(spec(revision="b")))
        await settle(lambda: parts.opener.running == 1)
        await parts.reconciler.close()
        for call in (waiting, parts.deploy(spec())):
            with pytest.raises(ServingError, match="the server is shutting down") as caught:
                await call
            assert caught.value.kind is Kind.UNAVAILABLE
        assert parts.opener.running == 0

    with_parts(test)


def test_a_version_that_is_lost_fails_with_the_reason_and_is_loaded_again() -> None:
    """It is out of the table at once and closed; after a pause it is ready as if nothing had been."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        hold = parts.opener.hold()
        await settle(lambda: parts.opener.of().gone is not None)
        parts.opener.lose("its process ended")
        await settle(lambda: parts.statuses() == [("1", FAILED, "its process ended")])
        with pytest.raises(ServingError, match="its process ended") as caught:
            parts.gateway.find("m")
        assert caught.value.kind is Kind.UNAVAILABLE
        await settle(lambda: parts.opener.of().closed == 1)
        while parts.opener.running == 0:  # the pause is a hundredth of a second
            await asyncio.sleep(0.001)
        assert parts.statuses() == [("1", LOADING, "")]
        hold.set()
        await settle(lambda: parts.statuses() == [("1", READY, "")])
        assert parts.answering() == ("1", "a")

    with_parts(test)


def test_a_lost_version_is_tried_again_until_it_loads() -> None:
    """Also when loading it fails meanwhile, each time after a longer pause; a wish for something else ends that."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        await settle(lambda: parts.opener.of().gone is not None)
        parts.opener.broken["1", "a"] = ServingError(Kind.UNAVAILABLE, "no memory")
        parts.opener.lose("killed")
        while len(parts.opener.begun) < 4:
            await asyncio.sleep(0.001)
        assert parts.statuses()[0][1] in (FAILED, LOADING)
        del parts.opener.broken["1", "a"]
        while parts.statuses() != [("1", READY, "")]:
            await asyncio.sleep(0.001)
        await settle(lambda: parts.opener.of().gone is not None)
        parts.opener.lose("killed again")
        await settle(lambda: parts.statuses() == [("1", FAILED, "killed again")])
        assert await parts.settled(await parts.wish(spec(revision="b"))) == {}
        assert parts.answering() == ("1", "b")
        assert parts.statuses() == [("1", READY, "")]

    with_parts(test, pauses_s=(0.001, 0.002, 0.003))


def test_pauses_after_losses_grow() -> None:
    """The second loss in a row waits for the second pause, which here never ends."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec())
        for count in (1, 2):
            await settle(lambda: parts.opener.of().gone is not None)
            parts.opener.lose(f"loss {count}")
            await settle(lambda count=count: parts.statuses() == [("1", FAILED, f"loss {count}")])  # type: ignore[misc]
            while count == 1 and parts.statuses() != [("1", READY, "")]:
                await asyncio.sleep(0.001)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert parts.statuses() == [("1", FAILED, "loss 2")]
        assert parts.opener.begun == [("1", "a"), ("1", "a")]

    with_parts(test, pauses_s=(0.001, 3600))


def test_an_old_version_goes_on_when_its_successor_is_lost() -> None:
    """Both were wanted; the default falls back to what still answers."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"), spec("2"))
        await settle(lambda: parts.opener.of("2").gone is not None)
        parts.opener.hold("2")
        parts.opener.lose("killed", "2")
        await settle(lambda: parts.answering() == ("1", "a"))
        parts.opener.held["2", "a"].set()
        while parts.answering() != ("2", "a"):
            await asyncio.sleep(0.001)

    with_parts(test)


def test_a_version_that_is_lost_while_it_drains_is_simply_gone() -> None:
    """Nobody wanted it any more."""

    async def test(parts: Parts) -> None:
        parts.opener.gate = asyncio.Event()
        await parts.deploy(spec())
        await settle(lambda: parts.opener.of().gone is not None)
        call = asyncio.ensure_future(parts.gateway.infer(parts.gateway.find("m"), ask()))
        await settle(lambda: len(parts.opener.of().requests) == 1)
        generation = await parts.wish()
        parts.opener.lose("killed")
        await settle(lambda: parts.statuses() == [("1", DRAINING, "unloading")])
        parts.opener.gate.set()
        await call
        assert await parts.settled(generation) == {}
        assert parts.statuses() == [("1", GONE, "unloaded")]

    with_parts(test)


def test_a_load_that_fails_is_tried_again_so_often() -> None:
    """After a pause each; meanwhile it counts as failed, others load, and what was served before answers (TF Serving's load retries)."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"))
        parts.opener.fails["2"] = RuntimeError("not yet")
        assert await parts.settled(await parts.wish(spec("2"))) == {"2": "RuntimeError: not yet"}
        assert parts.answering() == ("1", "a")
        await until(lambda: len(parts.opener.begun) == 4)
        parts.opener.fails.clear()
        await parts.settled(await parts.wish(spec("3")))
        assert parts.answering() == ("3", "a")
        assert [version for version, _ in parts.opener.begun] == ["1", "2", "2", "2", "3"]

    with_parts(test, retries=2, retry_s=0.001)


def test_a_load_that_succeeds_when_it_is_tried_again() -> None:
    """The version serves, and the one before it goes."""

    async def test(parts: Parts) -> None:
        await parts.deploy(spec("1"))
        parts.opener.fails["2"] = RuntimeError("not yet")
        await parts.settled(await parts.wish(spec("2")))
        parts.opener.fails.clear()
        await until(lambda: parts.answering() == ("2", "a"))

    with_parts(test, retries=5, retry_s=0.001)


def test_the_status_does_not_grow_for_ever() -> None:
    """Of versions that were unloaded the newest hundred are listed."""

    async def test(parts: Parts) -> None:
        for version in range(1, 111):
            await parts.deploy(spec(str(version)))
        await settle(lambda: not parts.draining())
        await settle(lambda: len(parts.statuses()) == 101)
        assert [version for version, _, _ in parts.statuses()] == [str(version) for version in range(110, 9, -1)]

    with_parts(test)
