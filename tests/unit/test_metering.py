"""What the gateway meters and traces: every ending of a request, once, with the kind and the times that it had."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import BatchPolicy, Call, InferRequest, InferResponse, ModelSpec, Servable, Timings
from dragoman.core.tensors import Form, Rows, Signature, Tensors
from dragoman.hosting.servable import Cost, LocalServable
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.meters import Gauge, Meters, Total
from dragoman.serving.trace_settings import TraceSettings
from dragoman.serving.tracing import Tracer
from tests.fakes import DOUBLER, FakeModel, row

INLINE, JOINED = 1_000, 20_000


class Scripted:
    """A servable that does what the test says."""

    def __init__(self, act: Callable[[], Awaitable[InferResponse]], parts: int = 1) -> None:
        self.signatures: dict[str, Signature] = {"": DOUBLER}
        self.operations = frozenset({"predict"})
        self.platform = "fake"
        self._act = act
        self._parts = parts

    async def infer(self, request: InferRequest) -> InferResponse:
        return await self._act()

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        for _ in range(self._parts):
            yield await self._act()

    async def lost(self) -> str:
        raise AssertionError("nobody asks")

    async def drain(self, deadline: float) -> None: ...

    async def close(self) -> None: ...

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return 7


class Site:
    """A gateway with one model."""

    def __init__(self, servable: Servable, tracer: Tracer | None = None) -> None:
        self.meters = Meters()
        self.gateway = Gateway(self.meters, tracer=tracer)
        self.entry = Entry(ModelSpec("m", "3"), servable)
        self.gateway.swap({("m", "3"): self.entry, ("m", ""): self.entry})
        self.gateway.publish("m", [VersionStatus("m", "3", State.READY, "")], {})

    async def ask(self, inputs: Tensors | None = None, **fields: Any) -> InferResponse:
        request = InferRequest(row(1, 2) if inputs is None else inputs, dialect="v2", **fields)
        return await self.gateway.infer(self.entry, request)

    def total(self) -> Total:
        (total,) = self.meters.totals("m", "3")
        return total


async def answer() -> InferResponse:
    return InferResponse(row(2, 4), Timings(10, 20, 30, 40, batch_size=5, leader=False, rows=2))


def failing(error: BaseException) -> Callable[[], Awaitable[InferResponse]]:
    async def act() -> InferResponse:
        raise error

    return act


def servable(model: FakeModel, cost_ns: int) -> LocalServable:
    cost = Cost()
    for bits in range(12):
        cost.record(1 << bits, cost_ns)
    return LocalServable(ModelSpec("m", batch=BatchPolicy(max_size=8)), [model], cost)


def test_a_version_that_is_served_has_a_row() -> None:
    """From the moment when it is in the table."""
    assert Site(Scripted(answer)).total().success == 0


def test_an_answer_is_counted_with_its_times() -> None:
    """The servable's stages as they are, the whole as the gateway's clock saw it."""
    site = Site(Scripted(answer))
    asyncio.run(site.ask())
    total = site.total()
    assert (total.success, total.executions, total.inferences) == (1, 0, 2)
    assert (total.queue_ns, total.input_ns, total.infer_ns, total.output_ns) == (10, 20, 30, 40)
    assert total.success_ns > 0
    assert [t.dialect for t in site.meters.read().by_dialect] == ["v2"]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_failure_is_counted_by_its_kind(kind: Kind) -> None:
    """And goes on to the caller."""
    site = Site(Scripted(failing(ServingError(kind, "no"))))
    with pytest.raises(ServingError, match="no"):
        asyncio.run(site.ask())
    assert (dict(site.total().failures), site.total().success) == ({kind: 1}, 0)


def test_a_refused_request_is_counted() -> None:
    """What the gateway itself finds wrong is a failure of the model's requests, too."""
    site = Site(Scripted(answer))
    refused: list[dict[str, Any]] = [{"signature": "none"}, {"operation": "explain"}]
    for fields in refused:
        with pytest.raises(ServingError):
            asyncio.run(site.ask(**fields))
    assert dict(site.total().failures) == {Kind.INVALID_INPUT: 1, Kind.UNSUPPORTED: 1}


def test_an_error_of_ours_is_counted_as_internal() -> None:
    """An exception that is no ServingError is a mistake of the server, and visible as one."""
    site = Site(Scripted(failing(RuntimeError("a bug"))))
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(site.ask())
    assert dict(site.total().failures) == {Kind.INTERNAL: 1}


