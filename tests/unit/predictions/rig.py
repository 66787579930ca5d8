"""Prediction services with everything around them made by us: a model that does what a test says, a store in memory, clocks that stand still."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State
from dragoman.core.model import BatchPolicy, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.predictions import Prediction, Progress
from dragoman.core.tensors import Form, Rows, Signature, Value
from dragoman.serving.fetch import FetchPolicy
from dragoman.serving.gateway import Entry, Gateway, VersionStatus
from dragoman.serving.late_store import LateStore
from dragoman.serving.meters import Meters
from dragoman.serving.predictions import Limits, Parts, Predictions, View
from dragoman.serving.webhooks import Webhooks
from dragoman.store import Store
from tests.fakes_store import FakeStore

ROWS = Signature(form=Form.ROWS, batch=True)
LIMITS = Limits(model_wait_s=60.0, lease_s=30.0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A servable of rows. Each request waits until a test answers it, unless there is an `answer` for it at once."""

    platform = "scripted"

    def __init__(self, operations: frozenset[str] = frozenset({"predict", "demo"})) -> None:
        self.signatures = {"": ROWS, "@demo": ROWS}
        self.operations = operations
        self.answer: Callable[[InferRequest], Awaitable[Value]] | None = None
        self.asked: list[InferRequest] = []
        self.waiting: dict[int, asyncio.Future[Value]] = {}
        self.cancelled = 0

    async def infer(self, request: InferRequest) -> InferResponse:
        self.asked.append(request)
        try:
            if self.answer is not None:
                value = await self.answer(request)
            else:
                number = len(self.asked) - 1
                self.waiting[number] = asyncio.get_running_loop().create_future()
                value = await self.waiting[number]
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return InferResponse(Rows([value]), Timings())

    def start(self, number: int = -1, text: str = "") -> None:
        """Say that a request is in a batch that runs, and what that prints."""
        watch = self.asked[number].watch
        assert watch is not None
        watch.started()
        if text:
            watch.log(text)

    def finish(self, number: int, outcome: Value) -> None:
        """Answer a request, or fail it with an error."""
        future = self.waiting.pop(number)
        if future.done():  # cancelled meanwhile
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        yield await self.infer(request)

    async def lost(self) -> str:
        raise AssertionError("nobody asks")

    async def drain(self, deadline: float) -> None: ...
    async def close(self) -> None: ...
    def pending(self) -> int:
        return 0

    def trouble(self) -> str:
        return ""


def serving(servable: Scripted | None, name: str = "m", spec: ModelSpec | None = None, state: State = State.READY) -> Gateway:
    """A gateway with one version of one model: ready with a servable, else in that state."""
    gateway = Gateway(Meters(), max_inputs=100)
    publish(gateway, servable, name, spec, state)
    return gateway


def publish(
    gateway: Gateway, servable: Scripted | None, name: str = "m", spec: ModelSpec | None = None, state: State = State.READY
) -> Entry | None:
    """Put a model there, or take it away."""
    spec = spec or ModelSpec(name, batch=BatchPolicy(max_size=4))
    entry = Entry(spec, servable) if servable is not None else None
    gateway.swap({(name, ""): entry, (name, "1"): entry} if entry is not None else {})
    gateway.publish(name, [VersionStatus(name, "1", state, "it is broken" if state is State.FAILED else "")], {})
    return entry


class Posted:
    """Takes webhooks instead of the network. `statuses` are what it answers, one after the other, and 200 when they are used up."""

    def __init__(self, *statuses: int | ServingError) -> None:
        self.statuses = list(statuses)
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []

    async def __call__(self, url: str, body: bytes, policy: FetchPolicy, *, headers: dict[str, str]) -> int:
        self.calls.append((url, body, dict(headers)))
        status = self.statuses.pop(0) if self.statuses else 200
        if isinstance(status, ServingError):
            raise status
        return status


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


