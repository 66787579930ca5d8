"""A model that lives in processes of its own, as a Servable: sends requests over unix sockets and gets through the death of a process.

What had not started when a process died is sent again; what had, fails, or runs once more where the spec says that it may. While no process
is up, requests wait here, within the same bounds as in a batcher.
"""

import asyncio
import logging
import math
import time
import zlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import InferRequest, InferResponse, ModelSpec
from dragoman.core.tensors import Signature
from dragoman.engines.connection import Connection, Pending
from dragoman.engines.keeper import Down, Event, Keeping, Lease, Lost, Query, Up
from dragoman.hosting.batcher import late
from dragoman.hosting.servable import place
from dragoman.hosting.streaming import Parts

log = logging.getLogger("dragoman.models")

_PRECISE_S = 2.0
"""A deadline nearer than this gets a timer of its own; farther ones are looked at by the tick."""
_TICK_S = 1.0
_SLACK_S = 1.0
"""How much longer than the process itself we wait before we say that a run took too long."""
_EXPLAIN_S = 2.0
"""How long after a connection broke the keeper has to say why."""
_READ_S = 0.25
"""How long after the end of a process its connection may take to end: a child of the model may hold it open."""


class RemoteServable:
    """Make it with `open`, on the loop that will call it."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._lease: Lease
        self.signatures: Mapping[str, Signature] = {}
        self.operations: frozenset[str] = frozenset()
        self.platform = spec.platform
        self._connections: list[Connection | None] = [None] * spec.instances
        self._ends: dict[int, str] = {}
        """Serial number of a process -> how it ended, as far as the keeper has said."""
        self._waiting: dict[int, Pending] = {}
        """Requests that no process has."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._queued = 0
        self._open = 0
        self._idle: asyncio.Event | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._tick_s = min(_TICK_S, max(0.05, spec.interrupt_grace_s / 4), max(0.05, spec.run_timeout_s / 4))
        self._trouble = f"the process of model '{spec.name}' starts"
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._closed = False

    @staticmethod
    async def open(spec: ModelSpec, keeping: Keeping) -> "RemoteServable":
        """Have the processes started, and connect. Raises ServingError with the reason when the model cannot be loaded."""
        servable = RemoteServable(spec)
        servable._lease = await keeping.acquire(spec, servable._heard)
        try:
            await asyncio.gather(*servable._connecting)
        except BaseException:
            await servable.close()
            raise
        facts = servable._lease.facts
        servable.signatures = facts.signatures
        servable.operations = facts.operations
        servable.platform = spec.platform or facts.platform
        if facts.batch_size:
            servable._spec = replace(spec, batch=replace(spec.batch, max_size=facts.batch_size))
        return servable

    # --- what a servable does ---

    async def infer(self, request: InferRequest) -> InferResponse:
        pending = self._accept(request)
        try:
            return await pending.future
        finally:
            self._leave(pending)

    async def stream(self, request: InferRequest) -> AsyncGenerator[InferResponse, None]:
        parts = Parts(self._spec.name)
        request.part = parts.arrived
        async with aclosing(parts.read(self.infer, request)) as responses:
            async for response in responses:
                yield response

    async def lost(self) -> str:
        return await asyncio.shield(self._lost)

    def pending(self) -> int:
        return self._queued

    def trouble(self) -> str:
        return self._trouble

    async def drain(self, deadline: float) -> None:
        if self._open:
            self._idle = asyncio.Event()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._idle.wait()
            except TimeoutError:
                self._fail_all(f"model '{self._spec.name}' was unloaded while this request waited")

    async def close(self) -> None:
        self._closed = True
        self._fail_all(f"model '{self._spec.name}' was unloaded while this request waited")
        if self._tick is not None:
            self._tick.cancel()
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in self._connections:
            if connection is not None:
                connection.line.close()
        self._lost.cancel()
        await self._lease.release()

    # --- one request ---

    def _accept(self, request: InferRequest) -> Pending:
        """Take a request, or raise at once."""
        name, most = self._spec.name, self._spec.batch.max_queue
        if self._lost.done() or self._closed:
            raise ServingError(Kind.UNAVAILABLE, self._trouble or f"model '{name}' is unloaded", what="model")
        if most and self._queued >= most:
            text = f"the queue of model '{name}' is full: {self._queued} requests wait, at most {most} may"
            raise ServingError(Kind.OVERLOADED, text, what="model", retry_after_s=1.0)
        key, length = place(request, self.signatures[request.signature], self._spec.batch)
        self._numbers += 1
        pending = Pending(self._numbers, request, None if key is None else repr(key), length, self._loop.create_future())
        if request.deadline != math.inf:
            left_s = request.deadline - time.monotonic()
            if left_s <= 0:
                raise late(name)
            if left_s < _PRECISE_S:
                pending.timer = self._loop.call_later(left_s, self._expire, pending)
        self._send(pending)
        self._open += 1
        self._queued += 1
        if self._tick is None:
            self._tick = self._loop.call_later(self._tick_s, self._look)
        return pending

    def _leave(self, pending: Pending) -> None:
        """The await of a request has ended, with an answer or without."""
        if pending.timer is not None:
            pending.timer.cancel()
        if not pending.started:
            self._queued -= 1
        self._open -= 1
        self._waiting.pop(pending.number, None)
        connection = pending.connection
        if connection is not None and not pending.answered:
            connection.cancel(pending)
        if not self._open and self._idle is not None:
            self._idle.set()

    def _send(self, pending: Pending) -> None:
        connection = self._choose(pending)
        if connection is None:
            self._waiting[pending.number] = pending
        else:
            connection.send(pending)

    def _choose(self, pending: Pending) -> Connection | None:
        """The process that gets a request: an idle one, else the one with the fewest batches to run, of these one that it fills up.

        Requests of one sequence go to one process, and wait for it when it is not up.
        """
        connections = self._connections
        if len(connections) == 1:
            return connections[0]
        parameters = pending.request.parameters
        if parameters:
            sequence = parameters.get("sequence_id")
            if sequence:
                return connections[zlib.crc32(repr(sequence).encode()) % len(connections)]
        up = [each for each in connections if each is not None]
        if not up:
            return None
        most = self._spec.batch.max_size

        def order(each: Connection) -> tuple[int, int]:
            if not each.outstanding:
                return (0, 0)
            return (min(1, each.running) + -(-(each.rows_waiting + pending.length) // most), -each.rows_waiting)

        return min(up, key=order)

    def _expire(self, pending: Pending) -> None:
        pending.settle(late(self._spec.name))

    def _look(self) -> None:
        """The tick: deadlines, runs that take too long, processes that do not react. There is one while there is anything to look at."""
        now = time.monotonic()
        limit_s = self._spec.run_timeout_s
        busy = False
        for pending in (*self._waiting.values(), *(p for c in self._present() for p in c.outstanding.values())):
            busy = True
            if pending.request.deadline <= now:
                self._expire(pending)
            elif pending.started and now - pending.started > limit_s + _SLACK_S:
                text = f"model '{self._spec.name}' ran for more than {limit_s:g} s"
                pending.settle(ServingError(Kind.TIMEOUT, text, what="model"))
        for connection in self._present():
            busy = busy or bool(connection.cancelled)
            if connection.hangs(now, self._spec.interrupt_grace_s):
                self._lease.complain(connection.index, connection.serial)
        self._tick = self._loop.call_later(self._tick_s, self._look) if busy else None

    # --- the life of processes ---

    def _present(self) -> Iterable[Connection]:
        return (each for each in self._connections if each is not None)

    def _heard(self, event: Event) -> None:
        match event:
            case Up(index, serial, path):
                task = self._loop.create_task(self._connect(index, serial, path))
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
            case Down(index, serial, reason):
                self._ends[serial] = reason
                self._trouble = f"{reason} and starts again" if not any(c for c in self._present() if c.serial != serial) else ""
                connection = self._connections[index]
                if connection is not None and connection.serial == serial:
                    self._loop.call_later(_READ_S, connection.line.abort, "its process has ended")
            case Query(index, serial):
                connection = self._connections[index]
                if connection is not None and connection.serial == serial and connection.waits_for_a_run():
                    self._lease.object(index, serial)
            case Lost(reason):
                self._trouble = f"model '{self._spec.name}' is given up: {reason}"
                if not self._lost.done():
                    self._lost.set_result(reason)
                self._fail_all(self._trouble)

    async def _connect(self, index: int, serial: int, path: str) -> None:
        connection = Connection(index, serial, self._spec.name, self._broken, self._began)
        try:
            await self._loop.create_unix_connection(lambda: connection.line, path)
        except OSError:
            if serial not in self._ends:  # when it ended meanwhile, the keeper says so, and starts another
                log.exception("the process of model '%s' cannot be reached", self._spec.name)
            return
        if connection.line.closed or self._closed:
            connection.line.close()
            return
        connection.greet()
        self._connections[index] = connection
        self._trouble = ""
        waiting, self._waiting = self._waiting, {}
        for pending in waiting.values():
            self._send(pending)

    def _began(self) -> None:
        """A request is no longer waiting."""
        self._queued -= 1

    def _broken(self, connection: Connection) -> None:
        """A connection has ended. What becomes of its requests is told when it is known why; nothing new goes there."""
        if self._connections[connection.index] is connection:
            self._connections[connection.index] = None
        if connection.serial in self._ends or self._closed:
            self._recover(connection)
            return
        if not any(self._present()):
            self._trouble = f"the process of model '{self._spec.name}' starts again"
        until = time.monotonic() + _EXPLAIN_S

        def explained() -> None:
            if connection.serial in self._ends or self._closed:
                self._recover(connection)
            elif time.monotonic() > until:
                self._lease.complain(connection.index, connection.serial, broken=True)
                self._recover(connection)
            else:
                self._loop.call_later(0.02, explained)

        explained()

    def _recover(self, connection: Connection) -> None:
        reason = self._ends.pop(connection.serial, "the connection to the model process ended")
        connection.cancelled.clear()
        again: list[Pending] = []
        for pending in connection.take():
            if pending.future.done():
                continue
            if pending.started and (not self._spec.repeatable or pending.repeated or pending.request.part is not None):
                text = f"{reason} while it ran this request for model '{self._spec.name}'"
                pending.settle(ServingError(Kind.UNAVAILABLE, text, what="model"))
                continue
            if pending.started:
                pending.repeated = True
                pending.started = 0.0
                self._queued += 1
            again.append(pending)
        if self._lost.done() or self._closed:
            self._fail_all(self._trouble)
            for pending in again:
                pending.settle(ServingError(Kind.UNAVAILABLE, self._trouble, what="model"))
            return
        for pending in again:
            self._send(pending)
        self._waiting = dict(sorted(self._waiting.items()))  # what waited longest goes first

    def _fail_all(self, text: str) -> None:
        for pending in (*self._waiting.values(), *(p for c in self._present() for p in c.outstanding.values())):
            pending.settle(ServingError(Kind.UNAVAILABLE, text, what="model"))
