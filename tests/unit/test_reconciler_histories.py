"""Random histories of wishes, loads that succeed or fail in any order, and requests: never a gap, always an end, nothing left open."""

import asyncio
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dragoman.core.lifecycle import State, Wanted
from dragoman.core.model import InferResponse, ModelSpec
from dragoman.serving.gateway import Gateway
from dragoman.serving.meters import Meters
from dragoman.serving.reconciler import Reconciler
from dragoman.serving.registry import Registry
from dragoman.serving.wishes import entry
from tests.fakes_store import FakeStore
from tests.servables import FakeServable, ask, late, spec

VERSIONS, REVISIONS = ("1", "2", "10"), ("a", "b", "c")


class History(RuleBasedStateMachine):
    """One model of three versions and three revisions each."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loads: list[tuple[ModelSpec, asyncio.Future[FakeServable]]] = []
        self.opened: list[FakeServable] = []
        self.gate = asyncio.Event()
        self.calls: list[asyncio.Task[InferResponse]] = []
        self.wished: dict[str, ModelSpec] = {}
        self.generation = 0
        self.answering: dict[str, FakeServable] = {}
        self.loop.set_exception_handler(self._unexpected)
        self.surprises: list[object] = []

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        self.surprises.append(context)

    @initialize(parallel=st.integers(1, 2))
    def start(self, parallel: int) -> None:
        """The parts, with nothing wished."""
        self.registry = Registry(late(FakeStore()))
        self.gateway = Gateway(Meters())
        self.reconciler = Reconciler(self.registry, self.gateway, opener=self._open, drain_timeout_s=1000, parallel=parallel)

    async def _open(self, name: str, version: str, wanted: Wanted) -> tuple[ModelSpec, FakeServable]:
        of = ModelSpec(name, version, revision=wanted.revision)
        assert all((of.version, of.revision) != (s.spec.version, s.spec.revision) for s in self.opened if not s.closed), "opened twice"
        future: asyncio.Future[FakeServable] = self.loop.create_future()
        self.loads.append((of, future))
        return of, await future

    def do(self, action: Callable[[], object]) -> None:
        """Act on the loop, let everything run that can, and look whether anything that should go on answering has stopped."""
        before, wanted_before = self.answering, dict(self.wished)

        async def on_loop() -> None:
            result = action()
            if asyncio.iscoroutine(result):
                await result
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(on_loop())
        table = self.gateway.table()
        self.answering = {version: entry.servable for (_, version), entry in table.items() if version in VERSIONS}  # type: ignore[misc]
        for version in before:
            assert version in self.answering or version not in self.wished, f"version {version} vanished"
        if before and wanted_before and self.wished:
            assert self.answering, "the model vanished"

    # --- what happens ---

    @rule(
        versions=st.sets(st.sampled_from(VERSIONS)), revisions=st.tuples(*[st.sampled_from(REVISIONS)] * 3), label=st.sampled_from(VERSIONS)
    )
    def wish(self, versions: set[str], revisions: tuple[str, ...], label: str) -> None:
        """Another whole set of versions, none at times."""
        self.wished = {v: spec(v, revisions[VERSIONS.index(v)]) for v in versions}

        document = {"versions": {v: entry(s.revision, {}) for v, s in self.wished.items()}, "labels": {"label": label}}

        async def act() -> None:
            self.generation = (await self.registry.wish("m", lambda _: document)).generation

        self.do(act)

    @precondition(lambda self: self.loads)
    @rule(which=st.integers(0, 5), good=st.booleans())
    def load_ends(self, which: int, good: bool) -> None:
        """Any of the running loads comes to its end."""
        of, future = self.loads.pop(which % len(self.loads))
        self.do(lambda: self._end(of, future, good=good))

    def _end(self, of: ModelSpec, future: "asyncio.Future[FakeServable]", *, good: bool) -> None:
        if future.done():  # cancelled
            return
        if good:
            self.opened.append(FakeServable(of, self.gate))
            future.set_result(self.opened[-1])
        else:
            future.set_exception(RuntimeError("it does not load"))

    @precondition(lambda self: self.answering)
    @rule(version=st.sampled_from(("", *VERSIONS)))
    def request_begins(self, version: str) -> None:
        """Somebody calls a version and waits."""
        if ("m", version) in self.gateway.table():
            self.do(lambda: self.calls.append(self.loop.create_task(self.gateway.infer(self.gateway.find("m", version), ask()))))

    @rule()
    def requests_end(self) -> None:
        """All requests get their answers."""

        def act() -> None:
            self.gate.set()

        self.do(act)
        self.do(self.gate.clear)

    # --- what is always so ---

    @invariant()
    def what_answers_is_open(self) -> None:
        """No entry of the table leads to something closed, and the default is the highest that answers."""
        assert not any(s.closed for s in self.answering.values())
        table = self.gateway.table() if self.answering else {}
        if self.answering:
            assert table["m", ""].version == max(self.answering, key=int)

    @invariant()
    def one_load_at_a_time(self) -> None:
        """Of what is wanted, at most one version is loading."""
        if self.generation:
            assert sum(s.state is State.LOADING and not s.waiting for s in self.gateway.statuses("m")) <= 1

    @invariant()
    def nothing_surprises(self) -> None:
        """No task ended with an exception that nobody looked at."""
        assert not self.surprises

    def teardown(self) -> None:
        """With every load done it settles: what is wanted and works is served, everything else is closed; then the end closes that too."""
        try:
            if self.generation:
                self._settle()
                self.loop.run_until_complete(self.reconciler.close())
            self.loop.run_until_complete(self._calls())
            assert [s.closed for s in self.opened] == [1] * len(self.opened)
            assert not asyncio.all_tasks(self.loop)
            assert not self.surprises
        finally:
            self.loop.close()

    async def _calls(self) -> None:
        await asyncio.gather(*self.calls)

    def _settle(self) -> None:
        self.requests_end()
        while self.loads:
            of, future = self.loads.pop()
            self.do(lambda of=of, future=future: self._end(of, future, good=int(of.version) > 1 or of.revision == "a"))  # type: ignore[misc]
            self.requests_end()
        failures = self.loop.run_until_complete(asyncio.wait_for(self.registry.settled("m", self.generation), 10))
        working = {v: s.revision for v, s in self.wished.items() if v not in failures}
        served = {version: servable.spec.revision for version, servable in self.answering.items()}
        assert served.items() >= working.items()
        if working:  # an older revision may stand in for one that failed
            assert served.keys() <= self.wished.keys()
        if not self.wished:
            assert not served
        self.do(lambda: None)
        assert {id(s) for s in self.opened if not s.closed} == {id(s) for s in self.answering.values()}


History.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestHistory = History.TestCase
