"""Requests wait here, are joined by batch key, run together, and are resolved one by one. Called by LocalServable, on the event loop.

The rule: when the model is free, take what waits, up to `max_size`; wait up to `max_delay` only if the policy asks. No timer while busy.
Ownership: once `submit` returned or raised, the batcher holds nothing of that request. A member that is cancelled or late is dropped
alone; the others of its batch never notice.
"""

import asyncio
import math
import time
from bisect import insort
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias

from dragoman.core.errors import Kind, ServingError
from dragoman.core.model import BatchPolicy, InferRequest, InferResponse
from dragoman.hosting.batch import Batch, Member, Outcome, stand_in

ALONE: Final = None
"""The key of requests that are never joined."""

_PASS_NS = 5_000_000
"""How long one pass may keep the loop before it lets other callbacks run."""
_PRECISE_S = 2.0
"""A deadline nearer than this gets a timer of its own; farther ones are looked at by a tick, which costs a request nothing."""
_LAST = 1 << 30
"""A priority level behind all others, for requests that are late but not dropped."""

Start: TypeAlias = Callable[[Batch], None]


class Batcher:
    """One queue in front of one model.

    `start` runs a batch somewhere (inline or in a thread) and must see to it that `finished` is called on the loop afterwards, exactly
    once. At most `slots` batches run at a time; where `ahead` allows it, as many full ones are handed to `start` before their turn.
    """

    def __init__(self, name: str, policy: BatchPolicy, slots: int, start: Start, *, ahead: bool = True) -> None:
        self._name = name
        self._policy = policy
        self._free = slots
        """Slots that are free; below 0 that many batches are ready for the next ones."""
        self._ahead = slots if ahead and not policy.levels and not policy.max_delay_s else 0
        self._slots = slots
        self._start = start
        self._target = min(policy.preferred[-1], policy.max_size) if policy.preferred else policy.max_size
        self._queues: dict[Hashable, list[Member]] = {}
        self._waiting = 0
        self._level_waiting: dict[int, int] = {}
        self._sequence = 0
        self._pass_scheduled = False
        self._passing = False
        self._delay: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._running: dict[int, Batch] = {}
        self._idle: asyncio.Event | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> int:
        """Requests in the queue, those that run not counted."""
        return self._waiting

    async def idle(self) -> None:
        """Wait until nothing waits and nothing runs."""
        if self._waiting or self._free < self._slots:
            self._idle = self._idle or asyncio.Event()
            self._idle.clear()
            await self._idle.wait()

    async def submit(self, request: InferRequest, key: Hashable, length: int) -> InferResponse:
        """Queue one request and wait for its own answer. Cancelling this await is the cancel.

        Raises OVERLOADED at once when the queue is full, TIMEOUT at the request's deadline, and whatever the model raises.
        """
        member = self.enqueue(request, key, length)
        try:
            return await member.future
        finally:
            self.leave(member)

    def enqueue(self, request: InferRequest, key: Hashable, length: int, *, admitted: bool = False) -> Member:
        """Queue one request; its answer comes to the future of the member, and cancelling that is the cancel.

        Whoever calls this calls `leave` when the future is done, however that came. One that was `admitted` before is never OVERLOADED.
        """
        policy = self._policy
        level = min(request.priority or policy.default_level, policy.levels) if policy.levels else 0
        if not admitted:
            self._refuse_when_full(level)
        deadline = request.deadline
        if policy.queue_timeout_s != math.inf or policy.level_timeout_s:
            deadline = self._queue_deadline(request, level)
        self._sequence += 1
        member = Member(request, key, length, (level, self._sequence), self._loop.create_future())
        if deadline != math.inf:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise late(self._name)
            if left_s < _PRECISE_S or policy.timeout_delays:
                member.timer = self._loop.call_later(left_s, self._expire, member)
            elif self._tick is None:
                self._tick = self._loop.call_later(_PRECISE_S / 2, self._look_at_deadlines)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = [member]
        elif queue[-1] < member:
            queue.append(member)
        else:
            insort(queue, member)
        self._waiting += 1
        if policy.levels:
            self._level_waiting[level] = self._level_waiting.get(level, 0) + 1
        if not self._pass_scheduled and (self._free > 0 or self._full_batch_waits()):
            # Every request that arrives in this pass of the loop joins: that costs 2 us and saves whole runs under load.
            self._pass_scheduled = True
            self._loop.call_soon(self._pass)
        return member

    def leave(self, member: Member) -> None:
        """Forget a member whose future is done. Once is enough, twice does no harm."""
        if member.timer is not None:
            member.timer.cancel()
        if member.queued:  # cancelled or late while it waited
            self._drop(member)

    def finished(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Resolve the members of a batch that ran and give its slot to the next."""
        self._free += 1
        self._running.pop(id(batch), None)
        if batch[0].future.done():
            stand_in(batch, outcomes)
        for member, outcome in zip(batch, outcomes, strict=True):
            member.settle(outcome)
        if self._waiting:
            if not self._passing:
                self._pass()
        elif self._idle is not None and self._free == self._slots:
            self._idle.set()

    def fail_all(self, error: ServingError) -> None:
        """Resolve everything that waits with an error: the servable is closing."""
        for queue in self._queues.values():
            for member in queue:
                member.settle(error)

    def _refuse_when_full(self, level: int) -> None:
        policy = self._policy
        waiting, bound = self._waiting, policy.max_queue
        if policy.levels and level in policy.level_max_queue:
            waiting, bound = self._level_waiting.get(level, 0), policy.level_max_queue[level]
        if bound and waiting >= bound:
            raise ServingError(
                Kind.OVERLOADED,
                f"the queue of model '{self._name}' is full: {waiting} requests wait, at most {bound} may",
                what="model",
                retry_after_s=1.0,
            )

    def _queue_deadline(self, request: InferRequest, level: int) -> float:
        """When this request is late: the policy's time-out, or the request's own where the policy lets it name one."""
        own = request.deadline
        default_s = self._policy.level_timeout_s.get(level, self._policy.queue_timeout_s)
        if own != math.inf and self._policy.timeout_override:
            return own
        return min(own, time.monotonic() + default_s)

    def _expire(self, member: Member) -> None:
        own = member.request.deadline
        if not (self._policy.timeout_delays and time.monotonic() < own):
            member.settle(late(self._name))
        elif member.queued:
            queue = self._queues[member.key]
            queue.remove(member)
            member.order = (_LAST, member.order[1])
            insort(queue, member)
            member.timer = self._loop.call_at(own, self._expire, member) if own != math.inf else None

    def _look_at_deadlines(self) -> None:
        """Resolve whoever is late among those that wait or run; again in a second while there are any."""
        now = time.monotonic()
        self._tick = None
        for members in (*self._queues.values(), *self._running.values()):
            for member in members:
                if member.request.deadline <= now:
                    member.settle(late(self._name))
        if self._waiting or self._running:
            self._tick = self._loop.call_later(_PRECISE_S / 2, self._look_at_deadlines)

    def _full_batch_waits(self) -> bool:
        """Whether another batch may be made ready while all slots are busy: only a full one, which nobody could join any more.

        The model then goes from one run to the next without waiting for the loop, which is busy answering the batch before.
        """
        return self._target > 1 and self._waiting >= self._target and self._free > -self._ahead and len(self._queues) == 1

    def _drop(self, member: Member) -> None:
        queue = self._queues[member.key]
        queue.remove(member)
        if not queue:
            del self._queues[member.key]
        self._left(member)

    def _left(self, member: Member) -> None:
        member.queued = False
        self._waiting -= 1
        if self._policy.levels:
            self._level_waiting[member.level] -= 1

    def _pass(self) -> None:
        """Start batches while a slot is free and somebody waits."""
        self._pass_scheduled = False
        self._passing = True
        begin = time.monotonic_ns()
        try:
            while self._waiting and (self._free > 0 or self._full_batch_waits()):
                batch = self._take()
                if batch is None:
                    break
                if not batch:
                    continue
                self._free -= 1
                self._running[id(batch)] = batch
                self._start(batch)
                if self._free > 0 and self._waiting and time.monotonic_ns() - begin > _PASS_NS:
                    self._pass_scheduled = True
                    self._loop.call_soon(self._pass)
                    break
        finally:
            self._passing = False

    def _take(self) -> Batch | None:
        """Remove the next batch from the queue. Empty: whoever waited there has left. None: the policy wants to wait for company."""
        queues = self._queues
        key = next(iter(queues)) if len(queues) == 1 else min(queues, key=lambda k: queues[k][0])
        queue = queues[key]
        target = 1 if key is ALONE else self._target
        batch: Batch = []
        rest: list[Member] = []
        size = seen = 0
        for member in queue:
            seen += 1
            if member.future.done():  # cancelled or late in this very pass of the loop
                self._left(member)
            elif not batch or size + member.length <= target:
                batch.append(member)
                size += member.length
                if size >= target:
                    break
            else:
                rest.append(member)
        if batch and key is not ALONE and self._wait_for_company(batch, size, bool(rest)):
            queues[key] = batch + rest
            return None
        rest += queue[seen:]
        if rest:
            queues[key] = rest
        else:
            del queues[key]
        for member in batch:
            self._left(member)
        return batch

    def _wait_for_company(self, batch: Batch, size: int, more: bool) -> bool:
        """Whether the policy holds this batch back, in which case a timer will look again."""
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        delay_s = self._policy.max_delay_s
        if not delay_s or more or size >= self._target or size in self._policy.preferred:
            return False
        waited_s = (time.monotonic_ns() - min(m.queued_ns for m in batch)) / 1e9
        if waited_s >= delay_s:
            return False
        self._delay = self._loop.call_later(delay_s - waited_s, self._pass)
        return True


def late(name: str) -> ServingError:
    """The answer to a request whose deadline has come."""
    return ServingError(Kind.TIMEOUT, f"the request to model '{name}' reached its deadline before it was answered", what="model")
