"""The model of a model process: batches it on the loop, runs it in the main thread, breaks runs off that nobody waits for. Called by host.py.

A run has a number. When everybody of it has left, or it takes too long, user code is interrupted, once per number; when that does not end
it within the grace time, only the end of the process can.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import Call, InferRequest, Model, ModelSpec
from dragoman.hosting import streaming
from dragoman.hosting.batch import Batch, Member, Outcome, Payload, execute
from dragoman.hosting.batcher import Batcher
from dragoman.hosting.output import Pieces
from dragoman.hosting.runner import Interrupted, Runner


class Follower(Protocol):
    """Whoever sent requests. Called on the loop."""

    def started(self, number: int, members: Sequence[Member]) -> None:
        """These run now as batch `number`. Must have left the process when this returns: it may die of the run."""
        ...

    def printed(self, number: int, text: str) -> None: ...


@dataclass(eq=False, slots=True)
class _Run:
    number: int
    members: Sequence[Member]
    broken_off: bool = False


class HostedModel:
    """Make it on the loop that calls it. `stuck` is called with the reason when a run does not end although it was interrupted."""

    def __init__(self, spec: ModelSpec, model: Model, runner: Runner, stuck: Callable[[str], None]) -> None:
        self._spec = spec
        self._model = model
        self._runner = runner
        self._stuck = stuck
        self._loop = asyncio.get_running_loop()
        # No batch ahead of its turn: STARTED must mean that it runs now, because what has not started is sent again after a crash.
        self._batcher = Batcher(spec.name, spec.batch, 1, self._start, ahead=False)
        self._followers: dict[Member, Follower] = {}
        self._numbers = itertools.count(1)
        self._announced = 0
        self._run: _Run | None = None
        """What runs now: set and cleared by the main thread, looked at by the loop."""
        self._timer: asyncio.TimerHandle | None = None
        self._pieces = Pieces(self._post)

    # --- on the loop ---

    def enqueue(self, request: InferRequest, key: Hashable, length: int, follower: Follower, *, admitted: bool) -> Member:
        """As Batcher.enqueue; `leave` must follow."""
        member = self._batcher.enqueue(request, key, length, admitted=admitted)
        self._followers[member] = follower
        return member

    def leave(self, member: Member) -> None:
        """A member's future is done. If it was the last one of the run, nobody waits for that any more."""
        del self._followers[member]
        self._batcher.leave(member)
        run = self._run
        if run is not None and all(m.future.done() for m in run.members):
            self._break_off(run, "nobody waits for it any more")

    def close(self) -> None:
        """To be called in the main thread, when nothing runs."""
        self._model.close()

    def _start(self, batch: Batch) -> None:
        # One pass later the answers of the run before are on their way: this run may end the process.
        self._loop.call_soon(self._begin, batch)

    def _begin(self, batch: Batch) -> None:
        number = next(self._numbers)
        self._announce(number, batch)
        self._announced = number
        self._runner.submit(lambda: self._execute(batch))

    def _announce(self, number: int, members: Sequence[Member]) -> None:
        """Tell everybody whose requests run now, and set the clock."""
        groups: dict[Follower, list[Member]] = {}
        for member in members:
            follower = self._followers.get(member)
            if follower is not None:
                groups.setdefault(follower, []).append(member)
        for follower, theirs in groups.items():
            follower.started(number, theirs)
        if self._timer is not None:
            self._timer.cancel()
        if self._spec.run_timeout_s != math.inf:
            self._timer = self._loop.call_later(self._spec.run_timeout_s, self._overdue, number)

    def _overdue(self, number: int) -> None:
        run = self._run
        if run is None or run.number != number:
            return
        limit_s = self._spec.run_timeout_s
        for member in run.members:
            member.settle(ServingError(Kind.TIMEOUT, f"model '{self._spec.name}' ran for more than {limit_s:g} s", what="model"))
        self._break_off(run, f"it ran for more than {limit_s:g} s")

    def _break_off(self, run: _Run, why: str) -> None:
        if run.broken_off:
            return
        run.broken_off = True
        self._runner.interrupt(run.number)
        grace_s = self._spec.interrupt_grace_s
        reason = f"a call of model '{self._spec.name}' did not end within {grace_s:g} s of being interrupted ({why})"
        self._loop.call_later(grace_s, self._give_up, run, reason)

    def _give_up(self, run: _Run, reason: str) -> None:
        if self._run is run:
            self._stuck(reason)

    def _finished(self, batch: Batch, outcomes: list[Outcome]) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._batcher.finished(batch, outcomes)

    def _post(self) -> None:
        self._loop.call_soon_threadsafe(self._print)

    def _print(self) -> None:
        followers = set(self._followers.values())
        for number, text in self._pieces.take():
            for follower in followers:
                follower.printed(number, text)

    # --- in the main thread, or any ---

    def printed(self, text: str) -> None:
        """User code printed something: those follow it whose requests run now."""
        run = self._run
        if run is not None:
            self._pieces.add(run.number, text)

    def _execute(self, batch: Batch) -> None:
        outcomes = execute(batch, self._predict, self._spec.name, self._starting)
        self._loop.call_soon_threadsafe(self._finished, batch, outcomes)

    def _starting(self, members: Sequence[Member]) -> None:
        number, self._announced = self._announced, 0
        if not number:  # one group of the batch, alone
            number = next(self._numbers)
            self._loop.call_soon_threadsafe(self._announce, number, members)
        self._run = _Run(number, members)
        # Whoever left before that line was written found no run to break off; whoever leaves after it finds this one.
        if all(m.future.done() for m in members):
            self._run = None
            raise ServingError(Kind.CANCELLED, "the requests were given up before they ran")

    def _predict(self, inputs: Payload, request: InferRequest, outputs: tuple[str, ...]) -> Payload:
        run = self._run
        assert run is not None
        call = Call(inputs, request.operation, request.signature, outputs, request.parameters, request.record)
        try:
            return self._runner.call(run.number, lambda: streaming.run(self._model, call, request))
        except Interrupted:
            raise ServingError(Kind.CANCELLED, "the run was broken off") from None
        finally:
            self._run = None