def test_a_caller_that_leaves_is_counted_as_cancelled() -> None:
    """Once, and nothing as an answer."""

    async def test() -> Site:
        waiting = asyncio.Event()

        async def act() -> InferResponse:
            waiting.set()
            await asyncio.get_running_loop().create_future()
            raise AssertionError("nobody resolves that future")

        site = Site(Scripted(act))
        task = asyncio.create_task(site.ask())
        await waiting.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return site

    total = asyncio.run(test()).total()
    assert (dict(total.failures), total.success) == ({Kind.CANCELLED: 1}, 0)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_stream_is_one_request(parts: int) -> None:
    """However many parts it has."""

    async def test() -> Site:
        site = Site(Scripted(answer, parts))
        got = [part async for part in site.gateway.stream(site.entry, InferRequest(row(1, 2), dialect="v2"))]
        assert len(got) == parts
        return site

    total = asyncio.run(test()).total()
    assert (total.success, dict(total.failures)) == (1, {})


def test_a_stream_that_is_left_is_cancelled() -> None:
    """A client that hangs up after the first part has not been answered."""

    async def test() -> Site:
        site = Site(Scripted(answer, 3))
        stream = site.gateway.stream(site.entry, InferRequest(row(1, 2), dialect="v2"))
        await anext(stream)
        await stream.aclose()
        return site

    total = asyncio.run(test()).total()
    assert (total.success, dict(total.failures)) == (0, {Kind.CANCELLED: 1})


@pytest.mark.parametrize(
    ("error", "kind"), [(ServingError(Kind.MODEL_FAILED, "no"), Kind.MODEL_FAILED), (RuntimeError("no"), Kind.INTERNAL)]
)
def test_a_stream_that_fails_is_counted(error: Exception, kind: Kind) -> None:
    """Like any other request."""

    async def test() -> Site:
        site = Site(Scripted(failing(error)))
        with pytest.raises(type(error), match="no"):
            await anext(site.gateway.stream(site.entry, InferRequest(row(1, 2), dialect="v2")))
        return site

    assert dict(asyncio.run(test()).total().failures) == {kind: 1}


def test_rows_and_runs_add_up_through_the_batcher() -> None:
    """Ten requests of two rows: twenty rows, in as many runs as the model saw, of the sizes that it saw."""

    async def test() -> tuple[Site, FakeModel]:
        model = FakeModel()
        site = Site(servable(model, JOINED))
        await asyncio.gather(*(site.ask(row(1, 2, 3, 4)) for _ in range(10)))
        return site, model

    site, model = asyncio.run(test())
    total = site.total()
    assert (total.success, total.inferences, total.executions) == (10, 20, len(model.calls))
    assert len(model.calls) < 10
    assert sorted(size for runs in total.runs for size in [runs.size] * runs.count) == sorted(model.calls)


def test_rows_are_counted_without_the_batcher() -> None:
    """A request that runs at once has its own rows."""
    site = Site(servable(FakeModel(), INLINE))
    asyncio.run(site.ask(row(1, 2, 3, 4, 5, 6)))
    total = site.total()
    assert (total.inferences, total.executions, [runs.size for runs in total.runs]) == (3, 1, [3])


def test_a_run_whose_first_caller_left_is_counted() -> None:
    """Another member of the batch stands for it."""

    async def test() -> Site:
        tasks: list[asyncio.Task[InferResponse]] = []

        def run(call: Call) -> Tensors | Rows:
            tasks[0].cancel()  # while the batch runs
            return call.inputs

        site = Site(servable(FakeModel(run=run, signature=DOUBLER), JOINED))
        tasks += [asyncio.create_task(site.ask()) for _ in range(3)]
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False, False]
        return site

    total = asyncio.run(test()).total()
    assert (total.success, total.executions, [(r.size, r.count) for r in total.runs]) == (2, 1, [(3, 1)])
    assert dict(total.failures) == {Kind.CANCELLED: 1}


ROWS = Signature(form=Form.ROWS, batch=True)


class Batched(Scripted):
    """A model of rows whose rows had these timings, in this order; an error stands for a row that fails."""

    def __init__(self, *outcomes: Timings | Exception) -> None:
        left = list(outcomes)

        async def act() -> InferResponse:
            outcome = left.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return InferResponse(Rows(["out"]), outcome)

        super().__init__(act)
        self.signatures = {"": ROWS}


