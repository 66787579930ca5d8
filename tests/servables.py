"""Servables and openers of our own, for tests of everything above the models; and how such tests run on an event loop."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dragoman.core.lifecycle import State, Wanted
from dragoman.core.model import EMPTY, InferRequest, InferResponse, ModelSpec, Timings
from dragoman.core.tensors import FP32, Signature, Tensor, Tensors
from dragoman.serving.gateway import Gateway
from dragoman.serving.late_store import LateStore
from dragoman.serving.members import Members
from dragoman.serving.meters import Meters
from dragoman.serving.reconciler import Reconciler
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import entry
from dragoman.store import Rewrite, Store
from tests.fakes import DOUBLER, row
from tests.fakes_store import FakeStore


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of its own. Fails when it takes long, or leaves a task behind."""

    async def bounded() -> None:
        async with asyncio.timeout(90):
            await test()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


def late(store: Store) -> LateStore:
    """A store as workers have it, opened already or about to be."""

    async def opener() -> Store:
        return store

    return LateStore(opener, lambda: True)


async def settle(condition: Callable[[], bool]) -> None:
    """Let the loop turn until a condition holds. No clock: for what needs no thread."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came true")


def spec(version: str = "1", revision: str = "a", name: str = "m") -> ModelSpec:
    return ModelSpec(name, version, revision=revision)


def ask(*values: float, deadline: float = math.inf, dialect: str = "", signature: str = "") -> InferRequest:
    return InferRequest(row(*(values or (1, 2))), deadline=deadline, dialect=dialect, signature=signature)


class FakeServable:
    """Answers its own version and revision as y. With a gate, requests wait until it is opened."""

    def __init__(self, of: ModelSpec, gate: asyncio.Event | None = None, signatures: Mapping[str, Signature] | None = None) -> None:
        self.spec = of
        self.signatures: Mapping[str, Signature] = signatures or {"": DOUBLER}
        self.operations = frozenset({"predict", "explain"})
        self.platform = "fake"
        self.gate = gate
        self.requests: list[InferRequest] = []
        self.drained_until: float | None = None
        self.closed = 0
        self.gone: asyncio.Future[str] | None = None
        """Resolved with the reason: the servable is lost."""
        self.error: Exception | None = None
        """Raised by infer."""
        self.unwilling: Exception | None = None
        """Raised by drain and close."""
        self.opener: Opener | None = None

    async def infer(self, request: InferRequest) -> InferResponse:
        assert not self.closed, "called after it was closed"
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return InferResponse(Tensors([Tensor("y", FP32, np.array([[int(self.spec.version), len(self.requests)]], "f4"))]), Timings())

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        for _ in range(3):
            yield await self.infer(request)

    async def lost(self) -> str:
        self.gone = self.gone or asyncio.get_running_loop().create_future()
        return await self.gone

    async def drain(self, deadline: float) -> None:
        self.drained_until = deadline
        if self.unwilling is not None:
            raise self.unwilling

    async def close(self) -> None:
        if self.opener is not None and self.opener.closings is not None:
            self.opener.closing += 1
            await self.opener.closings.wait()
            self.opener.closing -= 1
        self.closed += 1
        if self.unwilling is not None:
            raise self.unwilling

    def trouble(self) -> str:
        return ""

    def pending(self) -> int:
        return 7


class Opener:
    """Opens fake servables. What is in `held` waits for its event; what is in `broken` fails with that error; both by (version, revision)."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], asyncio.Event] = {}
        self.broken: dict[tuple[str, str], Exception] = {}
        self.fails: dict[str, Exception] = {}
        """The same by version only."""
        self.begun: list[tuple[str, str]] = []
        self.opened: list[FakeServable] = []
        self.running = 0
        self.doubles = 0
        """How often something was opened that was open."""
        self.closing = 0
        self.closings: asyncio.Event | None = None
        self.most = 0
        self.gate: asyncio.Event | None = None
        """For the requests of what is opened from now on."""
        self.specs: dict[tuple[str, str, str], ModelSpec] = {}
        """By name, version and revision, where a spec is more than those."""

    async def __call__(self, name: str, version: str, wanted: Wanted) -> tuple[ModelSpec, FakeServable]:
        if wanted.fault is not None:
            raise wanted.fault
        of = wanted.spec or await self.spec_of(name, version, wanted)
        key = (of.version, of.revision)
        self.begun.append(key)
        self.running += 1
        self.doubles += any((s.spec.name, s.spec.version, s.spec.revision) == (name, *key) and not s.closed for s in self.opened)
        self.most = max(self.most, self.running)
        try:
            gate = self.held.get(key) or self.held.get((version, ""))
            if gate is not None:
                await gate.wait()
            if key in self.broken:
                raise self.broken[key]
            if version in self.fails:
                raise self.fails[version]
        finally:
            self.running -= 1
        servable = FakeServable(of, self.gate)
        servable.opener = self
        self.opened.append(servable)
        return of, servable

    async def spec_of(self, name: str, version: str, wanted: Wanted) -> ModelSpec:
        """What a stored wish comes to."""
        found = self.specs.get((name, version, wanted.revision)) or ModelSpec(name, version)
        return replace(found, name=name, version=version, revision=wanted.revision)

    def lose(self, reason: str, version: str = "1", revision: str = "a") -> None:
        """The newest servable of a version can answer no more."""
        gone = self.of(version, revision).gone
        assert gone is not None, "nobody asks"
        gone.set_result(reason)

    def hold(self, version: str = "1", revision: str = "a") -> asyncio.Event:
        """Make loads of this version wait; returns what lets them go."""
        event = self.held[version, revision] = asyncio.Event()
        return event

    def hold_version(self, version: str) -> asyncio.Event:
        """The same for a version, whatever its revision."""
        return self.hold(version, "")

    def hold_closing(self) -> asyncio.Event:
        """Make closing wait; returns what lets it go."""
        self.closings = asyncio.Event()
        return self.closings

    def of(self, version: str = "1", revision: str = "a") -> FakeServable:
        """The newest servable of a version."""
        return [s for s in self.opened if (s.spec.version, s.spec.revision) == (version, revision)][-1]

    def open_now(self) -> list[FakeServable]:
        return [s for s in self.opened if not s.closed]


