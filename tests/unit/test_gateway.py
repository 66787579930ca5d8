"""The data plane: what is found and how it is missed, requests in flight, deadlines, streams, swapping the table."""

import asyncio
import math
import time
from collections.abc import Mapping

import numpy as np
import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import BatchPolicy, InferRequest, ModelSpec
from dragoman.core.tensors import FP32, Tensor, Tensors
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Meters
from tests.fakes import DOUBLER
from tests.servables import FakeServable, ask, run, settle, spec


def entry(version: str = "1", name: str = "m", gate: asyncio.Event | None = None, policy: BatchPolicy | None = None) -> Entry:
    of = ModelSpec(name, version, batch=policy or BatchPolicy())
    return Entry(of, FakeServable(of, gate))


def serving(*entries: Entry, labels: Mapping[str, str] | None = None, timeout_s: float = math.inf) -> Gateway:
    """A gateway with these versions, the last of a name being its default."""
    gateway = Gateway(Meters(), timeout_s)
    table: dict[tuple[str, str], Entry] = {}
    for each in entries:
        table |= {(each.name, each.version): each, (each.name, ""): each}
        table |= {(each.name, f"@{label}"): each for label, version in (labels or {}).items() if version == each.version}
    gateway.swap(table)
    for name in {e.name for e in entries}:
        gateway.publish(name, [VersionStatus(name, e.version, State.READY, "") for e in entries if e.name == name], labels or {})
    return gateway


def known(*statuses: tuple[str, State, str]) -> Gateway:
    """A gateway that knows (version, state, reason) of one model `m` and serves nothing."""
    gateway = Gateway(Meters())
    gateway.publish("m", [VersionStatus("m", version, state, reason) for version, state, reason in statuses], {})
    return gateway


def missed(gateway: Gateway, version: str = "", label: str = "") -> ServingError:
    with pytest.raises(ServingError) as caught:
        gateway.find("m", version, label)
    return caught.value


def served_by(entry_: Entry) -> FakeServable:
    assert isinstance(entry_.servable, FakeServable)
    return entry_.servable


# --- find ---


def test_hits() -> None:
    """A model is found by version, by label, and without either by its default."""
    one, two = entry("1"), entry("2")
    gateway = serving(one, two, labels={"stable": "1"})
    assert gateway.find("m") is two
    assert gateway.find("m", "1") is one
    assert gateway.find("m", label="stable") is one


@pytest.mark.parametrize(
    ("statuses", "version", "kind", "message"),
    [
        ([], "", Kind.NOT_FOUND, "model 'm' is not known to this server"),
        ([("1", State.LOADING, "")], "", Kind.NOT_READY, "model 'm' is loading"),
        ([("1", State.LOADING, "")], "1", Kind.NOT_READY, "model 'm' is loading"),
        ([("1", State.LOADING, ""), ("12", State.FAILED, "no")], "2", Kind.NOT_FOUND, "model 'm' has no version '2'; it has 12, 1"),
        ([("1", State.FAILED, "bad file")], "", Kind.UNAVAILABLE, "model 'm' version 1 failed to load: bad file"),
        ([("", State.FAILED, "no such folder")], "", Kind.UNAVAILABLE, "model 'm' failed to load: no such folder"),
        ([("1", State.GONE, "unloaded"), ("2", State.FAILED, "bad")], "1", Kind.UNAVAILABLE, "model 'm' is unloaded"),
        ([("1", State.GONE, "unloaded"), ("2", State.FAILED, "bad")], "", Kind.UNAVAILABLE, "model 'm' version 2 failed to load: bad"),
        ([("1", State.FAILED, "bad"), ("2", State.LOADING, "")], "", Kind.NOT_READY, "model 'm' is loading"),
        ([("1", State.DRAINING, "unloading")], "", Kind.UNAVAILABLE, "model 'm' is unloading"),
        ([("1", State.GONE, "")], "", Kind.UNAVAILABLE, "model 'm' is unloaded"),
    ],
)
def test_misses(statuses: list[tuple[str, State, str]], version: str, kind: Kind, message: str) -> None:
    """What is known of the model says why it cannot be called, and whether to ask again."""
    error = missed(known(*statuses), version)
    assert (error.kind, error.message) == (kind, message)
    gone = message.endswith(("unloaded", "unloading"))
    assert error.what == ("version" if "no version" in message else "unloaded" if gone else "model")
    assert (error.retry_after_s is not None) == (kind is Kind.NOT_READY)


def test_what_has_served_has_stopped() -> None:
    """A model that crashed is told from one that never loaded."""
    gateway = Gateway(Meters())
    gateway.publish("m", [VersionStatus("m", "1", State.FAILED, "its process ended 5 times", served=True)], {})
    assert missed(gateway).message == "model 'm' version 1 stopped: its process ended 5 times"


def test_an_unknown_label_is_told_from_an_unknown_version() -> None:
    """Protocols answer the two differently."""
    error = missed(serving(entry("1")), label="canary")
    assert (error.kind, error.what, error.message) == (Kind.NOT_FOUND, "label", "model 'm' has no label 'canary'")


