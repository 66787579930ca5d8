"""The data plane: find a model in one dictionary, call it, meter it. Called by every dialect; knows no wire format.

The table is a plain dict that the reconciler swaps whole, with an entry under (name, version), (name, "@label") and, for the default,
(name, ""). A hit takes no lock, no await and no store.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import replace

from dragoman.core.checks import check
from dragoman.core.errors import Kind, ServingError
from dragoman.core.lifecycle import State, version_order
from dragoman.core.model import EMPTY, InferRequest, InferResponse, Timings, Watch
from dragoman.core.tensors import Rows, Tensors, Value
from dragoman.serving.entries import Entry, unknown_operation, unknown_signature
from dragoman.serving.fanout import admit_rows, fan_out, new_group, signature_of
from dragoman.serving.meters import Gauge, Meter, Meters
from dragoman.serving.records.recorder import Recorder, Recording
from dragoman.serving.statuses import VersionStatus, absent
from dragoman.serving.tracing import Tracer

log = logging.getLogger("dragoman.models")

OPENED: ContextVar[frozenset[str]] = ContextVar("dragoman-opened", default=frozenset())
"""The locked models whose password the request that is being answered has brought (see doors.py)."""


Table = Mapping[tuple[str, str], Entry]


class Gateway:
    """`request_timeout_s` is the deadline of requests that bring none; inf for no limit. `tracer` and `recorder` are told of each request.

    `max_inputs` bounds the rows of one call of infer_rows, 0 for any number.
    """

    def __init__(
        self,
        meters: Meters,
        request_timeout_s: float = math.inf,
        tracer: Tracer | None = None,
        max_inputs: int = 0,
        recorder: Recorder | None = None,
    ) -> None:
        self._table: Table = {}
        self._statuses: dict[str, list[VersionStatus]] = {}
        self._labels: dict[str, Mapping[str, str]] = {}
        self._meters = meters
        self._tracer = tracer
        self._recorder = recorder
        self._timeout_s = request_timeout_s
        self._max_inputs = max_inputs
        self.draining = False
        self.starting = False
        """Whether what `serve` was told is still being loaded for the first time."""
        self.lenient = False
        """Whether the server is ready while models are not."""
        self.named: tuple[str, ...] = ()
        """The models that `serve` was told, in that order; the first is the default one (see root_model.py)."""
        self.locked: Collection[str] = ()
        """Models that nobody may call without their password, in whatever protocol."""
        self.aliases: Mapping[str, str] = EMPTY
        """Other names of models, for names that no model has itself."""

    # --- lookup ---

    def find(self, name: str, version: str = "", label: str = "") -> Entry:
        """The entry that answers for a model. Raises NOT_FOUND, NOT_READY or UNAVAILABLE with the reason (what="unloaded": on purpose)."""
        entry = self._table.get((name, f"@{label}" if label else version))
        if entry is None:
            known = self._known(name)
            if known != name:
                return self.find(known, version, label)
            raise absent(name, version, label, self._statuses.get(name, ()))
        return entry

    def entries(self) -> list[Entry]:
        """Every entry that answers, by name and then version, each once."""
        unique = {id(e): e for e in self._table.values()}
        return sorted(unique.values(), key=lambda e: (e.name, version_order(e.version)))

    def statuses(self, name: str = "") -> list[VersionStatus]:
        """Every known version of one model or of all, highest version first within a model. Empty for a name that is not known.

        A version that is ready but cannot answer just now (its process starts again) shows as LOADING, with the reason.
        """
        if name:
            return [self._now(s) for s in self._statuses.get(self._known(name), ())]
        return [self._now(s) for each in sorted(self._statuses) for s in self._statuses[each]]

    def labels(self, name: str) -> Mapping[str, str]:
        """Label -> version of one model."""
        return self._labels.get(self._known(name), {})

    def ready(self) -> bool:
        """Whether every model that should be served is, and nothing has failed; false while the server starts or drains.

        Of a lenient one: whether it answers.
        """
        return not self.draining and (self.lenient or (not self.starting and not self.unready()))

    def unready(self) -> list[VersionStatus]:
        """What keeps the server from being ready: versions that have failed, and those that load while no other of their model is ready."""
        statuses = self.statuses()
        answering = {s.name for s in statuses if s.state is State.READY}
        return [s for s in statuses if s.state is State.FAILED or (s.state is State.LOADING and s.name not in answering)]

    def gauges(self) -> list[Gauge]:
        """What every known version is at this moment, for the meters."""
        pending = {(e.name, e.version): e.servable.pending() for e in self.entries()}
        return [Gauge(s.name, s.version, pending.get((s.name, s.version), 0), s.state is State.READY) for s in self.statuses()]

    # --- calls ---

    async def infer(self, entry: Entry, request: InferRequest) -> InferResponse:
        """Check and run one request. The caller owns the answer; cancelling this await cancels the request."""
        meter = entry.meters.get(request.dialect)
        if meter is None:
            meter = self._meter(entry, request.dialect)
        entry.in_flight += 1
        begin = time.monotonic_ns()
        recorder = self._recorder
        recording: Recording | None = None
        try:
            if recorder is not None and recorder.active:
                recording = recorder.begin(entry.spec, entry.signatures.get(request.signature), request)
            self._admit(entry, request, begin)
            response = await entry.servable.infer(request)
        except BaseException as error:
            self._failed(meter, error, begin, recording)
            raise
        finally:
            entry.left()
        end = time.monotonic_ns()
        meter.succeeded(begin, end, response.timings)
        tracer = self._tracer
        if recording is not None or (tracer is not None and tracer.active):
            self._answered(entry, request.id, begin, end, response.timings, recording, response.outputs)
        return response

    def admit(self, entry: Entry, rows: Sequence[Value], operation: str = "predict") -> None:
        """Raise what infer_rows would raise before anything has run: no rows or too many, or an operation that the model lacks."""
        if self.locked:
            self.refuse_locked(entry.name)
        admit_rows(rows, self._max_inputs, entry.name)
        if operation != "predict" and operation not in entry.servable.operations:
            raise unknown_operation(entry, operation)

    def infer_each(self, entry: Entry, request: InferRequest) -> Awaitable[list[Value]]:
        """The rows of a request one by one, as `infer_rows` has it, so that the model's own batcher puts them into batches."""
        assert isinstance(request.inputs, Rows)
        return self.infer_rows(
            entry,
            request.inputs.items,
            operation=request.operation,
            parameters=request.parameters,
            request_id=request.id,
            deadline=request.deadline,
            priority=request.priority,
            caller=request.caller,
            dialect=request.dialect,
        )

    async def infer_rows(
        self,
        entry: Entry,
        rows: Sequence[Value],
        *,
        operation: str = "predict",
        parameters: Mapping[str, Value] = EMPTY,
        request_id: str = "",
        deadline: float = math.inf,
        priority: int = 0,
        dialect: str = "",
        caller: str = "",
        watch: Callable[[int], Watch | None] | None = None,
        done: Callable[[int], None] | None = None,
        patient: bool = False,
    ) -> list[Value]:
        """One output per row, in order, of any model: rows of a tensor model are converted. The first failure cancels the rest and is raised.

        Rows are asked for apart and may run in several batches, together with those of other calls. `watch` gives each row, by its index, who
        follows it; `done` hears of each that is answered. With `patient` a full queue of the model is waited for. The entry stays loaded
        meanwhile. Metered and traced as one request, however many rows it has.
        """
        self.admit(entry, rows, operation)
        name = signature_of(entry.signatures, operation)
        signature = entry.signatures[name]
        begin = time.monotonic_ns()
        if deadline == math.inf:
            deadline = begin / 1e9 + self._timeout_s  # of the whole call, not of each part anew
        template = InferRequest(
            Rows([]), operation, name, (), parameters, request_id, deadline, priority, new_group(), caller, True, dialect
        )
        meter = self._meter(entry, dialect)
        parts: list[Timings] = []
        recording: Recording | None = None
        if self._recorder is not None and self._recorder.active:
            recording = self._recorder.begin(entry.spec, signature, template, Rows(list(rows)))

        async def ask(request: InferRequest) -> InferResponse:
            self._admit(entry, request, begin)
            response = await entry.servable.infer(request)
            parts.append(response.timings)
            if recording is not None and signature.whole:
                recording.part(response.outputs)
            return response

        with self._failures(entry, meter, begin, recording):
            answers = await fan_out(ask, entry.spec, signature, rows, template, watch=watch, done=done, patient=patient)
        end = time.monotonic_ns()
        stages = meter.succeeded_in_parts(begin, end, parts)
        self._answered(entry, request_id, begin, end, stages, recording, Rows(answers))
        return answers

    async def stream(self, entry: Entry, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        """Like infer, for models that answer in parts; a model that does not gives one part. The end is no part, so there may be none.

        Metered as one request that lasts until its last part is taken; a caller that stops before has cancelled it.
        """
        meter = self._meter(entry, request.dialect)
        begin = time.monotonic_ns()
        timings = None
        recording: Recording | None = None
        if self._recorder is not None and self._recorder.active:
            recording = self._recorder.begin(entry.spec, entry.signatures.get(request.signature), request)
        with self._failures(entry, meter, begin, recording):
            self._admit(entry, request, begin)
            async with aclosing(entry.servable.stream(request)) as responses:
                async for response in responses:
                    timings = response.timings
                    if response.more or response.outputs.items:
                        if recording is not None:
                            recording.part(response.outputs)
                        yield response
        end = time.monotonic_ns()
        if timings is not None:
            meter.succeeded(begin, end, timings)
        if recording is not None:
            recording.answered(begin, end)

    def refuse_locked(self, name: str) -> None:
        """Raise UNAUTHENTICATED (what="deployment") for a locked model whose password the request that is being answered has not brought."""
        if name in self.locked and name not in OPENED.get():
            raise ServingError(
                Kind.UNAUTHENTICATED, f"deployment '{name}' asks for its user name and password: Authorization: Basic", what="deployment"
            )

    def let_in(self, name: str) -> None:
        """What this task does from here on may call a locked model: whoever asked for it was admitted then."""
        if name in self.locked:
            OPENED.set(frozenset({name}))

    # --- what the reconciler tells ---

    def swap(self, table: Table) -> None:
        """Put a new table in place: one assignment, so every request sees the old one or the new one."""
        for entry in table.values():
            self._meters.touch(entry.name, entry.version)
        self._table = table

    def table(self) -> Table:
        return self._table

    def publish(self, name: str, statuses: Iterable[VersionStatus], labels: Mapping[str, str]) -> None:
        """Replace what is known of one model; no statuses at all makes the name unknown."""
        ordered = sorted(statuses, key=lambda s: version_order(s.version), reverse=True)
        if ordered:
            self._statuses[name] = ordered
            self._labels[name] = labels
        else:
            self._statuses.pop(name, None)
            self._labels.pop(name, None)

    # --- below the surface ---

    def _admit(self, entry: Entry, request: InferRequest, begin_ns: int) -> None:
        """Refuse what this model cannot be asked, and set the deadline of a request that brings none."""
        if self.locked:
            self.refuse_locked(entry.name)
        signature = entry.signatures.get(request.signature)
        if signature is None:
            raise unknown_signature(entry, request.signature)
        if request.operation != "predict" and request.operation not in entry.servable.operations:
            raise unknown_operation(entry, request.operation)
        check(request, signature, entry.name, entry.max_size)
        if request.deadline == math.inf:
            request.deadline = begin_ns / 1e9 + self._timeout_s

    @contextmanager
    def _failures(self, entry: Entry, meter: Meter, begin: int, recording: Recording | None) -> Iterator[None]:
        """Hold an entry while one of its requests runs, and tell how that fails. `infer` has the same inline: it is the hot path."""
        with entry.held():
            try:
                yield
            except BaseException as error:
                self._failed(meter, error, begin, recording)
                raise

    def _failed(self, meter: Meter, error: BaseException, begin: int, recording: Recording | None) -> None:
        """Tell everybody of a request that was not answered."""
        end = time.monotonic_ns()
        if isinstance(error, ServingError):
            meter.failed(error.kind, end - begin)
            if error.trace:
                log.warning("%s\n%s", error.message, error.trace.rstrip())
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            meter.failed(Kind.CANCELLED, end - begin)
        elif isinstance(error, Exception):
            meter.failed(Kind.INTERNAL, end - begin)
        if recording is not None:
            recording.failed(begin, end, error)

    def _answered(
        self, entry: Entry, request_id: str, begin: int, end: int, timings: Timings, recording: Recording | None, outputs: Tensors | Rows
    ) -> None:
        """Tell those who look on of a request that was answered and is metered."""
        tracer = self._tracer
        if tracer is not None and tracer.active:
            tracer.sample(entry.name, entry.version, request_id, begin, end, timings)
        if recording is not None:
            recording.answered(begin, end, outputs)

    def _meter(self, entry: Entry, dialect: str) -> Meter:
        meter = entry.meters.get(dialect)
        if meter is None:
            meter = entry.meters[dialect] = self._meters.open(entry.name, entry.version, dialect)
        return meter

    def _known(self, name: str) -> str:
        """The model's own name, for one that it also goes by."""
        return name if name in self._statuses else self.aliases.get(name, name)

    def _now(self, status: VersionStatus) -> VersionStatus:
        entry = self._table.get((status.name, status.version)) if status.state is State.READY else None
        trouble = entry.servable.trouble() if entry is not None else ""
        return replace(status, state=State.LOADING, reason=trouble) if trouble else status


__all__ = ["OPENED", "Entry", "Gateway", "Table", "VersionStatus"]