class Parts:
    """A registry over a store, a gateway and the reconciler between them, with an opener of fakes. Made on the loop."""

    def __init__(
        self,
        *,
        drain_timeout_s: float = 5.0,
        parallel: int = 4,
        pauses_s: Sequence[float] = (0.01,),
        store: Store | None = None,
        members: Members | None = None,
        late_store: LateStore | None = None,
        retries: int = 0,
        retry_s: float = 60.0,
    ) -> None:
        self.store = store or FakeStore()
        self.late = late_store or late(self.store)
        self.registry = Registry(self.late, members)
        self.gateway = Gateway(Meters())
        self.opener = Opener()
        self.reconciler = Reconciler(
            self.registry,
            self.gateway,
            opener=self.opener,
            drain_timeout_s=drain_timeout_s,
            parallel=parallel,
            pauses_s=pauses_s,
            retries=retries,
            retry_s=retry_s,
        )

    async def deploy(self, *specs: ModelSpec, labels: Mapping[str, str] = EMPTY, run: str = "run") -> None:
        """Versions of the model m, by default until the server ends."""
        await self.registry.deploy("m", self.rewrite(specs, labels), run=run, required=[s.version for s in specs])

    async def wish(self, *specs: ModelSpec, labels: Mapping[str, str] = EMPTY, name: str = "m", run: str = "run") -> int:
        return (await self.registry.wish(name, self.rewrite(specs, labels), run=run)).generation

    def rewrite(self, specs: Sequence[ModelSpec], labels: Mapping[str, str] = EMPTY) -> Rewrite:
        self.opener.specs |= {(s.name, s.version, s.revision): s for s in specs}
        return lambda _: {"versions": {s.version: entry(s.revision, {}) for s in specs}, "labels": dict(labels)} if specs else {}

    async def settled(self, generation: int) -> Mapping[str, str]:
        return await self.registry.settled("m", generation)

    def answering(self, version: str = "", label: str = "") -> tuple[str, str]:
        """Version and revision of what answers."""
        found = self.gateway.find("m", version, label)
        return found.version, found.spec.revision

    def draining(self) -> bool:
        return any(s.state is State.DRAINING for s in self.gateway.statuses())

    def statuses(self) -> list[tuple[str, State, str]]:
        return [(s.version, s.state, s.reason) for s in self.gateway.statuses("m")]


def with_parts(test: Callable[[Parts], Awaitable[None]], **options: Any) -> None:
    """Run a test with parts that are closed after it; everything that was opened must be closed then, once."""

    async def whole() -> None:
        parts = Parts(**options)
        try:
            await test(parts)
        finally:
            await parts.reconciler.close()
        assert [s.closed for s in parts.opener.opened] == [1] * len(parts.opener.opened)

    run(whole)