def test_a_name_that_is_no_longer_published_is_unknown() -> None:
    """Publishing no versions forgets the model and its labels."""
    gateway = known(("1", State.GONE, "unloaded"))
    gateway.publish("m", [], {})
    assert missed(gateway).kind is Kind.NOT_FOUND
    assert gateway.statuses() == []
    assert gateway.labels("m") == {}


# --- what is known ---


def test_lists_are_in_order() -> None:
    """Entries by name and ascending version, each once; statuses by name and descending version, numbers as numbers."""
    gateway = serving(entry("10", "b"), entry("9", "b"), entry("1", "a"), labels={"stable": "9"})
    assert [(e.name, e.version) for e in gateway.entries()] == [("a", "1"), ("b", "9"), ("b", "10")]
    assert [(s.name, s.version) for s in gateway.statuses()] == [("a", "1"), ("b", "10"), ("b", "9")]
    assert [s.version for s in gateway.statuses("b")] == ["10", "9"]
    assert gateway.statuses("c") == []
    assert gateway.labels("b") == {"stable": "9"}


@pytest.mark.parametrize(
    ("states", "ready"),
    [
        ([], True),
        ([State.READY], True),
        ([State.READY, State.GONE], True),
        ([State.LOADING], False),
        ([State.GONE, State.LOADING], False),
        ([State.READY, State.LOADING], True),
        ([State.READY, State.FAILED], False),
        ([State.READY, State.DRAINING], True),
        ([State.DRAINING], True),
    ],
)
def test_the_server_is_ready_when_every_model_is(states: list[State], ready: bool) -> None:
    """What was unloaded on purpose does not count, nor a version that loads beside one that answers: a deploy takes no server out of use.

    A server that starts or drains is not ready whatever it serves.
    """
    gateway = known(*((str(i), state, "") for i, state in enumerate(states)))
    assert gateway.ready() is ready
    gateway.starting = True
    assert not gateway.ready()
    gateway.starting = False
    gateway.draining = True
    assert not gateway.ready()


def test_gauges_show_waiting_requests_of_what_is_served() -> None:
    """A version that does not answer has nothing waiting and is not ready."""
    gateway = serving(entry("1"))
    gateway.publish("n", [VersionStatus("n", "1", State.FAILED, "bad")], {})
    assert [(g.model, g.pending, g.ready) for g in gateway.gauges()] == [("m", 7, True), ("n", 0, False)]


# --- infer ---


def test_requests_in_flight_are_counted() -> None:
    """A request counts from its start to its end, however that comes; `idle` waits for the last one."""

    async def test() -> None:
        gate = asyncio.Event()
        one = entry(gate=gate)
        gateway = serving(one)
        assert await one.idle(0)
        calls = [asyncio.ensure_future(gateway.infer(one, ask())) for _ in range(3)]
        await settle(lambda: len(served_by(one).requests) == 3)
        assert one.in_flight == 3
        assert not await one.idle(0)
        waiting = [asyncio.ensure_future(one.idle(10)), asyncio.ensure_future(one.idle(10))]
        calls[0].cancel()
        await settle(calls[0].done)
        assert one.in_flight == 2
        assert not any(w.done() for w in waiting)
        gate.set()
        await asyncio.gather(*calls[1:])
        assert await asyncio.gather(*waiting) == [True, True]
        assert one.in_flight == 0

    run(test)


def test_refused_and_failed_requests_leave_the_count_at_zero() -> None:
    """Whatever is raised, the request is no longer in flight."""

    async def test() -> None:
        one = entry()
        gateway = serving(one)
        for error in (ServingError(Kind.MODEL_FAILED, "no"), ZeroDivisionError("a bug")):
            served_by(one).error = error
            with pytest.raises(type(error)):
                await gateway.infer(one, ask())
        with pytest.raises(ServingError, match="signature"):
            await gateway.infer(one, ask(signature="other"))
        assert one.in_flight == 0

    run(test)