def test_a_call_of_many_rows_is_one_request() -> None:
    """Five rows in two runs that it led and one of somebody else's: one request, five rows, two runs."""
    led = Timings(10, 1, 100, 2, batch_size=2, leader=True)
    along = replace(led, leader=False)
    other = Timings(500, 1, 700, 2, batch_size=3, leader=False)
    site = Site(Batched(led, along, replace(led, queue_ns=120), along, other))
    answers = asyncio.run(site.gateway.infer_rows(site.entry, list(range(5)), dialect="v2"))
    assert answers == ["out"] * 5
    total = site.total()
    assert (total.success, sum(total.request), total.inferences, total.executions) == (1, 1, 5, 2)
    assert [(runs.size, runs.count, runs.infer_ns) for runs in total.runs] == [(2, 2, 200)]
    assert (total.queue_ns, total.input_ns, total.infer_ns, total.output_ns) == (10, 2, 200, 4)
    assert (sum(total.queue), sum(total.compute)) == (1, 2)
    assert total.success_ns > 0


def test_a_call_whose_rows_went_along_has_no_runs() -> None:
    """They are counted where they were led; its time is that of the longest."""
    rows = [Timings(10, 1, 100, 2, batch_size=9, leader=False), Timings(10, 1, 300, 2, batch_size=9, leader=False)]
    site = Site(Batched(*rows))
    asyncio.run(site.gateway.infer_rows(site.entry, [1, 2], dialect="v2"))
    total = site.total()
    assert (total.success, total.inferences, total.executions, total.infer_ns, total.runs) == (1, 2, 0, 300, ())


def test_a_call_of_which_a_row_fails_is_one_failure() -> None:
    """By the kind of the first that failed; the rows that were answered count for nothing, as their answers do."""
    site = Site(Batched(Timings(), ServingError(Kind.MODEL_FAILED, "no"), Timings()))
    with pytest.raises(ServingError, match="no"):
        asyncio.run(site.gateway.infer_rows(site.entry, [1, 2, 3], dialect="v2"))
    total = site.total()
    assert (total.success, dict(total.failures), total.inferences, total.executions) == (0, {Kind.MODEL_FAILED: 1}, 0, 0)


def test_a_call_of_many_rows_is_one_trace(tmp_path: Path) -> None:
    """With the id of the request."""
    settings = TraceSettings()
    tracer = Tracer(settings, tmp_path)
    settings.update({"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
    site = Site(Batched(*[Timings(5, 0, 7, 0)] * 3), tracer)
    asyncio.run(site.gateway.infer_rows(site.entry, [1, 2, 3], dialect="v2", request_id="many"))
    (trace,) = [trace for _, _, traces in tracer.take(everything=True) for trace in traces]
    at = {stamp["name"]: stamp["ns"] for stamp in trace["timestamps"]}
    assert trace["request_id"] == "many"
    assert (at["COMPUTE_START"] - at["REQUEST_START"], at["COMPUTE_END"] - at["COMPUTE_START"]) == (5, 21)


def test_gauges_are_of_every_known_version() -> None:
    """Those that serve with what waits, the others with nothing and not ready."""
    site = Site(Scripted(answer))
    site.gateway.publish("n", [VersionStatus("n", "1", State.LOADING, ""), VersionStatus("n", "2", State.FAILED, "broken")], {})
    assert site.gateway.gauges() == [Gauge("m", "3", 7, True), Gauge("n", "2", 0, False), Gauge("n", "1", 0, False)]


def test_answers_are_traced_when_asked_for(tmp_path: Path) -> None:
    """With the request's id; failures are not."""
    settings = TraceSettings()
    tracer = Tracer(settings, tmp_path)
    site = Site(Scripted(answer), tracer)
    asyncio.run(site.ask(id="before"))
    settings.update({"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
    asyncio.run(site.ask(id="during"))
    with pytest.raises(ServingError):
        asyncio.run(site.ask(signature="none", id="wrong"))
    settings.update({"trace_level": ["OFF"]})
    asyncio.run(site.ask(id="after"))
    traces = [trace for _, _, traces in tracer.take(everything=True) for trace in traces]
    assert [(t["request_id"], t["model_name"], t["model_version"]) for t in traces] == [("during", "m", 3)]