class Bench:
    """One worker: a service over a store that others may share."""

    def __init__(
        self,
        folder: Path,
        store: Store | None = None,
        *,
        gateway: Gateway | None = None,
        servable: Scripted | None = None,
        limits: Limits = LIMITS,
        clock: Clock | None = None,
        posted: Posted | None = None,
        resolve: Callable[[Sequence[Value], Signature], Awaitable[list[Value]]] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.store = store if store is not None else FakeStore()
        self.clock = clock or Clock()
        self.monotonic = Clock(50.0)
        self.servable = servable or Scripted()
        self.gateway = gateway or serving(self.servable)
        self.posted = posted or Posted()
        self.opened = 0
        self.ended: list[tuple[str, Progress]] = []
        """What this worker has counted."""

        async def opener() -> Store:
            self.opened += 1
            return self.store

        async def resolved(rows: Sequence[Value], signature: Signature) -> list[Value]:
            return list(rows) if resolve is None else await resolve(rows, signature)

        self.late = LateStore(opener, lambda: True)
        self.parts = Parts(
            self.gateway,
            self.late,
            resolved,
            Webhooks(FetchPolicy.parse([]), send=self.posted, sleep=no_sleep),
            folder / "owners",
            limits,
            ended=lambda model, how: self.ended.append((model, how)),
            clock=self.clock,
            monotonic=self.monotonic,
            sleep=sleep,
        )
        self.service = Predictions(self.parts)

    @property
    def fake(self) -> FakeStore:
        assert isinstance(self.store, FakeStore)
        return self.store

    async def submit(self, *rows: Value, **options: Any) -> str:
        return await self.service.submit(self.gateway.find("m"), list(rows) or [{"x": 1}], **options)

    async def asked(self, count: int) -> None:
        """Until the model has been asked so often."""
        async with asyncio.timeout(10):
            while len(self.servable.asked) < count:
                await asyncio.sleep(0.001)

    async def reach(self, prediction_id: str, *progress: Progress) -> View:
        """Until it is in one of these states."""
        async with asyncio.timeout(10):
            while True:
                view = await self.service.get(prediction_id)
                if view.progress in progress:
                    return view
                await asyncio.sleep(0.001)

    async def stored(self, prediction_id: str) -> Prediction:
        record = await self.store.prediction(prediction_id)
        assert record is not None
        return record

    async def stored_as(self, prediction_id: str, *progress: Progress) -> Prediction:
        """Until the store has it in one of these states."""
        async with asyncio.timeout(10):
            while True:
                record = await self.stored(prediction_id)
                if record.progress in progress:
                    return record
                await asyncio.sleep(0.001)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds

    async def crash(self) -> None:
        """End as a killed process does: nothing is written any more, and the lock on its name is gone."""
        if isinstance(self.store, FakeStore):
            kept, self.store.failure = self.store.failure, ServingError(Kind.UNAVAILABLE, "killed")
            await self.service.close()
            self.store.failure = kept
        else:
            raise TypeError("only over a store in memory")


@asynccontextmanager
async def bench(folder: Path, store: Store | None = None, **options: Any) -> AsyncGenerator[Bench, None]:
    """A worker that is closed at the end."""
    made = Bench(folder, store, **options)
    try:
        yield made
    finally:
        if isinstance(made.store, FakeStore):
            made.store.failure = None
        await made.service.close()


DOWN = ServingError(Kind.UNAVAILABLE, "the database is gone")
BROKEN = ServingError(
    Kind.MODEL_FAILED, "model 'm' failed: ValueError: boom", trace="Traceback (most recent call last):\nValueError: boom\n"
)


def ended(view: View) -> tuple[Progress, str, str]:
    return view.progress, view.error, view.error_kind


__all__ = ["BROKEN", "DOWN", "LIMITS", "ROWS", "Bench", "Clock", "Posted", "Scripted", "bench", "ended", "publish", "replace", "serving"]