def test_a_traceback_is_in_the_log_and_not_in_the_message(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs the server sees where a model failed, whatever the protocol; for a refused request there is nothing to see."""

    async def test() -> None:
        one = entry()
        gateway = serving(one)
        served_by(one).error = ServingError(Kind.MODEL_FAILED, "model 'm' failed: no", trace="Traceback:\n  File 'model.py'\n")
        with pytest.raises(ServingError) as caught:
            await gateway.infer(one, ask())
        with pytest.raises(ServingError):
            await anext(gateway.stream(one, ask()))
        with pytest.raises(ServingError, match="signature"):
            await gateway.infer(one, ask(signature="other"))
        assert "model.py" not in caught.value.message

    run(test)
    assert [record.getMessage() for record in caplog.records] == ["model 'm' failed: no\nTraceback:\n  File 'model.py'"] * 2


def test_a_request_must_fit_the_signature() -> None:
    """The gateway checks before the servable is called, the largest batch included."""

    async def test() -> None:
        one = entry(policy=BatchPolicy(max_size=1, refuse_larger=True))
        gateway = serving(one)
        with pytest.raises(ServingError, match="above its max_batch_size 1"):
            await gateway.infer(one, ask(1, 2, 3, 4))
        assert served_by(one).requests == []
        larger = entry(policy=BatchPolicy(max_size=1))
        await serving(larger).infer(larger, ask(1, 2, 3, 4))
        assert len(served_by(larger).requests) == 1

    run(test)


@pytest.mark.parametrize(
    ("signature", "operation", "kind", "what"),
    [("other", "predict", Kind.INVALID_INPUT, "signature"), ("", "demo", Kind.UNSUPPORTED, "operation")],
)
def test_what_the_model_lacks_is_refused(signature: str, operation: str, kind: Kind, what: str) -> None:
    """Unknown signatures and operations are told apart."""

    async def test() -> None:
        one = entry()
        request = ask(signature=signature)
        request.operation = operation
        with pytest.raises(ServingError) as caught:
            await serving(one).infer(one, request)
        assert (caught.value.kind, caught.value.what) == (kind, what)
        assert "'m'" in caught.value.message

    run(test)


def test_signatures_of_a_model_are_listed_in_the_refusal() -> None:
    """Whoever misspells a name sees the right ones."""

    async def test() -> None:
        one = Entry(spec(), FakeServable(spec(), signatures={"": DOUBLER, "regress": DOUBLER}))
        with pytest.raises(ServingError, match="it has 'regress'"):
            await serving(one).infer(one, ask(signature="clasify"))
        await serving(one).infer(one, ask(signature="regress"))

    run(test)


def test_requests_without_a_deadline_get_the_servers() -> None:
    """One that brings its own keeps it, shorter or longer."""

    async def test() -> None:
        one = entry()
        gateway = serving(one, timeout_s=60)
        mine = time.monotonic() + 5
        await gateway.infer(one, ask(deadline=mine))
        before = time.monotonic()
        await gateway.infer(one, ask())
        async for _ in gateway.stream(one, ask()):
            pass
        deadlines = [r.deadline for r in served_by(one).requests]
        assert deadlines[0] == mine
        assert all(before + 60 <= d <= time.monotonic() + 60 for d in deadlines[1:])
        assert len(deadlines) == 5

    run(test)


def test_without_a_limit_there_is_no_deadline() -> None:
    """Zero seconds on the command line means never."""

    async def test() -> None:
        one = entry()
        await serving(one).infer(one, ask())
        assert served_by(one).requests[0].deadline == math.inf

    run(test)


# --- stream ---


def test_a_stream_is_one_request() -> None:
    """It is in flight until its last part is taken, or its reader leaves."""

    async def test() -> None:
        one = entry()
        gateway = serving(one)
        parts = []
        async for part in gateway.stream(one, ask()):
            assert one.in_flight == 1
            assert isinstance(part.outputs, Tensors)
            parts.append(part.outputs.items[0].array.tolist())
        assert parts == [[[1, 1]], [[1, 2]], [[1, 3]]]
        assert one.in_flight == 0
        reader = gateway.stream(one, ask())
        await anext(reader)
        assert one.in_flight == 1
        await reader.aclose()
        assert one.in_flight == 0

    run(test)


@pytest.mark.parametrize("error", [ServingError(Kind.MODEL_FAILED, "no"), ZeroDivisionError("a bug")])
def test_a_stream_that_fails_is_over(error: Exception) -> None:
    """Before its first part or later, the error is raised and nothing stays in flight."""

    async def test() -> None:
        one = entry()
        gateway = serving(one)
        reader = gateway.stream(one, ask())
        await anext(reader)
        served_by(one).error = error
        with pytest.raises(type(error)):
            await anext(reader)
        with pytest.raises(type(error)):
            await anext(gateway.stream(one, ask()))
        with pytest.raises(ServingError, match="has shape"):
            await anext(gateway.stream(one, InferRequest(Tensors([Tensor("x", FP32, np.zeros((1, 9), "f4"))]))))
        assert one.in_flight == 0

    run(test)


# --- swap ---


def test_a_swap_is_seen_by_the_next_request_and_not_by_those_in_flight() -> None:
    """The old version answers what it began; whoever asks afterwards gets the new one."""

    async def test() -> None:
        gate = asyncio.Event()
        old, new = entry("1", gate=gate), entry("2")
        gateway = serving(old)
        begun = asyncio.ensure_future(gateway.infer(gateway.find("m"), ask()))
        await settle(lambda: old.in_flight == 1)
        gateway.swap({("m", "2"): new, ("m", ""): new})
        later = await gateway.infer(gateway.find("m"), ask())
        gate.set()
        first = await begun
        assert isinstance(first.outputs, Tensors)
        assert isinstance(later.outputs, Tensors)
        assert [first.outputs.items[0].array[0, 0], later.outputs.items[0].array[0, 0]] == [1, 2]

    run(test)
